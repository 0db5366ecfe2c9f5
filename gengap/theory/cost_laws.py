"""Curves of samples-to-target against batch size, and the fit of one of them to batch sizes with scatter."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gengap.core.estimate import t_quantile
from gengap.theory.least_squares import Floats

WIDE = math.log(1e4)  # so far beyond the batch sizes that were run, in logarithms, a bend is no longer seen
ROUNDING = 1e-6  # least scatter of a logarithm: whole numbers of samples have it
FINE = 1e-7  # a theta is searched to this; it is a logarithm or an exponent
SEARCH = 200  # grids tried at most: a long valley may not end
PASSES = 60  # between curve and scatter, and from all curves to those that fit; both settle in a dozen


@dataclass(frozen=True, slots=True)
class CostLaw:
    """A family of curves E(B) = E_min exp(rise(ln B)).

    Each has a part where samples are constant and bends at theta[0], in ln B. Methods take many theta at once.

    Attributes:
        name: of the law.
        formula: as people print it.
        rise: ln(E / E_min) from ln B, shape (k,), and theta, shape (G, d): shape (G, k); nowhere falling.
        doubling: ln of the batch size with E = 2 E_min, shape (G,); None where samples never rise.
        floor: ln(S_min / E_min), S_min the steps of the largest batches, shape (G,); None where steps have no limit.
        low: least theta, shape (d,); that of theta[0] counts from the smallest ln B.
        high: largest theta; that of theta[0] counts from the largest ln B.
        parts: points of a grid in each direction.
        parameters: the law's own numbers from one theta.
        kinks: the curve has corners; then the likelihood has several summits.
    """

    name: str
    formula: str
    rise: Callable[[Floats, Floats], Floats]
    doubling: Callable[[Floats], Floats] | None
    floor: Callable[[Floats], Floats] | None
    low: tuple[float, ...]
    high: tuple[float, ...]
    parts: tuple[int, ...]
    parameters: Callable[[Floats], dict[str, float]]
    kinks: bool = False

    @property
    def coefficients(self) -> int:
        """How many numbers are fitted: theta and E_min."""
        return len(self.low) + 1

    def box(self, x: Floats) -> tuple[Floats, Floats]:
        """Return the corners of what is searched, for batch sizes with logarithms x."""
        low, high = np.array(self.low), np.array(self.high)
        low[:1] += x.min()
        high[:1] += x.max()
        return low, high


@dataclass(frozen=True, slots=True)
class Means:
    """What a law is fitted to: one point for each batch size, in logarithms, shapes (k,).

    Attributes:
        x: ln B.
        y: ln of the samples to target.
        variance: of y, as far as the seeds tell; 0 where they do not.
    """

    x: Floats
    y: Floats
    variance: Floats


@dataclass(frozen=True, slots=True)
class LawFit:
    """One law at its most likely.

    Attributes:
        law: which.
        theta: shape (d,).
        level: ln E_min.
        scatter: standard deviation between batch sizes, beyond what the seeds explain, of ln E.
        deviance: -2 ln(likelihood), up to a constant that all laws share.
        means: what it was fitted to.
    """

    law: CostLaw
    theta: Floats
    level: float
    scatter: float
    deviance: float
    means: Means

    @property
    def aicc(self) -> float | None:
        """Deviance with Hurvich and Tsai's price for the coefficients and the scatter; None for too few points."""
        n, k = len(self.means.x), self.law.coefficients + 1
        return self.deviance + 2 * k + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else None

    def curve(self, x: Floats) -> Floats:
        """Return ln E at ln B."""
        return np.asarray(self.level + self.law.rise(x, self.theta[None])[0])


def fit_law(law: CostLaw, means: Means) -> LawFit:
    r"""Find the curve of one law and the scatter about it that are most likely.

    With v_b the variance of a mean over seeds and tau the scatter between batch sizes (each was tuned on its own),

    .. math::
        \ln E_b \sim N(\ln E(B_b),\; v_b + \tau^2).

    Curve and scatter are improved in turn until neither moves.

    Args:
        law: the family.
        means: the points, more than the law has coefficients.

    Returns:
        The maximum of the likelihood, from a grid over all theta followed by a search.
    """
    variance = means.variance + ROUNDING**2
    everywhere = grid(*law.box(means.x), law.parts)
    theta, scatter = everywhere[0], float(means.y.var())
    for _ in range(PASSES):
        weights = 1 / (variance + scatter)
        starts = np.stack([theta, best_of(law, means, weights, everywhere)])
        if not law.kinks:
            starts = best_of(law, means, weights, starts)[None]
        theta = best_of(law, means, weights, np.stack([search(law, means, weights, start) for start in starts]))
        level, residuals = level_and_residuals(law, means, weights, theta)
        before, scatter = scatter, max(0.0, float(weights**2 @ (residuals**2 - variance) / (weights @ weights)))
        if abs(scatter - before) <= 1e-5 * (scatter + ROUNDING**2):
            break
    total = variance + scatter
    deviance = float(np.log(total).sum() + residuals**2 @ (1 / total))
    return LawFit(law, theta, level, math.sqrt(scatter), deviance, means)


def level_and_residuals(law: CostLaw, means: Means, weights: Floats, theta: Floats) -> tuple[float, Floats]:
    """Return the best ln E_min for one theta and what it leaves."""
    left = means.y - law.rise(means.x, theta[None])[0]
    level = float(weights @ left / weights.sum())
    return level, left - level


def misfit(law: CostLaw, means: Means, weights: Floats, thetas: Floats) -> tuple[Floats, Floats]:
    """Return the weighted squares at the best ln E_min, and that ln E_min, both of shape (G,)."""
    left = means.y - law.rise(means.x, thetas)
    levels = left @ weights / weights.sum()
    return (left - levels[:, None]) ** 2 @ weights, levels


def best_of(law: CostLaw, means: Means, weights: Floats, thetas: Floats) -> Floats:
    """Return the theta of a grid with the least misfit."""
    best: Floats = thetas[int(np.argmin(misfit(law, means, weights, thetas)[0]))]
    return best


def search(law: CostLaw, means: Means, weights: Floats, theta: Floats) -> Floats:
    """Improve a theta by small grids around it, which shrink when their middle is the best and else grow."""
    low, high = law.box(means.x)
    reach = (high - low) / np.maximum(np.array(law.parts, dtype=np.float64) - 1, 1)
    star = grid(-np.ones_like(low), np.ones_like(low), (5,) * len(low))
    for _ in range(SEARCH):
        candidates = np.clip(theta + star * reach, low, high)
        found = best_of(law, means, weights, np.concatenate([theta[None], candidates]))
        moved = bool((np.abs(found - theta) > 0.6 * reach).any())
        theta = found
        reach = reach * (1.5 if moved else 0.4)
        if not len(theta) or reach.max() < FINE:
            break
    return theta


def grid(low: Floats, high: Floats, parts: tuple[int, ...]) -> Floats:
    """Return all points of an even grid, shape (product of parts, d)."""
    lines = [np.linspace(a, b, n) for a, b, n in zip(low, high, parts, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(parts)) if lines else np.zeros((1, 0))


@dataclass(frozen=True, slots=True)
class Region:
    """All curves of a law that the points do not rule out, for one number at a time at 95 %.

    Attributes:
        law: which.
        thetas: of those curves, shape (G, d).
        levels: their best ln E_min, shape (G,).
        slack: how far ln E_min may be from it, shape (G,).
        no_least: the bend may lie below all batch sizes.
        no_most: the bend may lie above all batch sizes.
    """

    law: CostLaw
    thetas: Floats
    levels: Floats
    slack: Floats
    no_least: bool
    no_most: bool

    def band(self, x: Floats) -> tuple[Floats, Floats]:
        """Return the lowest and highest ln E at ln B, shapes (k,)."""
        curves = self.levels[:, None] + self.law.rise(x, self.thetas)
        slack = self.slack[:, None]
        return (curves - slack).min(axis=0), (curves + slack).max(axis=0)


def region(fit: LawFit) -> Region:
    """Collect the curves within the profile-likelihood bound.

    The scale of the variances is taken from the misfit itself, so that with equal variances it is the exact Student t
    statement of least squares on batch sizes, whose number and not that of the seeds decides.

    Args:
        fit: the law at its best, with at least one point more than coefficients.

    Returns:
        Curves on a grid fine enough that an end is known to about a hundredth of the region.

    Source:
        Hartung & Knapp 2001, Statistics in Medicine 20, 3875, for a mean; here for a curve.
    """
    law, means = fit.law, fit.means
    weights = 1 / (means.variance + ROUNDING**2 + fit.scatter**2)
    least = float(misfit(law, means, weights, fit.theta[None])[0][0])
    degrees = len(means.x) - law.coefficients
    bound = least + t_quantile(degrees) ** 2 * max(least, 1e-3) / degrees
    low, high = box = law.box(means.x)
    for _ in range(PASSES):
        thetas = np.concatenate([fit.theta[None], grid(low, high, law.parts)])
        squares, levels = misfit(law, means, weights, thetas)
        inside = squares <= bound
        thetas, squares, levels = thetas[inside], squares[inside], levels[inside]
        before = high - low
        low, high = around(thetas, before, law.parts, box)
        if (high - low > 0.8 * before).all():
            break
    slack = np.sqrt(np.maximum(bound - squares, 0) / weights.sum())
    edges = [bool(len(low)) and bool(np.isclose(thetas[:, :1], end[:1]).any()) for end in box]
    return Region(law, thetas, levels, slack, *edges)


def around(thetas: Floats, before: Floats, parts: tuple[int, ...], box: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return the corners of the box around thetas, one grid step wider, within the whole box."""
    step = before / np.maximum(np.array(parts, dtype=np.float64) - 1, 1)
    return np.maximum(thetas.min(axis=0) - step, box[0]), np.minimum(thetas.max(axis=0) + step, box[1])


def bent(x: Floats, thetas: Floats) -> Floats:
    """Rise of the power form; without an exponent, of McCandlish's."""
    exponent = thetas[:, 1:2] if thetas.shape[1] > 1 else 1.0
    rise: Floats = np.logaddexp(0, exponent * (x - thetas[:, :1]))
    return rise


def broken(x: Floats, thetas: Floats) -> Floats:
    """Rise of three straight pieces in logarithms."""
    beyond = x - thetas[:, :1]
    width, slope = thetas[:, 1:2], thetas[:, 2:3]
    rise: Floats = slope * np.clip(beyond, 0, width) + np.maximum(beyond - width, 0)
    return rise


def broken_doubling(thetas: Floats) -> Floats:
    """Return where three pieces have risen by ln 2: in the middle one or in the last."""
    bend, width, slope = thetas.T
    middle = slope * width
    doubling: Floats = bend + np.where(middle >= math.log(2), math.log(2) / slope, width + math.log(2) - middle)
    return doubling


PERFECT = CostLaw(
    name="perfect scaling",
    formula="E = E_min",
    rise=lambda x, thetas: np.zeros((len(thetas), len(x))),
    doubling=None,
    floor=None,
    low=(),
    high=(),
    parts=(),
    parameters=lambda theta: {},  # noqa: ARG005 - it has none
)
MCCANDLISH = CostLaw(
    name="McCandlish",
    formula="E = E_min (1 + B / B_crit)",
    rise=bent,
    doubling=lambda thetas: thetas[:, 0],
    floor=lambda thetas: -thetas[:, 0],
    low=(-WIDE,),
    high=(WIDE,),
    parts=(400,),
    parameters=lambda theta: {"b_crit": math.exp(theta[0])},
)
POWER = CostLaw(
    name="power form",
    formula="E = E_min (1 + (B / B_crit)^a)",
    rise=bent,
    doubling=lambda thetas: thetas[:, 0],
    floor=None,
    low=(-WIDE, 0.2),
    high=(WIDE, 5.0),
    parts=(80, 40),
    parameters=lambda theta: {"b_crit": math.exp(theta[0]), "exponent": float(theta[1])},
)
THREE_REGIMES = CostLaw(
    name="three regimes",
    formula="E = E_min; rising as B^a from B_1; steps constant from B_2",
    rise=broken,
    doubling=broken_doubling,
    floor=lambda thetas: thetas[:, 1] * (thetas[:, 2] - 1) - thetas[:, 0],
    low=(-math.log(10), 0.0, 0.1),
    high=(math.log(10), WIDE, 0.9),
    parts=(40, 30, 9),
    parameters=lambda theta: {
        "perfect_until": math.exp(theta[0]),
        "stagnation_from": math.exp(theta[0] + theta[1]),
        "exponent": float(theta[2]),
    },
    kinks=True,
)
LAWS = (MCCANDLISH, PERFECT, POWER, THREE_REGIMES)
