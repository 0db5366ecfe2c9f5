# Oracles: the curves' own definitions, evaluated far away or by finite differences; scipy's Nelder-Mead on the likelihood
# written out, curve_fit with known weights; and profile bounds found by brentq over fits of scipy's least_squares.
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq, curve_fit, least_squares, minimize

from gengap.theory.cost_laws import LAWS, MCCANDLISH, PERFECT, POWER, THREE_REGIMES, Means, fit_law, region

X = np.log(np.geomspace(16, 8192, 10))
TRUE = {
    MCCANDLISH: np.array([math.log(500)]),
    POWER: np.array([math.log(500), 1.7]),
    THREE_REGIMES: np.array([math.log(100), math.log(20), 0.4]),
}


def made(law, theta, noise, seed=0, variance=0.0):
    y = math.log(1e5) + law.rise(X, theta[None])[0] + noise * np.random.default_rng(seed).normal(size=len(X))
    return Means(X, y, np.full(len(X), variance))


@pytest.mark.parametrize("law", TRUE, ids=lambda law: law.name)
def test_exact_points_give_the_curve_back(law):
    fit = fit_law(law, made(law, TRUE[law], noise=0.0))
    assert fit.theta == pytest.approx(TRUE[law], abs=1e-4)
    assert fit.level == pytest.approx(math.log(1e5), abs=1e-4)
    assert fit.scatter < 1e-5


@pytest.mark.parametrize("law", TRUE, ids=lambda law: law.name)
def test_doubling_and_floor_by_their_definitions(law):
    theta = TRUE[law][None]
    doubling = law.doubling(theta)
    assert law.rise(doubling, theta)[0, 0] == pytest.approx(math.log(2), rel=1e-12)
    if law.floor is not None:
        assert law.rise(np.array([40.0]), theta)[0, 0] - 40.0 == pytest.approx(law.floor(theta)[0], abs=1e-9)
    assert law.rise(np.array([-40.0]), theta)[0, 0] == pytest.approx(0, abs=1e-9)


def test_doubling_in_the_last_of_three_pieces():
    theta = np.array([[math.log(100), math.log(2), 0.4]])
    assert THREE_REGIMES.rise(THREE_REGIMES.doubling(theta), theta)[0, 0] == pytest.approx(math.log(2), rel=1e-12)


def test_the_slopes_of_three_regimes():
    bends = TRUE[THREE_REGIMES]
    middles = np.array([bends[0] - 1, bends[0] + bends[1] / 2, bends[0] + bends[1] + 1])
    up, down = (THREE_REGIMES.rise(middles + h, bends[None])[0] for h in (1e-3, -1e-3))
    assert (up - down) / 2e-3 == pytest.approx([0, 0.4, 1], abs=1e-9)


@pytest.mark.parametrize("law", TRUE, ids=lambda law: law.name)
def test_another_search_finds_no_better_likelihood(law):
    """Unequal variances of the seeds, and scatter beyond them."""
    means = made(law, TRUE[law], noise=0.1)
    means = Means(means.x, means.y, np.geomspace(1e-4, 0.02, len(X)))

    def deviance(numbers):
        level, scatter, theta = numbers[0], numbers[1], numbers[2:]
        total = means.variance + scatter**2
        return np.sum(np.log(total) + (means.y - level - law.rise(means.x, theta[None])[0]) ** 2 / total)

    fit = fit_law(law, means)
    start = np.r_[fit.level + 0.05, fit.scatter + 0.02, fit.theta + 0.05]
    other = minimize(deviance, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000})
    assert fit.deviance == pytest.approx(other.fun, abs=2e-3)
    assert fit.scatter == pytest.approx(abs(other.x[1]), abs=2e-3)


@pytest.mark.parametrize("seed", range(2))
def test_kinks_hide_no_better_place(seed):
    """Three pieces through points of another law: the best of 12 searches from random starts."""
    means = made(MCCANDLISH, TRUE[MCCANDLISH], noise=0.1, seed=seed)
    means, rng = Means(means.x, means.y, np.geomspace(1e-4, 0.02, len(X))), np.random.default_rng(seed)

    def deviance(numbers):
        theta, total = np.clip(numbers[2:], *THREE_REGIMES.box(X)), means.variance + numbers[1] ** 2
        rise = THREE_REGIMES.rise(X, theta[None])[0]
        return np.sum(np.log(total) + (means.y - numbers[0] - rise) ** 2 / total)

    starts = [np.r_[means.y.min(), 0.1, rng.uniform((2, 0, 0.1), (9, 5, 0.9))] for _ in range(12)]
    best = min(minimize(deviance, start, method="Nelder-Mead", options={"maxiter": 1500}).fun for start in starts)
    assert fit_law(THREE_REGIMES, means).deviance < best + 2e-3


def test_weights_where_the_seeds_explain_the_scatter():
    """Residuals far below the seeds' spread leave no scatter: plain weighted least squares."""
    means = made(MCCANDLISH, TRUE[MCCANDLISH], noise=0.02)
    means = Means(means.x, means.y, np.geomspace(0.01, 1.0, len(X)))
    fit = fit_law(MCCANDLISH, means)
    (level, bend), _ = curve_fit(
        lambda x, a, b: a + np.log1p(np.exp(x - b)), means.x, means.y, p0=(11, 6), sigma=np.sqrt(means.variance)
    )
    assert fit.scatter == 0
    assert (fit.level, fit.theta[0]) == (pytest.approx(level, abs=1e-5), pytest.approx(bend, abs=1e-5))


def test_perfect_scaling_is_the_mean():
    means = made(MCCANDLISH, TRUE[MCCANDLISH], noise=0.1)
    fit = fit_law(PERFECT, means)
    n, rss = len(X), float(((means.y - means.y.mean()) ** 2).sum())
    assert fit.level == pytest.approx(means.y.mean(), rel=1e-12)
    assert fit.deviance == pytest.approx(n * math.log(rss / n) + n, rel=1e-6)
    assert fit.aicc == pytest.approx(fit.deviance + 2 * 2 + 2 * 2 * 3 / (n - 3), rel=1e-12)


def test_bounds_are_those_of_a_profile():
    """Equal variances: F = t^2 bound on the sum of squares; ends within a hundredth of the interval."""
    means = made(MCCANDLISH, TRUE[MCCANDLISH], noise=0.1, seed=3)
    found = region(fit_law(MCCANDLISH, means))

    def left(bend, level):
        return means.y - level - np.logaddexp(0, means.x - bend)

    best = least_squares(lambda p: left(*p), (6, 11), xtol=1e-12)
    bound = 2 * best.cost * (1 + stats.t.ppf(0.975, len(X) - 2) ** 2 / (len(X) - 2))

    def profile(pinned):
        return lambda v: 2 * least_squares(lambda p: left(*pinned(v, p[0])), (9.0,), xtol=1e-12).cost - bound

    for index, pinned, ends in [
        (0, lambda v, p: (v, p), (found.thetas[:, 0].min(), found.thetas[:, 0].max())),
        (1, lambda v, p: (p, v), ((found.levels - found.slack).min(), (found.levels + found.slack).max())),
    ]:
        low, high = (brentq(profile(pinned), best.x[index], best.x[index] + away, xtol=1e-8) for away in (-2, 2))
        assert ends == pytest.approx((low, high), abs=0.01 * (high - low))


def test_every_law_is_exact_at_its_grid_edges():
    """Nothing falls and nothing is lost at the ends of what is searched."""
    for law in LAWS:
        for theta in law.box(X):
            rise = law.rise(X, theta[None])[0]
            assert np.isfinite(rise).all()
            assert (np.diff(rise) >= 0).all()
