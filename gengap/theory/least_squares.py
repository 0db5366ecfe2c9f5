"""Curves through points: coefficients with their intervals, and how much of the spread a curve explains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.estimate import t_quantile
from gengap.core.records import Record

Floats = npt.NDArray[np.float64]
INDEPENDENT = "least squares, Student t, 95 %, residuals taken as independent"


@dataclass(frozen=True, slots=True)
class Coefficient(Record):
    """One number of a fitted curve.

    Attributes:
        value: the estimate.
        stderr: its standard error; None where no point is left over to estimate the scatter from.
        interval: two-sided 95 % interval; None likewise.
        n: number of points.
        method: how the interval was made.
    """

    value: float
    stderr: float | None
    interval: tuple[float, float] | None
    n: int
    method: str

    @classmethod
    def student(cls, value: float, stderr: float, degrees: int, *, n: int, method: str) -> Self:
        """Give an estimate its t interval, from a standard error with so many degrees of freedom."""
        half = t_quantile(degrees) * stderr
        return cls(float(value), float(stderr), (float(value - half), float(value + half)), n, method)

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} (95 % {self.interval[0]:.4g} to {self.interval[1]:.4g})"


def coefficients(values: Sequence[float], jacobian: Floats, residuals: Floats) -> tuple[Coefficient, ...]:
    """Give the coefficients of a least-squares fit their t intervals.

    Args:
        values: the coefficients, k of them.
        jacobian: derivative of the curve by the coefficients at the points, shape (n, k); exact for a linear curve,
            and the linearisation at the optimum for another one.
        residuals: of the points, shape (n,).

    Returns:
        One record for each coefficient.
    """
    n, k = jacobian.shape
    if n <= k:
        return tuple(
            Coefficient(float(v), None, None, n, "as many coefficients as points, no interval") for v in values
        )
    # columns of very different size (t^b and 1) would be cut off by the pseudo-inverse
    size = np.linalg.norm(jacobian, axis=0)
    size[size == 0] = 1.0
    inverse = np.linalg.pinv(jacobian / size)
    stdevs = np.linalg.norm(inverse, axis=1) / size * math.sqrt(sum_of_squares(residuals) / (n - k))
    pairs = zip(values, stdevs.tolist(), strict=True)
    return tuple(Coefficient.student(v, s, n - k, n=n, method=INDEPENDENT) for v, s in pairs)


def straight_line(x: Floats, y: Floats, weights: Floats | None = None) -> tuple[float, float]:
    """Return slope and intercept of the line with the least (weighted) squares; needs two distinct x."""
    w = np.ones_like(x) if weights is None else weights
    middle, level = w @ x / w.sum(), w @ y / w.sum()
    away = w * (x - middle)
    slope = float(away @ (y - level) / (away @ (x - middle)))
    return slope, float(level - slope * middle)


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points with errors.

    Attributes:
        slope: of the line.
        slope_stderr: its standard error.
        centre: weighted mean of x, where height and slope err independently.
        height: of the line there.
        height_stderr: its standard error.
    """

    slope: float
    slope_stderr: float
    centre: float
    height: float
    height_stderr: float

    @property
    def intercept(self) -> float:
        """Height at x = 0."""
        return self.height - self.slope * self.centre


def line_with_errors(x: Floats, y: Floats, stdev: Floats) -> Line:
    """Fit a line to points whose errors are known.

    Args:
        x: abscissae, n of them, two distinct, n >= 3.
        y: ordinates, shape (n,).
        stdev: of each y, > 0, shape (n,).

    Returns:
        The line. Its errors are those of the points, widened where the points scatter about it by more.
    """
    weights = stdev**-2.0
    total = float(weights.sum())
    centre, height = float(weights @ x) / total, float(weights @ y) / total
    away = x - centre
    spread = float(weights @ away**2)
    slope = float(weights @ (away * (y - y[0]))) / spread  # exactly 0 where all are equal
    scale = widening(float(weights @ (y - height - slope * away) ** 2), len(x) - 2)
    return Line(slope, scale / math.sqrt(spread), centre, height, scale / math.sqrt(total))


def widening(misfit: float, degrees: int) -> float:
    """Return the factor >= 1 by which points scatter more than their errors say, from the weighted squares they miss by."""
    return math.sqrt(max(1.0, misfit / degrees))


def r_squared(y: Floats, residuals: Floats) -> float | None:
    """Return the share of the spread of y that a curve explains; None where y has none."""
    spread = sum_of_squares(y - y.mean())
    return 1 - sum_of_squares(residuals) / spread if spread else None


def sum_of_squares(residuals: Floats) -> float:
    """Return the residual sum of squares."""
    return float(residuals @ residuals)


def points(steps: npt.ArrayLike, distances: npt.ArrayLike, least: int = 3) -> tuple[Floats, Floats]:
    """Take the points of a trajectory, in the order of their steps.

    Args:
        steps: number of updates t at each point, > 0, shape (n,), in any order.
        distances: the distance there, shape (n,).
        least: how many distinct steps are needed.

    Returns:
        Steps and distances in float64, by ascending steps.

    Raises:
        BadInput: the two do not fit each other, a step is not positive, a number is not finite, or there are too few.
    """
    t, d = np.asarray(steps, dtype=np.float64), np.asarray(distances, dtype=np.float64)
    if t.ndim != 1 or t.shape != d.shape:
        raise BadInput(f"steps has shape {t.shape} and distances {d.shape}; give two vectors of equal length")
    if not (np.isfinite(t).all() and np.isfinite(d).all()):
        raise BadInput("steps or distances hold a number that is not finite; leave out what came after a divergence")
    if (t <= 0).any():
        raise BadInput(f"steps holds {t.min():g}, which has no logarithm; leave out the start of the run")
    if len(np.unique(t)) < least:
        raise BadInput(f"there are {len(np.unique(t))} distinct steps; a fit needs at least {least}")
    order = np.argsort(t, kind="stable")
    return t[order], d[order]
