"""A path in a few numbers: barrier, curvature at the ends, and how far the loss takes to double."""

from collections.abc import Sequence
from dataclasses import dataclass

from gengap.core.records import Record

Bracket = tuple[float, float]
EQUAL = 1e-9  # relative difference of two steps that count as equal


@dataclass(frozen=True, slots=True)
class End(Record):
    """The surroundings of one end.

    Attributes:
        alpha: 0 or 1.
        loss: there, nats per sample.
        curvature: second difference over the two neighbouring positions, divided by the square of their step: the mean of
            the second derivative by alpha over these two steps, the nearer the heavier (a triangular weight). None where
            the neighbours are missing, not equally far, or not finite. On a straight line, divided by the squared distance
            of the ends it is a mean of v' H v for the unit vector v along the path.
        step: that step, in alpha.
        doubles_below: distances (low, high) in alpha, towards smaller alpha, between which the loss first exceeds twice its
            value at the end; low is 0 where it does so at the first neighbour, so that the step is too wide to tell. None
            where it never does, or the loss at the end is not positive.
        doubles_above: the same towards larger alpha.
    """

    alpha: float
    loss: float
    curvature: float | None
    step: float | None
    doubles_below: Bracket | None
    doubles_above: Bracket | None


@dataclass(frozen=True, slots=True)
class PathSummary(Record):
    r"""What one loss does along a path, from its values at the given positions.

    Attributes:
        barrier: the largest excess of the loss for alpha in [0, 1] over the straight line between the losses at the ends,
            :math:`\max_\alpha L(\alpha) - (1 - \alpha) L(0) - \alpha L(1)`, nats per sample, >= 0. A finer path can only
            find a higher one. None where an end is missing or a value between is not finite.
        barrier_at: the alpha of the largest excess; None where the barrier is 0 or None.
        a: the surroundings of alpha 0; None where that position is missing or its loss not finite.
        b: those of alpha 1.
    """

    barrier: float | None
    barrier_at: float | None
    a: End | None
    b: End | None

    def __str__(self) -> str:
        if self.barrier is None:
            return "barrier unknown: an end is missing, or a loss between the ends is not finite"
        at = "" if self.barrier_at is None else f" at alpha {self.barrier_at:.4g}"
        return f"barrier {self.barrier:.4g} nats above the line between the ends{at}"


def summarised(alphas: Sequence[float], losses: Sequence[float | None]) -> PathSummary:
    """Compute the numbers of one loss.

    Args:
        alphas: positions, in any order.
        losses: there, None where not finite.

    Returns:
        The numbers; those that the positions do not define are None.
    """
    known = dict(sorted(zip(alphas, losses, strict=True)))
    found, at = barrier(known)
    return PathSummary(found, at, end(known, 0.0), end(known, 1.0))


def barrier(known: dict[float, float | None]) -> tuple[float | None, float | None]:
    """Return the height of the barrier and its position (Entezari et al. 2022, arXiv:2110.06296)."""
    inside = {alpha: loss for alpha, loss in known.items() if 0 <= alpha <= 1}
    first, last = inside.get(0.0), inside.get(1.0)
    if first is None or last is None:
        return None, None
    excess = {}
    for alpha, loss in inside.items():
        if loss is None:
            return None, None
        excess[alpha] = loss - ((1 - alpha) * first + alpha * last)
    top = max(excess, key=lambda alpha: excess[alpha])
    return (excess[top], top) if excess[top] > 0 else (0.0, None)


def end(known: dict[float, float | None], alpha: float) -> End | None:
    """Describe the surroundings of an end."""
    loss = known.get(alpha)
    if loss is None:
        return None
    curvature, step = second_difference(known, alpha, loss)
    return End(alpha, loss, curvature, step, doubling(known, alpha, loss, -1), doubling(known, alpha, loss, 1))


def second_difference(known: dict[float, float | None], alpha: float, loss: float) -> tuple[float | None, float | None]:
    """Return the mean curvature around a position and the step it was taken with, or twice None."""
    below, above = (
        max((x for x in known if x < alpha), default=None),
        min((x for x in known if x > alpha), default=None),
    )
    if below is None or above is None:
        return None, None
    left, right, step = known[below], known[above], (above - below) / 2
    if left is None or right is None or abs((above + below) / 2 - alpha) > EQUAL * step:
        return None, None
    return (left - 2 * loss + right) / step**2, step


def doubling(known: dict[float, float | None], alpha: float, loss: float, sign: int) -> Bracket | None:
    """Return between which distances to one side the loss first exceeds twice its value."""
    if loss <= 0:
        return None
    low = 0.0
    for distance, value in sorted((sign * (x - alpha), value) for x, value in known.items() if sign * (x - alpha) > 0):
        if value is None:
            return None  # what lies beyond is not the first crossing
        if value > 2 * loss:
            return low, distance
        low = distance
    return None
