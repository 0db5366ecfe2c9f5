"""Gradient descent on separable data: it never stops growing, and turns towards the largest margin."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp
from scipy.optimize import nnls
from scipy.special import expit, log_expit

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.diffusion import LogFit, fit_log_time
from gengap.theory.least_squares import Floats
from gengap.theory.logistic import samples

Verdict = Literal["as predicted", "not there yet"]

EXACT = 10_000  # updates made one by one; after them the path is that of the gradient flow
NEAR = 0.05  # relative difference from the predicted slopes that still counts as agreement
STRAIGHT = 0.99  # R^2 of 1 / distance as a line in ln t


@dataclass(frozen=True, slots=True)
class HardMargin(Record):
    """The hyperplane through the origin with the largest margin.

    Attributes:
        weights: w, the shortest with s_n w.x_n >= 1 for every sample, shape (P,).
        margin: distance of the nearest sample from the hyperplane, 1 / |w|.
        multipliers: of the samples, with w = sum of multiplier s x, shape (N,); above zero for support vectors only.
    """

    weights: Floats
    margin: float
    multipliers: Floats

    @property
    def norm(self) -> float:
        """Length of the weights: what the norm of gradient descent gains in an e-fold of time, in the end."""
        return 1 / self.margin


def hard_margin(inputs: npt.ArrayLike, labels: npt.ArrayLike) -> HardMargin:
    r"""Find the hard-margin direction, :math:`\min |w|^2` subject to :math:`s_n w^\top x_n \ge 1`.

    It is a least-distance problem, which non-negative least squares solves in finitely many steps, and which tells data
    that no hyperplane separates.

    Args:
        inputs: x, shape (N, P); add a column of ones for a bias, which is then part of the norm.
        labels: y, 0 or 1, shape (N,).

    Returns:
        The direction with its margin and multipliers, to about 1e-8.

    Raises:
        BadInput: inputs or labels cannot be used, or no hyperplane through the origin separates them.

    Source:
        Lawson & Hanson 1974, Solving Least Squares Problems, chapter 23.
    """
    x, signs = samples(inputs, labels)
    size = float(np.linalg.norm(x, axis=1).max()) or 1.0
    z = signs[:, None] * x / size
    system = np.vstack([z.T, np.ones(len(z))])
    target = np.eye(len(system))[-1]
    found, _ = nnls(system, target, maxiter=100 * len(z))
    residual = target - system @ found
    # where a combination of samples reaches the origin the residual is rounding, and says nothing of a direction
    w = -residual[:-1] / residual[-1] if residual[-1] > 1e-14 else np.zeros(x.shape[1])
    if not (z @ w).min() > 1 - 1e-6:
        raise BadInput(
            f"no hyperplane through the origin separates the {len(x):,} samples; gradient descent then has a finite minimum and "
            "no margin. Add a column of ones if a bias is wanted"
        )
    w = w / (z @ w).min() / size
    return HardMargin(w, 1 / float(np.linalg.norm(w)), found / residual[-1] / size**2)


@dataclass(frozen=True, slots=True)
class Path(Record):
    """Gradient descent at the moments that were recorded.

    Attributes:
        updates: t, shape (T,).
        weights: w, shape (T, P).
        norms: |w|.
        distances: | w/|w| - its limit |, between the unit vectors; the angle in radians, where that is small.
        margin_gaps: largest margin minus the smallest s_n w.x_n / |w|.
        losses: mean cross-entropy on the training samples, nats.
    """

    updates: Floats
    weights: Floats
    norms: Floats
    distances: Floats
    margin_gaps: Floats
    losses: Floats


@dataclass(frozen=True, slots=True)
class MarginConvergence(Record):
    """How gradient descent on separable data approaches the largest margin.

    Attributes:
        verdict: "as predicted" where the norm and the loss have the predicted slopes within 5 % and 1 / distance is a
            rising line in ln t; "not there yet" otherwise, since the theorem holds for every separable set in the end.
        reason: one sentence with the numbers.
        limit: the hard-margin direction.
        path: what was recorded.
        norm: |w| as a line in ln t; predicted slope |w_hard|.
        inverse_distance: 1 / distance as a line in ln t: the distance falls as 1 / ln t. None where it reached zero.
        inverse_gap: 1 / margin gap likewise; None where the gap reached zero.
        log_loss: ln loss as a line in ln t; predicted slope -1, the loss falls as 1 / t.
        lr: learning rate.
        fitted_from: first update that the fits see.
    """

    verdict: Verdict
    reason: str
    limit: HardMargin
    path: Path
    norm: LogFit
    inverse_distance: LogFit | None
    inverse_gap: LogFit | None
    log_loss: LogFit
    lr: float
    fitted_from: float

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def margin_convergence(
    inputs: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    updates: float = 1e12,
    lr: float | None = None,
    records: int = 60,
    fit_from: float | None = None,
    start: npt.ArrayLike | None = None,
) -> MarginConvergence:
    r"""Follow gradient descent on the mean logistic loss of separable data, without regularisation.

    Soudry et al. prove :math:`w(t) = \hat w \ln t + \rho(t)` with rho bounded and :math:`\hat w` the hard-margin vector, so

    .. math::
        |w| \sim |\hat w| \ln t, \quad \Big| \frac{w}{|w|} - \frac{\hat w}{|\hat w|} \Big| = O(1 / \ln t), \quad
        \text{margin gap} = O(1 / \ln t), \quad L = O(1/t).

    The first 10,000 updates are made one by one. By then one moves the weights by about |w_hard| / t, and the path from
    there on is that of the gradient flow, integrated over ln t: in which 10^12 updates are 18 units of time.

    The intervals of the fits come from how far the curve is from its line, not from noise, of which there is none.

    Costs 10,000 gradients and some hundred for each decade after them.

    Args:
        inputs: x, shape (N, P); add a column of ones for a bias.
        labels: y, 0 or 1, shape (N,).
        updates: T, from 100 to 1e100.
        lr: learning rate for the mean loss; None: 1 / beta, with beta = s_max^2 / 4 N the largest curvature there is.
        records: moments kept, evenly spaced in ln t, >= 12.
        fit_from: first update that the fits see; None: the square root of T.
        start: weights to begin with, shape (P,); zero if left out.

    Returns:
        The path, the fits and a verdict.

    Raises:
        BadInput: the data cannot be used or are not separable, the learning rate is not below 2 / beta, or another
            argument is out of range.

    Source:
        Soudry et al. 2018, arXiv:1710.10345, theorem 3 and its consequences.
    """
    limit = hard_margin(inputs, labels)
    x, signs = samples(inputs, labels)
    z = signs[:, None] * x
    rate = learning_rate(z, lr)
    if not (100 <= updates <= 1e100 and records >= 12):
        raise BadInput(f"updates is {updates!r} and records {records!r}; give 100 to 1e100, and at least 12")
    begin = math.sqrt(updates) if fit_from is None else fit_from
    when = np.unique(np.round(np.geomspace(1, updates, records)))
    w = np.zeros(x.shape[1]) if start is None else np.array(start, dtype=np.float64)
    if w.shape != (x.shape[1],):
        raise BadInput(f"start has shape {w.shape}; give one weight for each of the {x.shape[1]} features")
    path = compared(when, descend(z, w, rate, when), z, limit)
    return judged(limit, path, rate, begin)


def descend(z: Floats, w: Floats, lr: float, when: Floats) -> Floats:
    """Follow gradient descent.

    Args:
        z: inputs times the signs of their labels, shape (N, P).
        w: weights to begin with, shape (P,).
        lr: learning rate for the mean loss.
        when: updates at which the weights are kept, ascending whole numbers, shape (T,).

    Returns:
        The weights there, shape (T, P).
    """
    due, kept = set(when[when <= EXACT].tolist()), []
    for t in range(1, int(min(EXACT, when[-1])) + 1):
        w = w + lr * descent(z, w)
        if t in due:
            kept.append(w)
    later = np.log(when[when > EXACT])
    if not len(later):
        return np.array(kept)
    flow = solve_ivp(
        lambda s, w: lr * math.exp(s) * descent(z, w),
        (math.log(EXACT), later[-1]),
        w,
        method="DOP853",
        t_eval=later,
        rtol=1e-9,
        atol=1e-9,
    )
    return np.vstack([np.array(kept).reshape(-1, len(w)), flow.y.T])


def descent(z: Floats, w: Floats) -> Floats:
    """Return minus the gradient of the mean logistic loss."""
    return np.asarray(expit(-(z @ w)) @ z / len(z))


def compared(when: Floats, weights: Floats, z: Floats, limit: HardMargin) -> Path:
    """Compare the weights at every moment with their limit."""
    norms = np.linalg.norm(weights, axis=1)
    units = weights / norms[:, None]
    outputs = weights @ z.T
    return Path(
        updates=when,
        weights=weights,
        norms=norms,
        distances=np.linalg.norm(units - limit.weights * limit.margin, axis=1),
        margin_gaps=limit.margin - (units @ z.T).min(axis=1),
        losses=-log_expit(outputs).mean(axis=1),
    )


def judged(limit: HardMargin, path: Path, lr: float, begin: float) -> MarginConvergence:
    """Fit the laws to the later part of a path.

    Args:
        limit: the hard-margin direction.
        path: what was recorded.
        lr: learning rate.
        begin: first update to fit.

    Returns:
        The fits with the verdict.

    Raises:
        BadInput: fewer than five moments are left to fit.
    """
    late = path.updates >= begin
    if late.sum() < 5:
        raise BadInput(f"fit_from is {begin:.4g}, after which {late.sum()} moments were recorded; five are needed")
    t = path.updates[late]
    norm, log_loss = fit_log_time(t, path.norms[late]), fit_log_time(t, np.log(path.losses[late]))
    inverse, gap = inverse_fit(t, path.distances[late]), inverse_fit(t, path.margin_gaps[late])
    verdict, reason = judge(limit, norm, log_loss, inverse)
    return MarginConvergence(verdict, reason, limit, path, norm, inverse, gap, log_loss, lr, begin)


def inverse_fit(t: Floats, values: Floats) -> LogFit | None:
    """Fit 1 / value as a line in ln t; None where a value is zero but for rounding."""
    return fit_log_time(t, 1 / values) if values.min() > 1e-7 else None


def judge(limit: HardMargin, norm: LogFit, log_loss: LogFit, inverse: LogFit | None) -> tuple[Verdict, str]:
    """Compare the slopes with those predicted."""
    straight = inverse is None or (inverse.slope.value > 0 and (inverse.r_squared or 0.0) > STRAIGHT)
    share, power = norm.slope.value / limit.norm, log_loss.slope.value
    direction = (
        "the direction has arrived"
        if inverse is None
        else f"1 / distance is a line in ln t with slope {inverse.slope.value:.3g}, R^2 {inverse.r_squared or 0.0:.4f}"
    )
    reason = (
        f"the norm gains {norm.slope.value:.4g} in an e-fold of time, {share:.3f} of the predicted {limit.norm:.4g}; the loss "
        f"falls as t^{power:.3f}, predicted -1; {direction}"
    )
    met = straight and abs(share - 1) < NEAR and abs(power + 1) < NEAR
    return ("as predicted" if met else "not there yet"), reason


def learning_rate(z: Floats, lr: float | None) -> float:
    """Take a learning rate that the theorem allows.

    Args:
        z: inputs times signs, shape (N, P).
        lr: what the caller wants, or None.

    Returns:
        The learning rate.

    Raises:
        BadInput: it is not positive, or not below 2 / beta.
    """
    steepest = float(np.linalg.norm(z, 2)) ** 2 / (4 * len(z))
    rate = 1 / steepest if lr is None else lr
    if not 0 < rate < 2 / steepest:
        raise BadInput(
            f"lr is {rate!r}; the loss has curvatures up to {steepest:.4g}, so give a number below {2 / steepest:.4g}"
        )
    return rate
