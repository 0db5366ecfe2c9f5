"""Logistic regression with a Gaussian prior: its one minimum by Newton's method, and the evidence there."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.evidence import (
    LogEvidence,
    RegularisedMinimum,
    check_prior,
    curvature_from_eigenvalues,
    log_evidence,
)
from gengap.theory.least_squares import Floats

ENOUGH = 1e-13  # nats that another Newton step would lower C by, relative to C + 1
STEPS = 200  # of Newton's method; from zero 5 to 30 are usual
HALVINGS = 60  # of one step
ARMIJO = 1e-4  # share of the promised descent that a step has to keep


@dataclass(frozen=True, slots=True)
class LogisticFit(Record):
    """The minimum of C = H + l2 |w|^2 / 2, H the cross-entropy summed over the samples.

    Attributes:
        weights: w, one for each feature, shape (P,).
        l2: coefficient of the summed loss.
        loss_sum: H, in nats.
        steps: of Newton's method.
        newton_drop: by how much another step would lower C, in nats.
        converged: that is below 1e-13 (C + 1).
    """

    weights: Floats
    l2: float
    loss_sum: float
    steps: int
    newton_drop: float
    converged: bool


def fit_logistic(
    inputs: npt.ArrayLike, labels: npt.ArrayLike, l2: float, *, start: npt.ArrayLike | None = None
) -> LogisticFit:
    r"""Find the minimum of the regularised cross-entropy by Newton's method with a line search.

    .. math::
        C(w) = -\sum_i \ln \sigma(s_i w^\top x_i) + \tfrac{\lambda}{2} |w|^2, \qquad s_i = 2 y_i - 1.

    C is strictly convex, so there is one minimum, also where the labels can be separated. Each step is halved until it
    keeps 1e-4 of the descent it promises.

    Costs a few factorisations of a (P, P) matrix.

    Args:
        inputs: x, shape (N, P); add a column of ones for a bias, which then has the same prior.
        labels: y, 0 or 1, shape (N,).
        l2: lambda, > 0. A weight decay d on the mean loss is l2 = N d.
        start: weights to begin with, shape (P,); zero if left out.

    Returns:
        The minimum, and how near it was reached: where rounding stops the search first, `converged` is False.

    Raises:
        BadInput: inputs or labels cannot be used, or l2 is not positive.
    """
    check_prior(l2)
    x, signs = samples(inputs, labels)
    w = np.zeros(x.shape[1]) if start is None else np.array(start, dtype=np.float64)
    if w.shape != (x.shape[1],):
        raise BadInput(f"start has shape {w.shape}; give one weight for each of the {x.shape[1]} features")
    for steps in range(STEPS + 1):
        step, drop = newton_step(x, signs, w, l2)
        enough = drop <= ENOUGH * (cost(x, signs, w, l2) + 1)
        size = 0.0 if enough or steps == STEPS else line_search(x, signs, w, step, drop, l2)
        if not size:
            break
        w = w + size * step
    return LogisticFit(w, l2, loss_sum(x, signs, w), steps, drop, enough)


def logistic_evidence(fit: LogisticFit, inputs: npt.ArrayLike, labels: npt.ArrayLike) -> LogEvidence:
    """Compute the log evidence of a logistic regression in Laplace's approximation, from its exact Hessian.

    Args:
        fit: the minimum of C.
        inputs: what it was fitted to, shape (N, P).
        labels: likewise, shape (N,).

    Returns:
        The evidence with its parts. Every eigenvalue enters: all weights have the prior, so none is below l2.

    Raises:
        BadInput: inputs or labels cannot be used.

    Source:
        Smith & Le 2018, arXiv:1710.06451, eqs. 11 and 12.
    """
    x, _ = samples(inputs, labels)
    # from the singular values of D^1/2 X no eigenvalue comes out below l2, however small that is
    stretched = np.sqrt(slopes(x @ fit.weights))[:, None] * x
    found = np.zeros(x.shape[1])
    singular = np.linalg.svd(stretched, compute_uv=False)
    found[: len(singular)] = singular**2
    squared_norm = float(fit.weights @ fit.weights)
    minimum = RegularisedMinimum(fit.loss_sum, squared_norm, fit.l2, len(x), 2)
    return log_evidence(minimum, curvature_from_eigenvalues(found + fit.l2, fit.l2, rule="all"))


def score(weights: Floats, inputs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, float]:
    """Return accuracy in percent and mean cross-entropy in nats.

    Args:
        weights: w, shape (P,).
        inputs: x, shape (N, P).
        labels: 0 or 1, shape (N,).

    Returns:
        The two; an output of exactly zero counts as label 0.

    Raises:
        BadInput: inputs or labels cannot be used.
    """
    x, signs = samples(inputs, labels)
    right = (x @ weights > 0) == (signs > 0)
    return 100 * float(right.mean()), loss_sum(x, signs, weights) / len(x)


def cost(x: Floats, signs: Floats, w: Floats, l2: float) -> float:
    """Return C in nats."""
    return loss_sum(x, signs, w) + l2 / 2 * float(w @ w)


def loss_sum(x: Floats, signs: Floats, w: Floats) -> float:
    """Return H, the summed cross-entropy in nats."""
    return math.fsum(-log_expit(signs * (x @ w)))


def slopes(outputs: Floats) -> Floats:
    """Return p (1 - p), the curvature of the cross-entropy by each output."""
    return np.asarray(expit(outputs) * expit(-outputs))


def newton_step(x: Floats, signs: Floats, w: Floats, l2: float) -> tuple[Floats, float]:
    """Return the step to the minimum of the quadratic that touches C at w, and how much lower that is."""
    outputs = x @ w
    gradient = l2 * w - x.T @ (signs * expit(-signs * outputs))
    hessian = (x.T * slopes(outputs)) @ x
    hessian[np.diag_indices_from(hessian)] += l2
    step = -np.linalg.solve(hessian, gradient)
    return step, -float(gradient @ step) / 2


def line_search(x: Floats, signs: Floats, w: Floats, step: Floats, drop: float, l2: float) -> float:
    """Return the largest of 1, 1/2, 1/4, ... of a step that lowers C enough; 0 where rounding leaves none."""
    base = cost(x, signs, w, l2)
    for halvings in range(HALVINGS):
        size = 0.5**halvings
        # a step of this size promises a descent of 2 size drop, to first order
        if cost(x, signs, w + size * step, l2) <= base - ARMIJO * size * 2 * drop:
            return size
    return 0.0


def samples(inputs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Take the samples of a classification in two classes.

    Args:
        inputs: shape (N, P).
        labels: 0 or 1, shape (N,).

    Returns:
        Inputs in float64, and signs -1 or 1 for the labels.

    Raises:
        BadInput: shapes do not fit, numbers are not finite, or a label is neither 0 nor 1.
    """
    x, y = np.asarray(inputs, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 2 or not x.size or y.shape != x.shape[:1]:
        raise BadInput(f"inputs has shape {x.shape} and labels {y.shape}; give (N, P) and (N,)")
    if not np.isfinite(x).all():
        raise BadInput(f"inputs holds {int((~np.isfinite(x)).sum())} numbers that are not finite")
    if not np.isin(y, (0, 1)).all():
        raise BadInput(f"labels holds {y[~np.isin(y, (0, 1))][0]:g}; give 0 or 1 for every sample")
    return x, 2 * y - 1
