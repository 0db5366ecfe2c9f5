"""The corner of a box where the curvature at its centre puts the highest point: a start that knows more than the slope."""

from collections.abc import Callable

import numpy as np

from gengap.measures.sharpness.surface import Height, Scaled
from gengap.measures.trees import Vector

WRITTEN_OUT = 12  # coordinates up to which the second derivative is written out and every corner of the box looked at
POWER = 6  # products by differences beyond that

Visit = Callable[[Vector], Height]


def curved_corner(visit: Visit, box: Scaled, first: Height, rng: np.random.Generator, *, most: int) -> Vector | None:
    """Find the signs of a corner by the curvature at the centre.

    Up to 12 coordinates the quadratic that has the gradients at the centre and at one point on each axis is maximised over
    all corners. Beyond, power iteration with differences of gradients finds the direction that curves most, and its signs
    are taken, on the side to which the gradient points.

    Args:
        visit: evaluates at a point.
        box: where: its half-widths are the units.
        first: the height of the centre, usable.
        rng: of the start of the power iteration.
        most: products of the power iteration.

    Returns:
        Signs, shape (P,); None where the loss is not finite on the way. Costs one evaluation an axis, or 6.
    """
    if len(box.unit) <= WRITTEN_OUT:
        return best_corner(visit, box, first)
    y = rng.choice((-1.0, 1.0), len(box.unit))
    for _ in range(min(POWER, most)):
        there = visit(box.weights(y))
        if not there.usable:
            return None
        bent = box.gradient(there.gradient) - box.gradient(first.gradient)
        reach = float(np.abs(bent).max())
        if not reach > 0:
            break
        y = bent / reach
    side = float(box.gradient(first.gradient) @ np.sign(y))
    return np.where(y > 0, 1.0, -1.0) * (1.0 if side >= 0 else -1.0)


def best_corner(visit: Visit, box: Scaled, first: Height) -> Vector | None:
    """Maximise the quadratic with the gradients at the centre and at one point of each axis over all corners."""
    size = len(box.unit)
    slope = box.gradient(first.gradient)
    rows = []
    for axis in np.eye(size):
        there = visit(box.weights(axis))
        if not there.usable:
            return None
        rows.append(box.gradient(there.gradient) - slope)
    curvature = (np.array(rows) + np.array(rows).T) / 2
    corners = 1.0 - 2.0 * (np.arange(2**size)[:, None] >> np.arange(size) & 1)
    climbs = corners @ slope + 0.5 * np.einsum("ci,ij,cj->c", corners, curvature, corners)
    best: Vector = corners[int(climbs.argmax())]
    return best
