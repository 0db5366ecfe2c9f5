"""A curve that is flat and then falls: where it bends, with the interval that its profile leaves."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from gengap.core.estimate import t_quantile
from gengap.theory.least_squares import Floats
from gengap.theory.seed_table import SeedTable

SHAPES = (1, 2)  # the fall is straight, or begins gently
KNOTS = 400  # places where a bend is tried
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Bend:
    """A fit of level - slope max(0, x - knot)^shape to means over seeds, x = log2 B.

    Attributes:
        knot: where the fall begins, in x.
        shape: 1 or 2.
        level: height of the plateau.
        slope: of the fall, >= 0.
        low: lower end of the knot's 95 % interval, over both shapes.
        high: its upper end.
        misfit: weighted squares that the means miss the curve by.
    """

    knot: float
    shape: int
    level: float
    slope: float
    low: float
    high: float
    misfit: float


def fit_bend(table: SeedTable) -> Bend:
    """Fit the bend to a table of at least four batch sizes.

    The interval holds every knot whose curve, of either shape, is not worse than the best by more than Student's t allows.
    Its scatter is that of seeds or, where the means miss the curve by more, that of the means: a wrong curve then makes
    the interval wide, not wrong. Batch sizes that scatter unlike have their own weights.

    Args:
        table: values that fall with batch size.

    Returns:
        The best bend.
    """
    x, weights = np.log2(table.sizes), table.weights
    knots = np.unique(np.concatenate([np.linspace(x[0], x[-1], KNOTS), x]))
    found = [hinges(x, table.means, weights, knots, shape) for shape in SHAPES]
    misfit = np.stack([rss for _, _, rss in found])
    j, i = np.unravel_index(int(misfit.argmin()), misfit.shape)
    best = float(misfit.min())
    # from any bend beyond the last batch size but one the fall is the same
    slope_of = contrasts(x, weights, np.minimum(knots[i : i + 1], x[-2]), SHAPES[j])
    (variance,), (degrees,) = scatter(table, slope_of, best)
    room = t_quantile(int(degrees)) ** 2 * float(variance)
    inside = knots[misfit.min(axis=0) <= best + room + ROUNDING * (1 + best)]
    level, slope = float(found[j][0][i]), float(found[j][1][i])
    return Bend(
        knot=float(knots[i]),
        shape=SHAPES[j],
        level=level,
        slope=slope,
        low=float(inside.min()),
        high=float(inside.max()),
        misfit=best,
    )


def scatter(table: SeedTable, along: Floats, misfit: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Choose variances of a value of unit weight, shapes (k,): of seeds, or of means about the curve, the larger."""
    of_seeds, degrees = table.scatter_along(along)
    left = len(table.sizes) - 3
    of_means = misfit / left
    seeds_tell = (degrees > 0) & (of_seeds >= of_means)
    return np.where(seeds_tell, of_seeds, of_means), np.where(seeds_tell, degrees, left)


def contrasts(x: Floats, weights: Floats, knots: Floats, shape: int) -> Floats:
    """Return what the means are multiplied by to give the slopes of falls, up to a factor, shape (k, b)."""
    fall = -(np.maximum(0.0, x - knots[:, None]) ** shape)
    return np.asarray(weights * (fall - (fall @ weights / weights.sum())[:, None]))


def hinges(x: Floats, y: Floats, weights: Floats, knots: Floats, shape: int) -> tuple[Floats, Floats, Floats]:
    """Fit the best fall from each of many knots.

    Args:
        x: log2 of the batch sizes, shape (b,).
        y: means, shape (b,).
        weights: of the means, shape (b,).
        knots: shape (k,).
        shape: power of the fall.

    Returns:
        Level, slope >= 0 and weighted residual sum of squares, each of shape (k,).
    """
    fall = -(np.maximum(0.0, x - knots[:, None]) ** shape)
    total = weights.sum()
    mean, middle = weights @ y / total, fall @ weights / total
    away = fall - middle[:, None]
    spread = away**2 @ weights
    slope = np.maximum(0.0, away @ (weights * (y - mean)) / np.where(spread > ROUNDING, spread, np.inf))
    residuals = y - mean - slope[:, None] * away
    return mean - slope * middle, slope, residuals**2 @ weights


def falls(table: SeedTable) -> bool:
    """Tell whether values fall with batch size beyond what scatter explains.

    A straight fall from each batch size but the last is put to a one-sided t test, at 2.5 % over all of them
    (Bonferroni).

    Args:
        table: of at least four batch sizes.

    Returns:
        Whether one of the tests finds a fall.
    """
    x, weights, best = np.log2(table.sizes), table.weights, fit_bend(table).misfit
    misfit = hinges(x, table.means, weights, x, 1)[2]
    gains = np.maximum(0.0, misfit[-1] - misfit[:-1])  # a fall from the last batch size is none
    smallest = ROUNDING * (1 + float(np.abs(table.means).max()))
    variances, degrees = scatter(table, contrasts(x, weights, x[:-1], 1), best)
    noisy = variances > smallest**2
    by_chance = stdtr(degrees, -np.sqrt(gains / np.where(noisy, variances, 1.0)))
    return bool(np.where(noisy, by_chance * len(gains) < 0.025, gains > smallest).any())
