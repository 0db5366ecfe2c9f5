# Oracles: scipy.stats.linregress and scipy.optimize.curve_fit; data made from known laws; coverage of the intervals in
# simulated experiments, with bands fixed beforehand.
import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from gengap.core.errors import BadInput
from gengap.theory.diffusion import fit_log_time, fit_power_law

T = np.geomspace(1, 1e4, 40)


def autoregression(n, rho, rng):
    """Errors of unit variance whose neighbours correlate by rho."""
    errors = [rng.normal()]
    for kick in rng.normal(size=n - 1):
        errors.append(rho * errors[-1] + math.sqrt(1 - rho**2) * kick)
    return np.array(errors)


def covers(coefficient, truth):
    low, high = coefficient.interval
    return low <= truth <= high


def test_the_log_law_is_the_regression_of_scipy():
    d = 2 + 3 * np.log(T) + np.random.default_rng(0).normal(size=len(T))
    found, theirs = fit_log_time(T, d), stats.linregress(np.log(T), d)
    quantile = stats.t.ppf(0.975, len(T) - 2)
    for ours, value, stderr in [
        (found.slope, theirs.slope, theirs.stderr),
        (found.intercept, theirs.intercept, theirs.intercept_stderr),
    ]:
        assert ours.value == pytest.approx(value, rel=1e-12)
        assert ours.stderr == pytest.approx(stderr, rel=1e-10)
        assert ours.interval == pytest.approx((value - quantile * stderr, value + quantile * stderr), rel=1e-10)
    assert found.r_squared == pytest.approx(theirs.rvalue**2, rel=1e-12)
    residuals = d - theirs.intercept - theirs.slope * np.log(T)
    assert found.rss == pytest.approx(sum(residuals**2), rel=1e-12)
    assert found.correlation == pytest.approx(sum(residuals[1:] * residuals[:-1]) / sum(residuals**2), rel=1e-9)
    assert (found.n, found.bootstrap_interval, found.block) == (40, None, None)


def test_exact_log_data():
    found = fit_log_time(T, 2 + 3 * np.log(T))
    assert (found.slope.value, found.intercept.value) == (pytest.approx(3, rel=1e-13), pytest.approx(2, rel=1e-12))
    assert found.r_squared == pytest.approx(1, abs=1e-13)
    assert found.slope.stderr < 1e-12


@pytest.mark.parametrize("exponent", [-0.7, -0.01, 0.02, 0.3, 0.5, 1.0, 2.7])
@pytest.mark.parametrize("offset", [0.0, -4.0])
def test_exact_power_data(exponent, offset):
    d = 3 * T**exponent + offset
    found = fit_power_law(T, d, offset=bool(offset))
    assert found.exponent.value == pytest.approx(exponent, rel=1e-6)
    assert found.factor.value == pytest.approx(3, rel=1e-6)
    assert found.r_squared == pytest.approx(1, abs=1e-10)
    if offset:
        assert found.offset.value == pytest.approx(offset, rel=1e-5, abs=1e-8 * abs(d).max())
    else:
        assert found.offset is None


@pytest.mark.parametrize("offset", [False, True])
def test_the_power_law_is_the_curve_fit_of_scipy(offset):
    d = 3 * T**0.4 + 2 * offset + np.random.default_rng(1).normal(size=len(T))
    found = fit_power_law(T, d, offset=offset)
    law = (lambda t, a, b, c: a * t**b + c) if offset else (lambda t, a, b: a * t**b)
    theirs, covariance = curve_fit(law, T, d, p0=[3, 0.4, 2][: 2 + offset], xtol=1e-14, ftol=1e-14)
    ours = [found.factor, found.exponent, found.offset][: 2 + offset]
    assert [c.value for c in ours] == pytest.approx(theirs, rel=1e-5)
    assert [c.stderr for c in ours] == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-3)
    assert found.rss == pytest.approx(((d - law(T, *theirs)) ** 2).sum(), rel=1e-9)


def test_the_power_law_is_fitted_to_distances_not_to_logarithms():
    """One small distance that is off by half: its logarithm would pull the line, its residual of 0.5 does not."""
    d = T**0.5
    d[0] = 0.5
    assert fit_power_law(T, d).exponent.value == pytest.approx(0.5, abs=1e-3)
    assert stats.linregress(np.log(T), np.log(d)).slope > 0.505


def test_the_log_law_is_a_power_law_with_offset_of_exponent_zero():
    rng = np.random.default_rng(2)
    found = [fit_power_law(T, 2 + 3 * np.log(T) + 0.1 * rng.normal(size=len(T)), offset=True) for _ in range(20)]
    assert sum(covers(f.exponent, 0) for f in found) >= 16
    assert abs(fit_power_law(T, 2 + 3 * np.log(T), offset=True).exponent.value) < 1e-6


def test_intervals_cover_the_truth_in_95_of_100():
    """300 experiments of 12 points: 5 standard errors are 6.3 %."""
    rng, t, experiments = np.random.default_rng(3), np.geomspace(10, 1e4, 12), 300
    hits = np.zeros(4)
    for _ in range(experiments):
        noise = rng.normal(size=len(t))
        log, power = fit_log_time(t, 1 + 2 * np.log(t) + noise), fit_power_law(t, 2 * t**0.4 + noise)
        hits += [
            covers(log.slope, 2),
            covers(log.intercept, 1),
            covers(power.factor, 2),
            covers(power.exponent, 0.4),
        ]
    assert np.abs(hits / experiments - 0.95).max() < 5 * math.sqrt(0.95 * 0.05 / experiments)


def test_residuals_that_remember_need_the_bootstrap():
    """Neighbours correlated by 0.6: the t interval covers 7 times in 10, that of blocks at least 84."""
    rng, t, experiments = np.random.default_rng(4), np.geomspace(1, 1e4, 200), 200
    plain = blocks = 0
    for seed in range(experiments):
        d = 1 + 2 * np.log(t) + autoregression(len(t), 0.6, rng)
        found = fit_log_time(t, d, resamples=200, seed=seed)
        plain += covers(found.slope, 2)
        low, high = found.bootstrap_interval
        blocks += low <= 2 <= high
        assert 3 <= found.block <= 20
    assert plain / experiments < 0.8
    assert blocks / experiments > 0.84


def test_blocks_of_one_point_give_the_interval_of_independent_residuals():
    """On 8 points, where residuals are a good deal smaller than errors; 4,000 resamples know a deviation to 1.1 %."""
    t = np.geomspace(1, 1e4, 8)
    d = 1 + 2 * np.log(t) + np.random.default_rng(5).normal(size=8)
    found = fit_log_time(t, d, resamples=4000, block=1)
    low, high = found.bootstrap_interval
    assert found.block == 1
    assert (high - low) / 2 == pytest.approx(1.96 * found.slope.stderr, rel=0.056)
    assert (high + low) / 2 == pytest.approx(found.slope.value, rel=1e-12)
    assert found == fit_log_time(t, d, resamples=4000, block=1)
    assert found != fit_log_time(t, d, resamples=4000, block=1, seed=1)


def test_the_order_of_the_points_does_not_matter():
    rng = np.random.default_rng(6)
    d, order = np.log(T) + 0.1 * rng.normal(size=len(T)), rng.permutation(len(T))
    assert fit_log_time(T[order], d[order]) == fit_log_time(T, d)
    assert fit_power_law(T[order], d[order]) == fit_power_law(T, d)


@pytest.mark.parametrize("law", [fit_log_time, fit_power_law])
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_do_not_matter(law, scale):
    d = 2 + np.log(T) + 0.1 * np.random.default_rng(7).normal(size=len(T))
    plain, scaled = law(T, d), law(T, scale * d)
    assert scaled.r_squared == pytest.approx(plain.r_squared, rel=1e-9)
    if law is fit_power_law:
        assert scaled.exponent.value == pytest.approx(plain.exponent.value, rel=1e-7)
    else:
        assert scaled.slope.value == pytest.approx(scale * plain.slope.value, rel=1e-12)


def test_a_jump_is_no_power_law_but_no_error_either():
    found = fit_power_law(T, (T > 9000).astype(float))
    assert found.exponent.value == pytest.approx(10)
    assert math.isfinite(found.factor.value)


def test_records_are_json_and_print():
    d = 2 + 3 * np.log(T) + np.random.default_rng(0).normal(size=len(T))
    told = json.loads(json.dumps(fit_log_time(T, d, resamples=100).to_dict(), allow_nan=False))
    assert set(told["slope"]) == {"value", "stderr", "interval", "n", "method"}
    assert len(told["bootstrap_interval"]) == 2
    assert "independent" in told["slope"]["method"]
    assert "ln t + " in str(fit_log_time(T, d))
    assert json.loads(json.dumps(fit_power_law(T, d).to_dict()))["offset"] is None
    assert "t^b + " in str(fit_power_law(T, d, offset=True))
    flat = fit_log_time(T, np.ones_like(T))
    assert (flat.r_squared, flat.slope.value) == (None, 0)


@pytest.mark.parametrize("law", [fit_log_time, fit_power_law])
@pytest.mark.parametrize(
    ("steps", "distances", "sentence"),
    [
        ([1, 2, 3], [1, 2], r"steps has shape \(3,\) and distances \(2,\)"),
        ([0, 1, 2], [0, 1, 2], "steps holds 0, which has no logarithm; leave out the start"),
        ([1, 2, 3], [1, 2, math.nan], "a number that is not finite; leave out what came after a divergence"),
        ([1, 1, 2], [1, 2, 3], "there are 2 distinct steps; a fit needs at least 3"),
    ],
)
def test_refuses_with_a_sentence(law, steps, distances, sentence):
    with pytest.raises(BadInput, match=sentence):
        law(steps, distances)


def test_refuses_what_leaves_the_law_open():
    with pytest.raises(BadInput, match="the distances are all 0, which any exponent fits"):
        fit_power_law(T, np.zeros_like(T))
    with pytest.raises(BadInput, match="the distances are all 2"):
        fit_power_law(T, np.full_like(T, 2), offset=True)
    with pytest.raises(BadInput, match="block is 41; give a number of points from 1 to 40"):
        fit_log_time(T, T, resamples=100, block=41)
    with pytest.raises(BadInput, match="resamples is 10; give at least 100, or 0"):
        fit_log_time(T, T, resamples=10)
