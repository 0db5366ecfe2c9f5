# Oracles: random potentials of known exponent (a fractional Brownian field, drawn from the Cholesky factor of its
# covariance), independent normal draws, numpy's standard deviation in each bin, a jackknife by hand, and coverage by
# simulation with a band fixed beforehand.
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gengap.core.errors import BadInput
from gengap.theory.roughness import fit_roughness


def draws(exponent, n=400, seed=0, factor=3.0, farthest=10.0):
    rng = np.random.default_rng(seed)
    z = rng.uniform(0, farthest, size=n)
    return z, factor * z**exponent * rng.normal(size=n)


def fractional_fields(hurst, places, count):
    """Fields with E (L(x) - L(y))^2 = |x - y|^(2 hurst) and L(0) = 0, at the rows of `places`."""
    gap = np.linalg.norm(places[:, None] - places[None], axis=-1) ** (2 * hurst)
    size = np.linalg.norm(places, axis=1) ** (2 * hurst)
    root = np.linalg.cholesky((size[:, None] + size[None] - gap) / 2 + 1e-10 * np.eye(len(places)))
    return np.random.default_rng(0).normal(size=(count, len(places))) @ root.T


@pytest.mark.parametrize("hurst", [0.25, 0.5, 0.8])
def test_finds_the_exponent_of_a_random_potential(hurst):
    """Fields in 20 dimensions seen from 400 random directions; the error bar of the mean of 20 decides."""
    rng = np.random.default_rng(1000)
    v, z = rng.normal(size=(400, 20)), rng.uniform(0, 5, size=400)
    places = z[:, None] * v / np.linalg.norm(v, axis=1, keepdims=True)
    found = [fit_roughness(z, field, 8, resamples=100).gamma for field in fractional_fields(hurst, places, 20)]
    stderr = np.std(found, ddof=1) / math.sqrt(20)
    assert abs(np.mean(found) - hurst) < 5 * stderr
    assert stderr < 0.02


def smooth(seed):
    """Distances, and the values of a random plane and of a random bowl there, on 500 directions in 50 dimensions."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(500, 50))
    z, slope, curvature = rng.uniform(0, 1, size=500), rng.normal(size=50), rng.exponential(size=50)
    steps = z[:, None] * v / np.linalg.norm(v, axis=1, keepdims=True)
    return z, steps @ slope, steps**2 @ curvature


def test_a_smooth_loss_has_gamma_one_on_a_slope_and_two_at_a_minimum():
    """Nothing is random along a direction there: the spread is that of slopes, or of curvatures, between directions."""
    z, plane, bowl = smooth(1)
    for exponent, loss in [(1, plane), (2, bowl)]:
        found = fit_roughness(z, loss, 20, resamples=100)
        assert abs(found.gamma - exponent) < 5 * found.stderr
        assert found.stderr < 0.04 * exponent


def test_a_rise_in_all_directions_alike_is_no_spread():
    """The bowl rises within a bin; about the mean that is taken for spread."""
    z, _, bowl = smooth(1)
    gammas = {about: fit_roughness(z, bowl, 20, about=about, resamples=100).gamma for about in ("line", "mean", "zero")}
    assert gammas["line"] == pytest.approx(2, abs=0.2)
    assert gammas["mean"] < 1.8
    assert gammas["zero"] == pytest.approx(2, abs=0.05)


def test_the_interval_covers_the_truth_in_95_of_100():
    """200 experiments of 400 draws: 5 standard errors are 7.7 %."""
    hits = 0
    for seed in range(200):
        low, high = fit_roughness(*draws(0.7, n=400, seed=seed), 5, resamples=100, seed=seed).interval
        hits += low <= 0.7 <= high
    assert abs(hits / 200 - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 200)


def test_draws_that_share_a_direction_are_resampled_together():
    """Every draw ten times over says no more than once; without labels it passes for ten."""
    z, y = draws(1.0, n=60)
    edges, many, labels = [0.0, 3.0, 6.0, 10.0], np.repeat([z, y], 10, axis=1), np.repeat(np.arange(60), 10)
    once = fit_roughness(z, y, edges, about="zero", resamples=400)
    apart = fit_roughness(*many, edges, about="zero", resamples=400)
    together = fit_roughness(*many, edges, about="zero", resamples=400, groups=labels)
    # the standard deviation of 400 resamples is known to 3.5 %; weights differ by (10 n - 1) / (n - 1)
    assert together.stderr == pytest.approx(once.stderr, rel=0.2)
    assert apart.stderr == pytest.approx(once.stderr / math.sqrt(10), rel=0.2)
    assert (apart.directions, together.directions, together.n) == (600, 60, 600)
    named = fit_roughness(*many, edges, about="zero", resamples=400, groups=[f"v{i:02}" for i in labels])
    assert named == together


def exponent_by_hand(z, y, edges):
    """The exponent of mean squares in bins, by numpy.polyfit and 50 repetitions."""
    rows = [(z >= low) & (z < high) for low, high in itertools.pairwise(edges)]
    gamma, spread = 1.0, [math.sqrt((y[r] ** 2).mean()) for r in rows]
    for _ in range(50):
        centre = [(z[r] ** (2 * gamma)).mean() ** (1 / (2 * gamma)) for r in rows]
        gamma = np.polyfit(np.log(centre), np.log(spread), 1, w=[math.sqrt(r.sum() - 1) for r in rows])[0]
    return gamma


def test_the_bootstrap_agrees_with_a_jackknife_by_hand():
    """In bins as wide as these the distances that they stand for move with the exponent, which is part of its error."""
    (z, y), edges, n = draws(1.0, n=150, seed=1), [0.0, 3.0, 6.0, 10.0], 150
    found = fit_roughness(z, y, edges, about="zero", resamples=2000)
    assert found.gamma == pytest.approx(exponent_by_hand(z, y, edges), rel=1e-8)
    without = np.array([exponent_by_hand(np.delete(z, i), np.delete(y, i), edges) for i in range(n)])
    assert found.stderr == pytest.approx(math.sqrt((n - 1) * without.var()), rel=0.1)


@pytest.mark.parametrize("about", ["line", "mean", "zero"])
def test_the_bins_written_out(about):
    z, y = draws(1.0, n=100)
    y += 7 * z
    found = fit_roughness(z, y, [0.0, 2.0, 5.0, 7.0, 10.0], about=about, resamples=100)
    assert found.about == about
    assert [(b.low, b.high) for b in found.bins] == [(0, 2), (2, 5), (5, 7), (7, 10)]
    order = 2 * found.gamma
    for b in found.bins:
        inside = (z >= b.low) & (z < b.high)
        assert (b.n, b.mean) == (inside.sum(), pytest.approx(y[inside].mean(), rel=1e-12))
        line = np.polyval(np.polyfit(z[inside], y[inside], 1), z[inside])
        expected = {
            "line": math.sqrt(((y[inside] - line) ** 2).sum() / (inside.sum() - 2)),
            "mean": y[inside].std(ddof=1),
            "zero": math.sqrt((y[inside] ** 2).mean()),
        }[about]
        assert b.spread == pytest.approx(expected, rel=1e-11)
        assert b.distance == pytest.approx((z[inside] ** order).mean() ** (1 / order), rel=1e-8)
    logs = np.log([[b.distance, b.spread] for b in found.bins])
    weights = np.sqrt([b.n - 1 for b in found.bins])
    gamma, level = np.polyfit(logs[:, 0], logs[:, 1], 1, w=weights)
    assert (found.gamma, found.alpha) == (pytest.approx(gamma, rel=1e-8), pytest.approx(2 * gamma, rel=1e-8))
    assert found.factor == pytest.approx(math.exp(level), rel=1e-8)


def test_a_wide_first_bin_does_not_tilt_the_line():
    """Three bins from zero on: the middles of the bins would give an exponent that is 0.03 off."""
    found = [fit_roughness(*draws(0.3, n=5000, seed=s), 3, resamples=100).gamma for s in range(12)]
    stderr = np.std(found, ddof=1) / math.sqrt(12)
    assert abs(np.mean(found) - 0.3) < 5 * stderr
    assert stderr < 0.006


@settings(max_examples=20, deadline=None)
@given(exponent=st.floats(-1, 3), factor=st.floats(1e-6, 1e6), unit=st.floats(1e-3, 1e3))
def test_units_do_not_matter(exponent, factor, unit):
    z, y = draws(exponent, n=60, farthest=5.0)
    plain = fit_roughness(z, y, 4, resamples=100)
    scaled = fit_roughness(unit * z, factor * y, 4, resamples=100)
    assert scaled.gamma == pytest.approx(plain.gamma, rel=1e-6, abs=1e-8)
    assert scaled.interval == pytest.approx(plain.interval, rel=1e-2, abs=1e-3)
    assert scaled.factor == pytest.approx(factor * plain.factor * unit**-plain.gamma, rel=1e-5)


def test_draws_at_a_few_distances():
    """All draws of a bin at one distance have no line through them."""
    rng = np.random.default_rng(5)
    z = np.repeat([1.0, 2.0, 4.0, 8.0], 50)
    y = z**1.5 * rng.normal(size=200)
    found = fit_roughness(z, y, [0.5, 1.5, 3.0, 6.0, 9.0], resamples=100)
    assert [b.distance for b in found.bins] == pytest.approx([1, 2, 4, 8], rel=1e-12)
    assert found.bins[0].spread == pytest.approx(y[:50].std(ddof=1), rel=1e-12)
    assert abs(found.gamma - 1.5) < 5 * found.stderr


def test_numbers_of_draws():
    z, y = draws(1.0, n=100)
    found = fit_roughness(z, y, 10, resamples=100)
    assert [b.n for b in found.bins] == [10] * 10
    assert (found.n, found.left_out, found.directions) == (100, 0, 100)
    cut = fit_roughness(z, y, [1.0, 3.0, 5.0, 8.0], resamples=100)
    assert cut.left_out == 100 - cut.n == ((z < 1) | (z > 8)).sum()
    thin = fit_roughness(z, y, [0.0, z.min() * 1.001, 3.0, 5.0, 10.0], resamples=100)
    assert (len(thin.bins), thin.left_out) == (3, 1)


def test_the_seed_decides_the_interval_alone():
    z, y = draws(1.0)
    first, same, other = (fit_roughness(z, y, resamples=100, seed=s) for s in (0, 0, 1))
    assert first == same
    assert first.gamma == other.gamma
    assert first.interval != other.interval


def test_the_record_is_json_and_prints():
    found = fit_roughness(*draws(1.0), resamples=100)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (len(told["bins"]), told["bins"][0]["n"]) == (10, 40)
    assert "alpha" in str(found)


GOOD = dict(zip(("distances", "loss_differences"), draws(1.0, n=50), strict=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"distances": np.ones(3)}, r"distances has shape \(3,\) and loss_differences \(50,\)"),
        ({"loss_differences": np.full(50, math.inf)}, "50 of 50 draws are not finite; draw within a smaller distance"),
        ({"distances": np.arange(50)}, "distances holds 0; leave out draws at the start itself"),
        ({"bins": 20}, "0 of 20 bins hold draws on at least 5 directions, but a line needs 3 such bins"),
        ({"bins": 0}, "bins is 0; give a number of bins, or ascending edges"),
        ({"bins": 2.5}, "bins is 2.5; give a number of bins, or ascending edges"),
        ({"bins": [1.0, 1.0]}, "give a number of bins, or ascending edges"),
        ({"groups": np.zeros(50)}, "0 of 5 bins hold draws on at least 5 directions"),
        ({"groups": np.zeros(3)}, r"groups has shape \(3,\) and distances \(50,\)"),
        ({"loss_differences": np.ones(50)}, "the loss does not vary in a bin"),
        ({"about": "median"}, "about is 'median'; choose one of line, mean, zero"),
        ({"resamples": 10}, "resamples is 10; percentiles need at least 100"),
    ],
    ids=str,
)
def test_refuses_with_a_sentence(change, sentence):
    arguments = {**GOOD, "bins": 5, **change}
    with pytest.raises(BadInput, match=sentence):
        fit_roughness(**arguments)
