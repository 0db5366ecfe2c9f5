"""How the distance from the start grows with time: fits of the log law and of a power law."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.least_squares import (
    Coefficient,
    Floats,
    coefficients,
    points,
    r_squared,
    straight_line,
    sum_of_squares,
)

EXPONENTS = np.linspace(-3, 3, 61).tolist()  # where the search for the exponent begins
STEEPEST = 10.0  # and its bound: a curve steeper than this is a jump
FLAT = 1e-8  # an exponent nearer to zero than this cannot be told from the log law in float64


@dataclass(frozen=True, slots=True)
class LogFit(Record):
    """The log law: distance = slope ln t + intercept.

    Attributes:
        slope: growth of the distance in one e-fold of time, in units of the distance.
        intercept: the line's distance at t = 1.
        r_squared: share of the spread of the distances that the law explains; None where they do not vary.
        rss: residual sum of squares.
        n: number of points.
        correlation: of each residual with the next one in time; well above zero, the t intervals are too narrow.
        bootstrap_interval: 95 % interval of the slope that allows for such correlation; None unless asked for.
        block: points in a block of that bootstrap; None likewise.
    """

    slope: Coefficient
    intercept: Coefficient
    r_squared: float | None
    rss: float
    n: int
    correlation: float
    bootstrap_interval: tuple[float, float] | None = None
    block: int | None = None

    def __str__(self) -> str:
        share = "" if self.r_squared is None else f", R^2 {self.r_squared:.4g}"
        return f"distance = {self.slope} ln t + {self.intercept.value:.4g}{share} (n={self.n})"


@dataclass(frozen=True, slots=True)
class PowerFit(Record):
    """A power law: distance = factor t^exponent + offset.

    Attributes:
        factor: distance above the offset at t = 1.
        exponent: the power; 1/2 for a free random walk, 1 for drift.
        offset: distance that the power law is added to; None where it was held at zero.
        r_squared: share of the spread of the distances that the law explains; None where they do not vary.
        rss: residual sum of squares, of the distances themselves and not of their logarithms.
        n: number of points.
    """

    factor: Coefficient
    exponent: Coefficient
    offset: Coefficient | None
    r_squared: float | None
    rss: float
    n: int

    def __str__(self) -> str:
        share = "" if self.r_squared is None else f", R^2 {self.r_squared:.4g}"
        offset = "" if self.offset is None else f" + {self.offset.value:.4g}"
        return f"distance = {self.factor.value:.4g} t^b{offset} with b = {self.exponent}{share} (n={self.n})"


def fit_log_time(
    steps: npt.ArrayLike, distances: npt.ArrayLike, *, resamples: int = 0, block: int | None = None, seed: int = 0
) -> LogFit:
    """Fit the distance as a straight line in the logarithm of time.

    The t intervals take the residuals as independent. Those of one trajectory are not: a walker that is ahead stays ahead
    for a while, and the intervals are then too narrow. `correlation` shows it, a bootstrap of blocks of neighbouring
    residuals (`resamples`) widens the slope's interval for it, and only several seeds settle it.

    Args:
        steps: number of updates t, > 0, shape (n,); evenly spaced in ln t, every e-fold has the same say.
        distances: distance from the start at those steps, shape (n,).
        resamples: of the moving-block bootstrap; 0 leaves it out, 1,000 is usual.
        block: neighbouring points in a block, or None for Carlstein's rule from `correlation`.
        seed: of the resampling.

    Returns:
        The line with its errors. Costs nothing to speak of; the bootstrap one product of (resamples, n) numbers.

    Raises:
        BadInput: fewer than three distinct steps, a step that is not positive, numbers that are not finite, fewer than 100
            resamples, or a block that does not fit.

    Source:
        Hoffer et al. 2017, arXiv:1705.08741 (the log law); Kuensch 1989, Annals of Statistics 17, 1217 (moving
        blocks); Carlstein 1986, Annals of Statistics 14, 1171 (their length).
    """
    if resamples and resamples < 100:
        raise BadInput(f"resamples is {resamples!r}; give at least 100, or 0 to leave the bootstrap out")
    t, d = points(steps, distances)
    x = np.log(t)
    slope, intercept = straight_line(x, d)
    residuals = d - (slope * x + intercept)
    of_slope, of_intercept = coefficients([slope, intercept], np.stack([x, np.ones_like(x)], axis=1), residuals)
    correlation = neighbour_correlation(residuals)
    interval = None
    if resamples:
        block = block_length(len(t), correlation, block)
        interval = block_bootstrap(x, residuals, slope, block, resamples=resamples, seed=seed)
    return LogFit(
        slope=of_slope,
        intercept=of_intercept,
        r_squared=r_squared(d, residuals),
        rss=sum_of_squares(residuals),
        n=len(t),
        correlation=correlation,
        bootstrap_interval=interval,
        block=block if resamples else None,
    )


def fit_power_law(steps: npt.ArrayLike, distances: npt.ArrayLike, *, offset: bool = False) -> PowerFit:
    """Fit the distance by a power of time, by least squares of the distances themselves.

    So its residuals are in the unit of those of the log law, and the two can be compared; a line through the logarithms
    would weight small distances more. With `offset` the law contains the log law as the limit exponent -> 0, where factor
    and offset grow without bound while their sum stays: an exponent whose interval contains 0 is a log law.

    Args:
        steps: number of updates t, > 0, shape (n,).
        distances: distance from the start at those steps, shape (n,).
        offset: whether a constant is fitted too.

    Returns:
        The law with t intervals from its linearisation, which take residuals as independent (see `fit_log_time`).

    Raises:
        BadInput: fewer than three (with `offset`, four) distinct steps, a step that is not positive, numbers that are
            not finite, or distances that leave the exponent open because they do not vary.
    """
    t, d = points(steps, distances, 4 if offset else 3)
    if not d.any() or (offset and not np.ptp(d)):
        raise BadInput(f"the distances are all {d[0]:g}, which any exponent fits; take them while the weights move")
    middle = math.exp(float(np.log(t).mean()))
    exponent, factor, constant = power_optimum(np.log(t / middle), d, offset=offset)
    rise = t**exponent
    # from the basis of the search, which is 1 at the middle, to that of the law
    factor *= middle**-exponent
    values, columns = [factor, exponent], [rise, factor * rise * np.log(t)]
    if offset:
        values.append(constant)
        columns.append(np.ones_like(t))
    residuals = d - (factor * rise + constant)
    found = coefficients(values, np.stack(columns, axis=1), residuals)
    return PowerFit(
        factor=found[0],
        exponent=found[1],
        offset=found[2] if offset else None,
        r_squared=r_squared(d, residuals),
        rss=sum_of_squares(residuals),
        n=len(t),
    )


def power_optimum(x: Floats, d: Floats, *, offset: bool) -> tuple[float, float, float]:
    """Return exponent, factor and offset of the best d = factor e^(exponent x) + offset, where x = ln t around zero."""

    # for a given exponent the other two follow from a line, so one number is searched, from the best of a list
    def misfit(b: float) -> float:
        return linear_part(x, d, b, offset)[2]

    best = min(range(len(EXPONENTS)), key=[misfit(b) for b in EXPONENTS].__getitem__)
    low = EXPONENTS[best - 1] if best else -STEEPEST
    high = EXPONENTS[best + 1] if best + 1 < len(EXPONENTS) else STEEPEST
    exponent = float(minimize_scalar(misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x)
    if not offset:
        return exponent, *linear_part(x, d, exponent, offset)[:2]
    exponent = exponent if abs(exponent) > FLAT else math.copysign(FLAT, exponent)
    factor, constant, _ = linear_part(x, d, exponent, offset)
    return exponent, factor / exponent, constant - factor / exponent


def linear_part(x: Floats, d: Floats, exponent: float, offset: bool) -> tuple[float, float, float]:
    """Return factor, offset and residual sum of squares of the best fit with a given exponent."""
    if not offset:
        curve = np.exp(exponent * x)
        factor = float(curve @ d / (curve @ curve))
        return factor, 0.0, sum_of_squares(d - factor * curve)
    # (t^b - 1) / b instead of t^b passes through ln t at b = 0
    curve = np.expm1(exponent * x) / exponent if abs(exponent) >= FLAT else x
    factor, constant = straight_line(curve, d)
    return factor, constant, sum_of_squares(d - (factor * curve + constant))


def neighbour_correlation(residuals: Floats) -> float:
    """Return the correlation of each residual with the next one; 0 where there are no residuals to speak of."""
    total = sum_of_squares(residuals)
    return float(residuals[1:] @ residuals[:-1]) / total if total else 0.0


def block_length(n: int, correlation: float, block: int | None) -> int:
    """Choose how many neighbours are resampled together.

    Args:
        n: number of points.
        correlation: of neighbouring residuals.
        block: what the caller wants, or None.

    Returns:
        `block`, or Carlstein's length for a first-order autoregression, from 1 to n/3.

    Raises:
        BadInput: `block` is not from 1 to n.
    """
    if block is not None:
        if not 1 <= block <= n:
            raise BadInput(f"block is {block!r}; give a number of points from 1 to {n}")
        return block
    rho = min(max(correlation, 0.0), 0.99)
    length = math.pow(2 * rho / (1 - rho * rho), 2 / 3) * math.pow(n, 1 / 3)
    return max(1, min(n // 3, math.ceil(length)))


def block_bootstrap(
    x: Floats, residuals: Floats, slope: float, block: int, *, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of a slope from residuals resampled in blocks of neighbours.

    Args:
        x: abscissae in order, shape (n,).
        residuals: of the line, shape (n,).
        slope: of the line.
        block: points in a block.
        resamples: how many.
        seed: of the resampling.

    Returns:
        Lower and upper end: the slope plus and minus 1.96 standard deviations over the resamples.
    """
    n = len(x)
    rng = np.random.default_rng(stream(seed, "block bootstrap"))
    first = rng.integers(n - block + 1, size=(resamples, math.ceil(n / block)))
    rows = (first[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :n]
    away = x - x.mean()
    # least squares has made the residuals smaller than the errors, by two coefficients' worth
    kicks = residuals[rows] * math.sqrt(n / (n - 2)) @ away / (away @ away)
    half = 1.96 * float(kicks.std(ddof=1))
    return slope - half, slope + half
