"""How the best learning rate goes with the batch size or the budget: a power, and the batch where it stops."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.estimate import t_quantile
from gengap.core.records import Record
from gengap.theory.least_squares import Coefficient, Floats, line_with_errors

Law = Literal["linear", "square root", "neither", "constant", "not resolvable"]
NAMED: dict[Law, float] = {"constant": 0.0, "square root": 0.5, "linear": 1.0}
LEAST = 3  # points of a power; a plateau beside it needs one more
EXPONENTS = np.linspace(-1.0, 3.0, 401)
KNOTS = 200
METHOD = "least squares of log2, grid spacing counted as uncertainty, Student t, 95 %"


@dataclass(frozen=True, slots=True)
class RatePower(Record):
    """best lr = factor x^exponent.

    Attributes:
        exponent: None for too few points.
        law: what the interval of the exponent allows: of "constant" (0), "square root" (1/2) and "linear" (1) the only
            one; "neither" where none, "not resolvable" where several, or too few points.
        reason: one sentence.
        factor: best lr at x = 1; None likewise.
        fold: by what the best lr changes over the span, span^exponent; None likewise.
        span: largest x / smallest x.
        n: points used.
        bounds: points left out because the best was at the edge of its grid, which only bounds it.
    """

    exponent: Coefficient | None
    law: Law
    reason: str
    factor: float | None
    fold: Coefficient | None
    span: float
    n: int
    bounds: int

    def __str__(self) -> str:
        return f"{self.law}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RateRegimes(Record):
    """The best learning rate grows by a power of the batch size and then stays.

    Attributes:
        verdict: "transition"; "no transition" where it grows up to the largest batch, as far as can be told; "not resolvable".
        reason: one sentence.
        batch_size: where it stops growing; None without a transition.
        plateau: the learning rate from there on; None likewise.
        exponent: in the part before; None for too few points.
        law: as of `RatePower`, of that part; "not resolvable" also where the power is below 1 and a linear rise that ends
            in a plateau fits better.
        n: batch sizes used.
        bounds: batch sizes left out, their best learning rate being at the edge of the grid.
    """

    verdict: Literal["transition", "no transition", "not resolvable"]
    reason: str
    batch_size: Coefficient | None
    plateau: float | None
    exponent: Coefficient | None
    law: Law
    n: int
    bounds: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RatePoints:
    """Best learning rates between their neighbours on the grid, in log2.

    Attributes:
        x: log2 of the batch size or budget, ascending, shape (n,).
        y: log2 of the best learning rate.
        stdev: of y: uniform between the neighbours.
        bounds: how many were left out for want of a neighbour.
    """

    x: Floats
    y: Floats
    stdev: Floats
    bounds: int

    @property
    def places(self) -> int:
        """How many different x there are."""
        return len(np.unique(self.x))


def rate_points(x: npt.ArrayLike, rates: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> RatePoints:
    """Take the best learning rates that have a neighbour on either side.

    Noise of the seeds moves the best by a step of the grid, so the truth is taken as anywhere between the neighbours.

    Args:
        x: batch size or budget, > 0, shape (n,).
        rates: best learning rate, > 0, shape (n,).
        low: the next lower one that was tried; None or nan where there is none.
        high: the next higher one; likewise.

    Returns:
        The points.

    Raises:
        BadInput: the vectors do not fit each other, hold what has no logarithm, or a neighbour is on the wrong side.
    """
    columns = [np.array(each, dtype=np.float64) for each in (x, rates, low, high)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise BadInput(
            f"x and rates have shapes {columns[0].shape} and {columns[1].shape}; give vectors of equal length"
        )
    if not all((column > 0).all() and np.isfinite(column).all() for column in columns[:2]):
        raise BadInput("batch sizes, budgets and learning rates must be positive; leave out cells without a best one")
    inside = np.isfinite(columns[2]) & np.isfinite(columns[3])
    _, best, below, above = (column[inside] for column in columns)
    if not ((below > 0) & (below < best) & (best < above)).all():
        raise BadInput(
            "a best learning rate does not lie between low and high; give its neighbours on the grid, above zero"
        )
    order = np.argsort(columns[0][inside], kind="stable")
    logs = [np.log2(column[inside][order]) for column in columns]
    return RatePoints(logs[0], logs[1], (logs[3] - logs[2]) / math.sqrt(12), int((~inside).sum()))


def fit_rate_power(
    x: npt.ArrayLike, rates: npt.ArrayLike, *, low: npt.ArrayLike, high: npt.ArrayLike, of: str = "the batch size"
) -> RatePower:
    """Fit the best learning rate by a power of batch size, epochs or steps.

    Args:
        x: batch size or budget, > 0, shape (n,).
        rates: best learning rate of each, shape (n,).
        low: neighbour below on the grid of learning rates; None where the best was the lowest.
        high: neighbour above; likewise.
        of: what x is, for the sentence.

    Returns:
        The power with its interval. Points at an edge of the grid are left out and counted.

    Source:
        Smith, Elsen & De 2020, arXiv:2006.15081: best rates for training loss and for test accuracy, fitted apart.
    """
    points = rate_points(x, rates, low, high)
    n, span = len(points.x), float(2 ** np.ptp(points.x)) if len(points.x) else 1.0
    if points.places < LEAST:
        reason = f"a power needs best learning rates inside their grids at {LEAST} values of {of}, got {points.places}"
        reason += left_out(points.bounds)
        return RatePower(None, "not resolvable", reason, None, None, span, n, points.bounds)
    line = line_with_errors(points.x, points.y, points.stdev)
    exponent = Coefficient.student(line.slope, line.slope_stderr, n - 2, n=n, method=METHOD)
    assert exponent.interval is not None
    low_end, high_end = exponent.interval
    law, word = named_law(exponent.interval)
    fold = Coefficient(span**line.slope, None, (span**low_end, span**high_end), n, METHOD)
    reason = f"the best lr goes as {of} to the power {exponent}, {word}{left_out(points.bounds)}"
    return RatePower(exponent, law, reason, 2**line.intercept, fold, span, n, points.bounds)


def named_law(interval: tuple[float, float]) -> tuple[Law, str]:
    """Say which of the named powers an interval allows."""
    low, high = interval
    allowed = [name for name, power in NAMED.items() if low <= power <= high]
    if not allowed:
        return "neither", "neither constant nor square root nor linear"
    if len(allowed) > 1:
        return "not resolvable", f"which allows {' and '.join(allowed)}"
    return allowed[0], {"linear": "linear", "square root": "a square root", "constant": "constant"}[allowed[0]]


def left_out(bounds: int) -> str:
    """Say how many points only bound the best learning rate."""
    return f" ({bounds} at the edge of their grid left out)" if bounds else ""


def fit_rate_regimes(
    batch_sizes: npt.ArrayLike, rates: npt.ArrayLike, *, low: npt.ArrayLike, high: npt.ArrayLike
) -> RateRegimes:
    """Fit the best learning rate by a power of the batch size that ends in a plateau.

    The exponent and the batch where the plateau begins are searched together; each interval is that of the profile over
    the other. A plateau is said to be there where a power alone is worse by more than Student's t allows.

    Args:
        batch_sizes: B, shape (n,).
        rates: best learning rate of each, lr or lr / (1 - m), shape (n,).
        low: neighbour below on the grid of learning rates; None where the best was the lowest.
        high: neighbour above; likewise.

    Returns:
        Exponent and transition with intervals.

    Source:
        Smith, Elsen & De 2020, arXiv:2006.15081: proportional to B while noise dominates, constant where curvature does.
    """
    points = rate_points(batch_sizes, rates, low, high)
    alone = fit_rate_power(batch_sizes, rates, low=low, high=high)
    n = len(points.x)
    if points.places <= LEAST or alone.exponent is None:
        reason = f"{alone.reason}; a plateau beside it needs {LEAST + 1}"
        return RateRegimes("not resolvable", reason, None, None, alone.exponent, alone.law, n, alone.bounds)
    knots = np.linspace(points.x[1], points.x[-1], KNOTS)
    misfit = ramp_misfit(points, knots)
    best = float(misfit.min())
    room = t_quantile(n - 3) ** 2 * max(1.0, best / (n - 3))
    if misfit[:, -1].min() <= best + room:  # the last knot is the largest batch: no plateau
        reason = f"{alone.reason}; no plateau stands out up to batch {2 ** points.x[-1]:,.0f}"
        law, doubt = told_from_ramp(points, alone, knots, misfit)
        return RateRegimes("no transition", reason + doubt, None, None, alone.exponent, law, n, alone.bounds)
    return with_plateau(points, knots, misfit, misfit <= best + room)


def told_from_ramp(points: RatePoints, alone: RatePower, knots: Floats, misfit: Floats) -> tuple[Law, str]:
    """Take back a power below 1 where a linear rise that ends in a plateau, of as many coefficients, fits better."""
    linear = misfit[int(np.abs(EXPONENTS - NAMED["linear"]).argmin())]
    j = int(linear.argmin())
    assert alone.exponent is not None
    flatter = alone.law in {"square root", "neither"} and 0 < alone.exponent.value < 1
    if not (flatter and knots[j] < points.x[-1] and linear[j] < misfit[:, -1].min()):
        return alone.law, ""
    return "not resolvable", f", but linear up to batch {2 ** knots[j]:,.0f} and constant beyond fits better"


def with_plateau(points: RatePoints, knots: Floats, misfit: Floats, near: npt.NDArray[np.bool_]) -> RateRegimes:
    """Describe the best power with a plateau, and those that are nearly as good."""
    n = len(points.x)
    i, j = np.unravel_index(int(misfit.argmin()), misfit.shape)
    power, knot = float(EXPONENTS[i]), float(knots[j])
    slopes, ends = EXPONENTS[near.any(axis=1)], 2 ** knots[near.any(axis=0)]
    within = (float(slopes.min()), float(slopes.max()))
    exponent = Coefficient(power, None, within, n, METHOD)
    size = Coefficient(2**knot, None, (float(ends.min()), float(ends.max())), n, METHOD)
    law, word = named_law(within)
    if within[0] == EXPONENTS[0] or within[1] == EXPONENTS[-1]:
        word += f" (powers from {EXPONENTS[0]:g} to {EXPONENTS[-1]:g} were tried)"
    weights = points.stdev**-2.0
    level = float(weights @ (points.y - power * np.minimum(points.x, knot)) / weights.sum())
    plateau = 2 ** (level + power * knot)
    reason = (
        f"the best lr goes as the batch size to the power {exponent}, {word}, up to batch {2**knot:,.0f} "
        f"(95 % {ends.min():,.0f} to {ends.max():,.0f}), and stays at {plateau:.3g}{left_out(points.bounds)}"
    )
    return RateRegimes("transition", reason, size, plateau, exponent, law, n, points.bounds)


def ramp_misfit(points: RatePoints, knots: Floats) -> Floats:
    """Return the weighted squares that level + exponent min(x, knot) misses by, shape (exponents, knots)."""
    weights = points.stdev**-2.0
    shares = weights / weights.sum()
    ramp = np.minimum(points.x, knots[:, None])
    ramp -= (ramp @ shares)[:, None]
    y = points.y - shares @ points.y
    square, cross, power = ramp**2 @ weights, ramp @ (weights * y), EXPONENTS[:, None]
    return np.asarray(np.maximum(0.0, power**2 * square - 2 * power * cross + weights @ y**2))
