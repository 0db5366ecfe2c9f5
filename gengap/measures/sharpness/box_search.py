"""Searches for the highest point of a loss in a box around a point: L-BFGS-B on the negative loss, and sign ascent."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from gengap.measures.sharpness.curved_corner import curved_corner
from gengap.measures.sharpness.lbfgsb import lbfgsb
from gengap.measures.sharpness.surface import Height, Landscape, Scaled
from gengap.measures.trees import Vector

Search = Literal["robust", "paper"]
FEW = 1000  # coordinates; in the larger boxes of trained networks the curvature led no higher than the slope, for a third more
FROM_CORNER = 4  # steps from corner to corner: a quadratic takes two or three
VECTORS = 42  # float64 vectors as long as the box is wide, counted in a search of ten iterations


@dataclass(frozen=True, slots=True)
class Box:
    r"""The set :math:`|z_i| \le b_i` around a point, with :math:`b_i = \varepsilon\,(|x_i| + 1)`.

    Attributes:
        centre: the point x, shape (P,).
        lower: x - b, shape (P,).
        upper: x + b, shape (P,).
    """

    centre: Vector
    lower: Vector
    upper: Vector

    @classmethod
    def around(cls, centre: Vector, radius: float) -> Self:
        """Build the box of Metric 2.1 (Keskar et al. 2017, eq. 3 with A = I)."""
        return cls.within(centre, radius * (np.abs(centre) + 1))

    @classmethod
    def within(cls, centre: Vector, half: Vector) -> Self:
        """Build a box from its half-widths, shape (P,)."""
        return cls(centre, centre - half, centre + half)

    def corner(self, signs: Vector) -> Vector:
        """Return the corner on the side of `signs`, each +1 or -1."""
        return np.where(signs > 0, self.upper, self.lower)

    def share_at_bound(self, x: Vector) -> float:
        """Return the share of coordinates of x that lie on a face of the box, 0 to 1."""
        return float(np.mean((x <= self.lower) | (x >= self.upper)))


@dataclass(frozen=True, slots=True)
class Found:
    """What one search found.

    Attributes:
        name: which search.
        peak: highest finite loss it met, its start included, nats per sample; nan where none was finite.
        iterations: iterations of the optimiser, or ascent steps.
        evaluations: loss-and-gradient evaluations spent by it (that at the point itself is shared, and not counted).
        share_at_bound: share of coordinates on a face of the box at the peak.
    """

    name: str
    peak: float
    iterations: int
    evaluations: int
    share_at_bound: float


class Trail:
    """The best point of one search, over everything it evaluates and not only where it ends."""

    def __init__(self, surface: Landscape, box: Box, name: str) -> None:
        self._surface, self._box, self._name = surface, box, name
        self._peak, self._share, self._spent = np.nan, 0.0, 0

    def visit(self, x: Vector) -> Height:
        """Evaluate at x and remember the highest."""
        self._spent += 1
        return self.note(x, self._surface.at(x, self._name))

    def note(self, x: Vector, height: Height) -> Height:
        """Remember a height that was evaluated before."""
        if np.isfinite(height.value) and not height.value <= self._peak:
            self._peak, self._share = height.value, self._box.share_at_bound(x)
        return height

    def found(self, iterations: int) -> Found:
        """Sum up."""
        return Found(self._name, self._peak, iterations, self._spent, self._share)


class Negative:
    """What L-BFGS-B minimises: minus the loss, divided by `scale`.

    A point where the loss is not finite is shown as a wall, about as much worse than the last good point as its
    gradient could make a difference across the box, so that the line search steps back from it.
    """

    def __init__(self, trail: Trail, box: Box, scale: float, start: Height) -> None:
        self._trail, self._box, self._scale = trail, box, scale
        self._waiting: Height | None = start  # the optimiser asks for its start first, which is known
        self._last = start

    def __call__(self, x: Vector) -> tuple[float, Vector]:
        """Return value and gradient of the scaled negative loss at x, shape (P,)."""
        height, self._waiting = self._waiting or self._trail.visit(x), None
        if not height.usable:
            climb = float(np.abs(self._last.gradient) @ (self._box.upper - self._box.lower))
            return (climb - self._last.value) / self._scale, np.zeros_like(x)
        self._last = height
        return -height.value / self._scale, np.divide(height.gradient, -self._scale)


def search_box(
    surface: Landscape, box: Box, first: Height, search: Search, *, iterations: int, seed: int
) -> list[Found]:
    """Search a box for its highest point.

    Args:
        surface: what to climb.
        box: the feasible set.
        first: the height of its centre, already evaluated.
        search: "robust" or "paper", see `gengap.sharpness`.
        iterations: of every search.
        seed: of the signs that break ties.

    Returns:
        What each search found; one of them includes the centre.
    """
    if search == "paper":
        point = Trail(surface, box, "point")
        return [quasi_newton(point, box, box.centre, first, scale=1.0, iterations=iterations)]
    return robust_search(surface, box, first, iterations, np.random.default_rng(seed))


def robust_search(
    surface: Landscape, box: Box, first: Height, iterations: int, rng: np.random.Generator
) -> list[Found]:
    """Search from the centre and from a corner, with the loss scaled by its gradient; then check by sign ascent."""
    signs = tie_broken(first.gradient, rng)
    known = bool(np.any(signs == np.sign(first.gradient)))
    start, corner = box.corner(signs), Trail(surface, box, "corner" if known else "random corner")
    there = corner.visit(start)
    found = []
    if first.scale:
        point = Trail(surface, box, "point")
        found.append(quasi_newton(point, box, box.centre, first, scale=first.scale, iterations=iterations))
    scale = first.scale or there.scale
    if scale:
        found.append(quasi_newton(corner, box, start, there, scale=scale, iterations=iterations))
    else:
        found.append(corner.found(0))
    found.append(sign_ascent(Trail(surface, box, "sign ascent"), box, box.centre, first, rng, steps=iterations))
    if len(box.centre) <= FEW:
        found.append(curvature_ascent(Trail(surface, box, "curvature"), box, first, rng, steps=iterations))
    return found


def quasi_newton(trail: Trail, box: Box, start: Vector, first: Height, *, scale: float, iterations: int) -> Found:
    """Search with L-BFGS-B (Byrd et al. 1995), memory 10, both tolerances open.

    Args:
        trail: where evaluations are made and remembered.
        box: the feasible set.
        start: where to begin, shape (P,), inside the box.
        first: the height there, already evaluated.
        scale: what the loss is divided by, > 0; it decides the length of the first step.
        iterations: the most iterations to make.

    Returns:
        The best point met. Costs one to two evaluations an iteration, and at most 20 when a line search fails.
    """
    trail.note(start, first)
    if not first.usable:
        return trail.found(0)
    negative = Negative(trail, box, scale, first)
    return trail.found(lbfgsb(negative, start, box.lower, box.upper, iterations=iterations))


def sign_ascent(
    trail: Trail, box: Box, start: Vector, height: Height, rng: np.random.Generator, *, steps: int, length: float = 0.5
) -> Found:
    """Climb along the signs of the gradient, clipped to the box.

    Args:
        trail: where evaluations are made and remembered.
        box: the feasible set.
        start: where the climb begins, shape (P,), inside the box.
        height: the height there, already evaluated.
        rng: gives the sign of entries whose gradient is zero or nan.
        steps: the most steps to make; it stops earlier in a corner that keeps it. A step to where the loss is not
            finite is taken back, and the next one is half as long.
        length: of a step, in half-widths of the box; 2 goes from corner to corner.

    Returns:
        The best point met. Costs one evaluation a step.
    """
    half, x = box.upper - box.centre, start
    trail.note(x, height)
    for step in range(steps):
        ahead = np.clip(x + length * half * tie_broken(height.gradient, rng), box.lower, box.upper)
        if np.array_equal(ahead, x):
            return trail.found(step)
        there = trail.visit(ahead)
        if there.usable:
            x, height = ahead, there
        else:
            length /= 2
    return trail.found(steps)


def curvature_ascent(trail: Trail, box: Box, first: Height, rng: np.random.Generator, *, steps: int) -> Found:
    """Climb from corner to corner, beginning where the curvature at the centre points, which the other searches never ask.

    Args:
        trail: where evaluations are made and remembered.
        box: the feasible set.
        first: the height of the centre, already evaluated.
        rng: of the power iteration, and of the signs that break ties.
        steps: the most steps to make.

    Returns:
        The best point met, the points that told the curvature included. Costs about 10 evaluations, up to 12 coordinates
        one more for each of them.
    """
    trail.note(box.centre, first)
    if not first.usable:
        return trail.found(0)
    signs = curved_corner(trail.visit, Scaled(box.centre, box.upper - box.centre), first, rng, most=steps)
    if signs is None:
        return trail.found(0)
    corner = box.corner(signs)
    return sign_ascent(trail, box, corner, trail.visit(corner), rng, steps=min(steps, FROM_CORNER), length=2.0)


def tie_broken(gradient: Vector, rng: np.random.Generator) -> Vector:
    """Return the signs of a gradient, shape (P,), random where it is zero or nan: no search may stand still."""
    signs = np.sign(gradient)
    loose = np.abs(signs) != 1
    signs[loose] = rng.choice((-1.0, 1.0), int(loose.sum()))
    return signs
