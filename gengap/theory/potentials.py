"""Losses of one weight whose minima are known: to see what noise makes of depth, width and barriers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.least_squares import Floats


class Potential(Protocol):
    """A loss of one weight, evaluated at many places at once."""

    def value(self, w: Floats) -> Floats:
        """Return the loss at each place."""
        ...

    def slope(self, w: Floats) -> Floats:
        """Return its derivative at each place."""
        ...

    @property
    def span(self) -> tuple[float, float]:
        """The places between which its minima lie, with some room."""
        ...


@dataclass(frozen=True, slots=True)
class Parabola(Record):
    """h (w - centre)^2 / 2.

    Attributes:
        curvature: h > 0.
        centre: where the minimum is.
        depth: loss at the minimum.

    Raises:
        BadInput: the curvature is not positive.
    """

    curvature: float
    centre: float = 0.0
    depth: float = 0.0

    def __post_init__(self) -> None:
        positive(curvature=self.curvature)

    def value(self, w: Floats) -> Floats:
        """Return the loss."""
        return self.depth + 0.5 * self.curvature * (w - self.centre) ** 2

    def slope(self, w: Floats) -> Floats:
        """Return its derivative."""
        return self.curvature * (w - self.centre)

    @property
    def span(self) -> tuple[float, float]:
        """The minimum and one standard deviation at temperature 1 on either side."""
        width = 1 / math.sqrt(self.curvature)
        return self.centre - width, self.centre + width


@dataclass(frozen=True, slots=True)
class DoubleWell(Record):
    """barrier ((w / at)^2 - 1)^2: minima of equal depth 0 at +at and -at, a maximum between them at 0.

    Attributes:
        barrier: its height, > 0.
        at: distance of the minima from it, > 0.

    Raises:
        BadInput: a number is not positive.
    """

    barrier: float
    at: float = 1.0

    def __post_init__(self) -> None:
        positive(barrier=self.barrier, at=self.at)

    def value(self, w: Floats) -> Floats:
        """Return the loss."""
        return self.barrier * ((w / self.at) ** 2 - 1) ** 2

    def slope(self, w: Floats) -> Floats:
        """Return its derivative."""
        return 4 * self.barrier / self.at**2 * w * ((w / self.at) ** 2 - 1)

    @property
    def span(self) -> tuple[float, float]:
        """A little more than from one minimum to the other."""
        return -1.5 * self.at, 1.5 * self.at

    @property
    def curvatures(self) -> tuple[float, float]:
        """Curvature at the minima, and at the maximum (negative)."""
        return 8 * self.barrier / self.at**2, -4 * self.barrier / self.at**2


@dataclass(frozen=True, slots=True)
class TwoMinima(Record):
    """Two parabolas joined smoothly: two minima of chosen place, depth and width.

    V = -s ln(exp(-left / s) + exp(-right / s)), the lower of the two but for a corner rounded over losses of about s.

    Attributes:
        left: the minimum at smaller w.
        right: the other.
        smoothing: s, in units of the loss; far below the barrier, or the minima are not those of the parabolas.

    Raises:
        BadInput: the minima are in the wrong order, one lies under the other parabola, or the smoothing is not below a
            tenth of the lower barrier.
    """

    left: Parabola
    right: Parabola
    smoothing: float

    def __post_init__(self) -> None:
        positive(smoothing=self.smoothing)
        if not self.left.centre < self.right.centre:
            raise BadInput(f"left.centre is {self.left.centre!r} and right.centre {self.right.centre!r}; swap the two")
        for own, other in ((self.left, self.right), (self.right, self.left)):
            if not at(other, own.centre) > own.depth:
                raise BadInput(
                    f"the minimum at {own.centre!r} lies above the other parabola, so it is none; lower its depth"
                )
        lowest = self.crossing[1] - max(self.left.depth, self.right.depth)
        if not self.smoothing < lowest / 10:
            raise BadInput(
                f"smoothing is {self.smoothing!r} beside a barrier of {lowest:.4g}; give less than a tenth of it"
            )

    @property
    def crossing(self) -> tuple[float, float]:
        """Where the parabolas cross between their minima, and the loss there, before rounding."""
        between = brentq(
            lambda w: at(self.left, w) - at(self.right, w),
            self.left.centre,
            self.right.centre,
        )
        return float(between), at(self.left, float(between))

    def value(self, w: Floats) -> Floats:
        """Return the loss."""
        return -self.smoothing * np.logaddexp(
            -self.left.value(w) / self.smoothing, -self.right.value(w) / self.smoothing
        )

    def slope(self, w: Floats) -> Floats:
        """Return its derivative: that of each parabola by its share."""
        gap = (self.right.value(w) - self.left.value(w)) / self.smoothing
        share = 0.5 * (1 + np.tanh(gap / 2))
        return np.asarray(share * self.left.slope(w) + (1 - share) * self.right.slope(w))

    @property
    def span(self) -> tuple[float, float]:
        """From beyond one minimum to beyond the other."""
        return self.left.span[0], self.right.span[1]


def gibbs_mean(potential: Potential, temperature: float, of: Callable[[float], float]) -> float:
    """Return the mean of a function of w under the density proportional to exp(-V(w) / temperature), by quadrature.

    Args:
        potential: V, which must rise to both sides faster than the function does.
        temperature: T > 0, in units of the loss.
        of: the function.

    Returns:
        The mean, to about seven digits for a function without jumps.

    Raises:
        BadInput: the temperature is not positive.
    """
    positive(temperature=temperature)
    low, high = wide(potential, temperature)
    base = float(potential.value(np.linspace(low, high, 2001)).min())

    def weight(w: float) -> float:
        return math.exp(-(at(potential, w) - base) / temperature)

    places = np.linspace(low, high, 33)[1:-1].tolist()
    top, bottom = (
        quad(f, low, high, points=places, limit=400, epsabs=1e-12)[0] for f in (lambda w: weight(w) * of(w), weight)
    )
    return float(top / bottom)


def wide(potential: Potential, temperature: float) -> tuple[float, float]:
    """Return two places beyond which a Gibbs density is below e^-40 of what it is inside."""
    low, high = potential.span
    floor = float(potential.value(np.linspace(low, high, 501)).min()) + 40 * temperature
    step = (high - low) / 4
    while at(potential, low) < floor:
        low -= step
    while at(potential, high) < floor:
        high += step
    return low, high


def at(potential: Potential, w: float) -> float:
    """Return the loss at one place."""
    return float(potential.value(np.array(w)))


def positive(**numbers: float) -> None:
    """Refuse numbers that are not positive and finite.

    Args:
        **numbers: by name.

    Raises:
        BadInput: one of them is not.
    """
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise BadInput(f"{name} is {number!r}; give a positive number")
