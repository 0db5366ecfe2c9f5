# Oracles: the mean first-passage time of Brownian motion with drift-free reflection in closed form (quadratic in the
# distance, for a flat floor); Kramers' limit; simulated SGD against the exact integral; sums of Gibbs' density on a grid;
# made data with a known rate.
import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.escape import (
    EscapeTime,
    Well,
    fit_escape,
    kramers_time,
    mean_first_passage,
    mean_time,
    odds,
    simulate_escape,
)
from gengap.theory.langevin import sgd_temperature, simulate_noisy_descent
from gengap.theory.ornstein_uhlenbeck import HeavyBall
from gengap.theory.potentials import DoubleWell, Parabola, TwoMinima

WELL = DoubleWell(1.0)


class Box:
    """Flat between -1 and 1, with steep walls outside."""

    span = (-1.5, 1.5)

    def value(self, w):
        return 2000 * np.maximum(np.abs(w) - 1, 0) ** 2


def test_brownian_motion_from_a_wall():
    """Free motion from a reflecting wall at -1 to b takes (b + 1)^2 / 2 T; the soft wall adds its width."""
    for beyond in (0.5, 0.9):
        found = mean_first_passage(Box(), 0.01, start=-1.0, beyond=beyond)
        width = math.sqrt(math.pi * 0.01 / 2000) / 2
        assert found == pytest.approx(((beyond + 1) ** 2 / 2 + width * (beyond + 1)) / 0.01, rel=1e-4)


def test_left_is_the_mirror_of_right():
    right = mean_first_passage(WELL, 0.2, start=-1.0, beyond=0.7)
    assert mean_first_passage(WELL, 0.2, start=1.0, beyond=-0.7) == pytest.approx(right, rel=1e-10)


@pytest.mark.parametrize("temperature", [0.02, 0.05])
def test_kramers_is_the_limit_of_low_temperature(temperature):
    at_minimum, at_barrier = WELL.curvatures
    limit = kramers_time(barrier=1.0, at_minimum=at_minimum, at_barrier=at_barrier, temperature=temperature)
    exact = mean_first_passage(WELL, temperature, start=-1.0, beyond=1.0)
    assert limit == pytest.approx(exact, rel=temperature)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_simulated_time_is_the_exact_integral(momentum):
    """Learning rate 0.004, so that a step is small beside the barrier; 1,000 runs, all of which escape."""
    T, lr, B = 0.4, 0.004, 2
    rule, variance = HeavyBall(lr * (1 - momentum), B, momentum), 2 * T * B / lr
    assert sgd_temperature(rule, variance) == pytest.approx(T)
    found = simulate_escape(WELL, rule, variance, start=-1.0, beyond=0.8, limit=60_000, runs=1000)
    exact = mean_first_passage(WELL, T, start=-1.0, beyond=0.8) / lr
    assert found.escaped == 1000
    assert abs(found.steps - exact) < 5 * found.stderr + 0.03 * exact
    assert found.stderr < 0.04 * exact


def test_time_grows_exponentially_with_batch_over_lr():
    """Six batch sizes, 300 runs each: the rate is that of the exact integral, whose own limit is 2 barrier / sigma^2."""
    lr, variance, runs = 0.02, 1000.0, 300
    ratios, times, exact = np.linspace(750, 1600, 6), [], []
    for ratio in ratios:
        rule = HeavyBall(lr, lr * ratio)
        found = simulate_escape(WELL, rule, variance, start=-1.0, beyond=0.8, limit=20_000, runs=runs)
        times.append(found.steps * lr)
        exact.append(mean_first_passage(WELL, sgd_temperature(rule, variance), start=-1.0, beyond=0.8))
    fit, truth = fit_escape(ratios, times), fit_escape(ratios, exact)
    stderr = 1 / math.sqrt(runs) / np.linalg.norm(ratios - ratios.mean())
    assert abs(fit.rate.value - truth.rate.value) < 5 * stderr < 0.25 * truth.rate.value
    far = np.linspace(1e4, 3e4, 6)
    passage = [mean_first_passage(WELL, variance / (2 * ratio), start=-1.0, beyond=0.8) for ratio in far]
    limit = fit_escape(far, passage)
    assert limit.verdict == "exponential"
    assert limit.rate.value == pytest.approx(2 / variance, rel=0.01)


def test_mean_of_times_that_were_cut_off():
    """Exponential times of mean 50, cut at 60: the mean is found without bias, with the error it says."""
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        times = rng.exponential(50.0, size=100)
        found.append(mean_time(times[times < 60], 100, 60))
    values = np.array([f.steps for f in found])
    stderr = values.std(ddof=1)
    assert abs(values.mean() - 50) < 5 * stderr / 20
    assert np.mean([f.stderr for f in found]) == pytest.approx(stderr, rel=0.2)
    whole = mean_time(np.array([1.0, 3.0]), 2, 10)
    assert (whole.steps, whole.stderr) == (2.0, pytest.approx(1.0))
    assert mean_time(np.array([]), 5, 10) == EscapeTime(math.inf, None, 0, 5)
    assert str(mean_time(np.array([]), 5, 10)) == "inf updates (0 of 5 runs escaped)"


def test_fit_finds_a_known_rate():
    x = np.linspace(1, 8, 10)
    noise = np.random.default_rng(1).normal(scale=0.1, size=10)
    found = fit_escape(x, 3 * np.exp(0.8 * x + noise))
    assert found.verdict == "exponential"
    assert found.rate.interval[0] < 0.8 < found.rate.interval[1]
    assert found.intercept.interval[0] < math.log(3) < found.intercept.interval[1]
    assert fit_escape(x, 3 * x**2.5 * np.exp(noise / 5)).verdict == "not exponential"
    assert fit_escape([1.0, 1.1, 1.2, 1.3], [1.0, 1.2, 1.1, 1.3]).verdict == "not resolvable"


def test_fit_leaves_out_what_did_not_escape():
    x = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = fit_escape(x, [*np.exp(x[:4]), math.inf])
    assert (found.n, found.verdict) == (4, "exponential")
    few = fit_escape(x, [1.0, 2.0, 3.0, math.inf, math.inf])
    assert str(few) == "not resolvable: 3 points escaped; 4 are needed"


@pytest.mark.parametrize(("right_depth", "right_curvature"), [(0.0, 18.0), (-0.1, 18.0), (-0.1, 2.0)])
def test_odds_are_shares_of_gibbs_density(right_depth, right_curvature):
    left, right = Parabola(2.0, -1.0), Parabola(right_curvature, 1.0, right_depth)
    V, T = TwoMinima(left, right, 0.002), 0.05
    grid = np.linspace(-4, 4, 400_001)
    weight = np.exp(-V.value(grid) / T)
    inside = grid < V.crossing[0]
    exact = weight[inside].sum() / weight[~inside].sum()
    found = odds(Well(0.0, math.log(2.0)), Well(right_depth, math.log(right_curvature)), T)
    assert found == pytest.approx(exact, rel=0.02)
    assert odds(Well(0.0, 0.0), Well(1.0, 0.0), 1e-6) == math.inf


def test_sgd_is_found_in_either_minimum_by_those_odds():
    """Equal depth, widths 3 to 1: the wide one three times as often, whatever lr and B, if their ratio is the same."""
    left, right = Parabola(2.0, -0.6), Parabola(18.0, 0.6)
    V, T, runs = TwoMinima(left, right, 0.01), 0.12, 3000
    expected = odds(Well(0.0, math.log(2.0)), Well(0.0, math.log(18.0)), T)
    assert expected == pytest.approx(3)
    for lr in (0.004, 0.008):
        rule = HeavyBall(lr, lr / (2 * T) * 500)
        assert sgd_temperature(rule, 500.0) == pytest.approx(T)
        start = np.resize([-0.6, -0.6, -0.6, 0.6], runs)
        ends = simulate_noisy_descent(V, rule, 500.0, steps=round(8 / lr), start=start)
        share = (ends < V.crossing[0]).mean()
        # wells that are no parabolas at this temperature, and steps that are not small: 2 % of the runs
        assert abs(share - 0.75) < 5 * math.sqrt(0.75 * 0.25 / runs) + 0.02


def test_refuses_with_a_sentence():
    with pytest.raises(BadInput, match=r"runs is 1, start -1\.0 and beyond 1\.0; give two runs and two places"):
        simulate_escape(WELL, HeavyBall(0.1), 1.0, start=-1.0, beyond=1.0, limit=5, runs=1)
    with pytest.raises(BadInput, match="limit is 0"):
        simulate_escape(WELL, HeavyBall(0.1), 1.0, start=-1.0, beyond=1.0, limit=0)
    with pytest.raises(BadInput, match=r"temperature is 0\.0"):
        mean_first_passage(WELL, 0.0, start=-1.0, beyond=1.0)
    with pytest.raises(BadInput, match=r"batch_over_lr has shape \(2,\) and times \(1,\)"):
        fit_escape([1.0, 2.0], [1.0])
    with pytest.raises(BadInput, match=r"barrier is -1\.0"):
        kramers_time(barrier=-1.0, at_minimum=1.0, at_barrier=-1.0, temperature=0.1)


def test_a_run_that_leaves_for_infinity_has_not_escaped():
    """With lr far above the stability limit the cubic slope throws a run to and fro until it overflows."""
    with pytest.raises(FloatingPointError, match="left for infinity"):
        simulate_escape(DoubleWell(1.0), HeavyBall(10.0), 1.0, start=-1, beyond=1e300, limit=50, runs=3)
    with pytest.raises(BadInput, match="two places"):
        simulate_escape(DoubleWell(1.0), HeavyBall(0.01), 1.0, start=-1, beyond=math.nan, limit=50, runs=3)


@pytest.mark.parametrize(("x", "times"), [([1, 2, 3, math.inf], [1, 2, 3, 4]), ([1, 2, 3, 4], [1, 2, 3, math.nan])])
def test_escape_times_that_are_none_are_refused(x, times):
    with pytest.raises(BadInput, match="not positive"):
        fit_escape(x, times)
