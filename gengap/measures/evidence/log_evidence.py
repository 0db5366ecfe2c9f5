"""Bayesian evidence of a minimum: the loss, the prior and the volume of the minimum in one number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.curvature.operators import hessian
from gengap.measures.evidence.deflation import affordable
from gengap.measures.evidence.labels import counts
from gengap.measures.evidence.spectrum import Sampled, Spectrum, Summed, Written
from gengap.measures.protocols import Chunked, Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, divided, measuring
from gengap.measures.trees import as_tree, common_dtype, ravel, size
from gengap.problem.samples import parse_bytes
from gengap.theory import evidence as theory
from gengap.theory.evidence import LogEvidence, RegularisedMinimum

Method = Literal["auto", "exact", "lanczos"]

EXACT_UNTIL = 2000  # weights whose Hessian "auto" writes out
NEAR = 0.1  # nats that a Newton step may still lower C by at what counts as a minimum


@dataclass(frozen=True, slots=True)
class EvidenceAt(Record):
    """The evidence for one prior.

    Attributes:
        l2: precision of the prior, the coefficient of C = H + l2 |w|^2 / 2.
        evidence: the log evidence with its parts, in nats.
        gradient_norm: of C, in nats per unit of a weight.
        newton_drop: by how much a Newton step along the directions in which C curves up would lower C, in nats; with
            Lanczos at least so much.
        at_minimum: newton_drop is at most 0.1 and C curves down nowhere. Elsewhere Laplace's approximation says nothing.
        truncation: how far the finite number of Lanczos steps may have moved the Occam term, in nats: a bound where C curves
            down nowhere, else an indication; None where the Hessian was written out.
        resolved: l2 is above what rounding makes of the zero eigenvalues of the Hessian of H.
    """

    l2: float
    evidence: LogEvidence
    gradient_norm: float
    newton_drop: float
    at_minimum: bool
    truncation: float | None
    resolved: bool

    def __str__(self) -> str:
        faults = []
        if not self.at_minimum:
            lowest = self.evidence.curvature.smallest_eigenvalue
            down = lowest is not None and lowest <= 0
            why = (
                f"C curves down there (eigenvalue {lowest:.3g})"
                if down
                else f"a Newton step would lower C by {self.newton_drop:.3g} nats"
            )
            faults.append(f"NOT A MINIMUM of C: {why}")
        if not self.resolved:
            faults.append("l2 is below the rounding of the eigenvalues")
        if self.truncation and self.truncation > (self.evidence.stderr or 0):
            faults.append(f"± {self.truncation:.2g} more for want of Lanczos steps")
        return f"l2 {self.l2:.4g}: {self.evidence}" + "".join(f"; {fault}" for fault in faults)


@dataclass(frozen=True, slots=True)
class Evidence(Record):
    """The log evidence of a point for one prior or several.

    Attributes:
        rows: one for each l2, in the order given.
        method: "exact" (all eigenvalues) or "lanczos" (an estimate of their sum).
        labels: how many the loss is the mean over, N.
        classes: n of the null model; None where it is not known.
        eigenvalue_range: smallest and largest eigenvalue of the Hessian of H that was found.
        products: with the Hessian.
        steps: Lanczos steps of each start; None for "exact".
        starts: random starts; None for "exact".
        conditions: on what it was measured, and what it cost.
    """

    rows: tuple[EvidenceAt, ...]
    method: Literal["exact", "lanczos"]
    labels: int
    classes: int | None
    eigenvalue_range: tuple[float, float]
    products: int
    steps: int | None
    starts: int | None
    conditions: Conditions

    @property
    def best(self) -> EvidenceAt:
        """The prior with the highest evidence."""
        return max(self.rows, key=lambda row: row.evidence.value)

    def __str__(self) -> str:
        lines = [str(row) for row in self.rows]
        return "\n".join([*lines, f"{self.method}, {self.products} products, {self.conditions}"])


def log_evidence(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    l2: float | Sequence[float],
    method: Method = "auto",
    rule: theory.Rule = "auto",
    labels: int | None = None,
    classes: int | None = None,
    steps: int = 80,
    starts: int = 8,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> Evidence:
    r"""Measure the log evidence of a minimum of :math:`C = H + \lambda |w|^2 / 2` by Laplace's approximation.

    H is the loss **summed** over the N training labels, N times what `loss` returns, so that exp(-H) is their probability;
    lambda is `l2`. A weight decay d on the mean loss is l2 = N d.

    .. math::
        \ln P = -\Big[ C(w_0) + \frac12 \sum_i \ln \frac{\lambda_i}{\lambda} \Big], \qquad E = -\ln P - N \ln n,

    with the eigenvalues :math:`\lambda_i` of the Hessian of C. E < 0: the labels support the model better than guessing
    among n classes. It holds at a minimum of C only, which is another point for every l2: `at_minimum` says whether
    `params` is one for each l2, by the gradient and the curvature.

    - "exact" writes the Hessian out, in float64: P products, memory for 3 P^2 numbers.
    - "lanczos" takes the outermost eigenvalues one by one, as far as 40 products find them, and estimates the sum over the
      others by stochastic Lanczos quadrature, in the dtype of the weights and the same runs for every l2: steps times starts
      products, and 20 more for each l2. Memory for 126 vectors as long as the weights, fewer where the limit is lower.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor, the mean negative log-likelihood of a label in
            nats; deterministic, twice differentiable.
        params: the weights w_0, by name or as one tensor; not modified.
        l2: one precision of the prior or several, each > 0.
        method: "exact", "lanczos" or "auto": exact up to 2,000 weights.
        rule: which eigenvalues enter: "all", those "at least l2" (Smith & Le's rule where C curves down), or "auto".
        labels: N; None: as many as the loss says it has.
        classes: n; None: found from the loss of equal outputs, which is ln n for a cross-entropy.
        steps: Lanczos steps of each start, >= 4.
        starts: random starts, >= 2: their scatter is the error.
        seed: of the starts.
        only: patterns of names; weights they do not match are held fixed and have no prior.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for graphs, chunks and vectors.
        listen: is told after every product.

    Returns:
        The evidence for every l2.

    Raises:
        BadInput: an argument is out of range, the loss cannot be used, a plain function comes without `labels`, or
            rule="all" meets an eigenvalue of C that is not positive.
        FloatingPointError: a product is not finite.

    Source:
        Smith & Le 2018, arXiv:1710.06451, eqs. 6 to 12; Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. 38(4), for
        Lanczos; Gambhir, Stathopoulos & Orginos 2017, arXiv:1603.05988, for taking eigenvalues out of an estimated trace.
    """
    priors: list[float] = np.asarray(l2, dtype=np.float64).reshape(-1).tolist()
    check_arguments(priors, method, rule, steps, starts)
    tree = as_tree(params)
    weights = size(divided(tree, only, getattr(loss, "frozen", frozenset()))[0])
    exact = method == "exact" or (method == "auto" and weights <= EXACT_UNTIL)
    directions = affordable(weights, common_dtype(tree).itemsize, parse_bytes(memory_limit))
    with measuring(
        loss,
        in_float64(tree) if exact and isinstance(loss, Chunked) else params,
        passes="product",
        vectors=3 * weights if exact else 6 + 3 * directions,
        only=only,
        check=check,
        memory_limit=memory_limit,
    ) as session:
        N, n = counts(session, labels, classes)
        value, gradient = session.loss.value_and_grad(session.params)
        operator = Summed(hessian(session), N)
        spectrum: Spectrum = (
            Written(operator, listen)
            if exact
            else Sampled(
                operator, min(priors), steps=steps, starts=starts, directions=directions, seed=seed, listen=listen
            )
        )
        place = Place(N, n, value, ravel(session.params), ravel(gradient))
        rows = tuple(place.row(spectrum, prior, rule) for prior in priors)
        return Evidence(
            rows=rows,
            method="exact" if exact else "lanczos",
            labels=N,
            classes=n,
            eigenvalue_range=spectrum.range,
            products=operator.products,
            steps=None if exact else steps,
            starts=None if exact else starts,
            conditions=session.conditions(),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """The point, with mean loss and mean gradient there."""

    labels: int
    classes: int | None
    value: float
    weights: Tensor
    gradient: Tensor

    def row(self, spectrum: Spectrum, l2: float, rule: theory.Rule) -> EvidenceAt:
        """Give the evidence for one prior."""
        w = self.weights.double()
        slope = self.labels * self.gradient.double() + l2 * w
        curvature, truncation = spectrum.curvature(l2, rule)
        minimum = RegularisedMinimum(self.labels * self.value, float(w @ w), l2, self.labels, self.classes)
        drop = spectrum.newton_drop(slope, l2)
        lowest = curvature.smallest_eigenvalue
        grain = torch.finfo(self.weights.dtype).eps * max(map(abs, spectrum.range))
        return EvidenceAt(
            l2=l2,
            evidence=theory.log_evidence(minimum, curvature),
            gradient_norm=float(slope.norm()),
            newton_drop=drop,
            at_minimum=drop <= NEAR and lowest is not None and lowest > 0,
            truncation=truncation,
            resolved=l2 > 10 * grain,
        )


def in_float64(tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights, where their device has float64."""
    return {name: p if p.device.type == "mps" else p.double() for name, p in tree.items()}


def check_arguments(priors: list[float], method: str, rule: str, steps: int, starts: int) -> None:
    """Refuse what cannot be measured.

    Args:
        priors: every l2.
        method: its name.
        rule: its name.
        steps: Lanczos steps.
        starts: random starts.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    if not priors:
        raise BadInput("l2 holds no number; the evidence needs a prior, so give at least one coefficient above 0")
    for prior in priors:
        theory.check_prior(prior)
    if method not in get_args(Method):
        raise BadInput(f"method is {method!r}; choose one of {', '.join(get_args(Method))}")
    if rule not in get_args(theory.Rule):
        raise BadInput(f"rule is {rule!r}; choose one of {', '.join(get_args(theory.Rule))}")
    for name, value, least in (("steps", steps, 4), ("starts", starts, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(f"{name} is {value!r}; give a whole number of at least {least}")
