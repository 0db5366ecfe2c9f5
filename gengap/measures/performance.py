"""How well weights do on a split, and whether they stand at a minimum: loss, accuracy and the length of the gradient."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gengap.core.estimate import Estimate, safe_exp
from gengap.core.records import Record
from gengap.measures.protocols import Chunked, LossFunction, Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, measuring

NORMAL = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Performance(Record):
    """Loss and accuracy on a split.

    Attributes:
        loss: mean over samples, nats; `stdev` is the scatter over samples, so that `stderr` and `interval` say how far the
            mean over other samples of the same kind would be. Where no sample has a loss below 0 the interval is that of
            the logarithm, so that it stays above 0 and reaches farther up, where few samples make most of the loss. For a
            plain function n is 1 and there is no error.
        accuracy: percent, with the scatter over samples and Wilson's interval; None where right answers are not counted.
        gradient_norm: L2 norm of the gradient of the mean loss; None where it was not asked for.
        conditions: what it was measured on and what it cost.
    """

    loss: Estimate
    accuracy: Estimate | None
    gradient_norm: float | None
    conditions: Conditions

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f", accuracy {self.accuracy.value:.2f} %"
        slope = "" if self.gradient_norm is None else f", gradient norm {self.gradient_norm:.3g}"
        return f"loss {self.loss.value:.5g} nats{right}{slope}; {self.conditions}"


def performance(
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    gradient: bool = True,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
) -> Performance:
    """Measure loss and accuracy with their errors over samples, and the length of the gradient.

    Costs two forward passes, and one gradient where it is asked for.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor.
        params: the weights, by name or as one tensor; not modified.
        gradient: whether to measure the length of the gradient.
        only: patterns of names; the gradient is that by the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes.

    Returns:
        The numbers.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    with measuring(loss, params, passes="gradient", vectors=2, only=only, check=check, memory_limit=memory_limit) as s:
        score = s.loss.score(s.params)
        if not math.isfinite(score.loss):
            raise FloatingPointError(f"the loss is {score.loss}; measure weights of a run that did not diverge")
        length = None
        if gradient:
            _, slope = s.loss.value_and_grad(s.params)
            length = math.hypot(*(float(torch.linalg.vector_norm(g, dtype=torch.float64)) for g in slope.values()))
        found = over_samples(s.loss, s.params, score.loss)
        right = None if score.accuracy is None else share(score.accuracy, found.n)
        return Performance(found, right, length, s.conditions())


def over_samples(loss: LossFunction, params: Params, value: float) -> Estimate:
    """Give a mean loss with the scatter of its samples, which for a plain function is not known."""
    total = square = 0.0
    n, least = 0, math.inf
    if isinstance(loss, Chunked):
        with torch.no_grad():
            for piece in loss.chunks(params):
                each = piece.losses(piece.outputs(params)).double()
                away = each - value
                total, square, n = total + float(away.sum()), square + float(away.square().sum()), n + piece.size
                least = min(least, float(each.min()))
    if n < 2:
        return Estimate(value, None, 1, None, "exact on the given data")
    stdev = math.sqrt(max(0.0, square - total * total / n) / (n - 1))
    return Estimate(value, stdev, n, *mean_interval(value, stdev / math.sqrt(n), positive=least >= 0 and value > 0))


def mean_interval(value: float, stderr: float, *, positive: bool) -> tuple[tuple[float, float], str]:
    """Give the 95 % interval of a mean, and how it was made; of what cannot be negative that of the logarithm."""
    if not positive:
        half = NORMAL * stderr
        return (value - half, value + half), "normal over samples, 95 %"
    factor = safe_exp(NORMAL * stderr / value)
    return (value / factor, value * factor), "normal over samples on the logarithm, 95 %"


def share(percent: float, n: int) -> Estimate:
    """Give a share of right answers with Wilson's interval, which is no point where all are right."""
    p, z = percent / 100, NORMAL
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    stdev = 100 * math.sqrt(p * (1 - p) * n / (n - 1)) if n > 1 else None
    low, high = (100 * min(1.0, max(0.0, end)) for end in (centre - half, centre + half))  # rounding may leave [0, 1]
    return Estimate(percent, stdev, n, (low, high), "Wilson over samples, 95 %")
