# Oracles: made steps with known latency, throughput and communication; scipy's curve_fit with the same weights; coverage
# of known times in simulated measurements.
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from gengap.core.errors import BadInput
from gengap.theory.step_time import fit_step_time

LATENCY, RATE, TALK = 0.004, 20_000.0, {1: 0.0, 4: 0.003, 16: 0.007}
GRID = [(batch, n) for batch, n in itertools.product((64, 256, 1024, 4096), TALK)]


def made(noise=0.0, seed=0, *, latency=LATENCY, talk=TALK):
    sizes, devices = np.array(GRID, dtype=float).T
    times = latency + sizes / devices / RATE + np.array([talk[int(n)] for n in devices])
    return sizes, times * (1 + noise * np.random.default_rng(seed).normal(size=len(sizes))), devices


def test_exact_steps_give_the_numbers_back():
    found = fit_step_time(*made())
    assert (found.latency.value, found.throughput) == (pytest.approx(LATENCY), pytest.approx(RATE))
    assert [(c.devices, pytest.approx(c.seconds.value)) for c in found.communication] == [(4, 0.003), (16, 0.007)]
    assert found.residual_percent < 1e-9
    assert found.seconds(512, 4).value == pytest.approx(LATENCY + 128 / RATE + 0.003)
    assert found.efficiency(512, 4) == pytest.approx(
        (LATENCY + 512 / RATE) / 4 / (LATENCY + 128 / RATE + 0.003), rel=1e-9
    )
    assert str(found) == "0.004 s a step + 1 s for 20,000 samples on a device (n=12)"


def test_devices_that_were_not_measured():
    found = fit_step_time(*made())
    # halfway between 4 and 16 in the logarithm; 2 is halfway between 1, which does not talk, and 4
    assert found.seconds(512, 8).value == pytest.approx(LATENCY + 64 / RATE + 0.005)
    assert found.seconds(512, 2).value == pytest.approx(LATENCY + 256 / RATE + 0.0015)
    assert found.seconds(512, 64).value == pytest.approx(LATENCY + 8 / RATE + 0.007)
    assert [found.measured(n) for n in (1, 2, 16, 17)] == [True, True, True, False]
    assert not fit_step_time([8, 16], [1.0, 1.5]).measured(2)


def test_another_fitter():
    sizes, times, devices = made(noise=0.05)
    found = fit_step_time(sizes, times, devices)
    values, covariance = curve_fit(
        lambda x, a, b, c4, c16: a + b * x[0] / x[1] + c4 * (x[1] == 4) + c16 * (x[1] == 16),
        np.stack([sizes, devices]), times, sigma=times,
    )  # fmt: skip
    mine = [found.latency, found.sample_seconds, *(c.seconds for c in found.communication)]
    assert [c.value for c in mine] == pytest.approx(values, rel=1e-5)
    assert [c.stderr for c in mine] == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-4)
    assert np.array(found.covariance) == pytest.approx(covariance, rel=1e-4)
    row = np.array([1, 512 / 8, 0.5, 0.5])
    assert found.seconds(512, 8).stderr == pytest.approx(math.sqrt(row @ covariance @ row), rel=1e-4)
    half = stats.t.ppf(0.975, len(sizes) - 4) * mine[0].stderr
    assert mine[0].interval == pytest.approx((values[0] - half, values[0] + half), rel=1e-4)


def test_intervals_cover_the_truth_in_95_of_100():
    """400 experiments with errors of 5 %: 5 standard errors are 5.4 %."""
    hits = np.zeros(4)
    for seed in range(400):
        found = fit_step_time(*made(noise=0.05, seed=seed))
        known = [
            (found.latency, LATENCY),
            (found.sample_seconds, 1 / RATE),
            (found.communication[1].seconds, 0.007),
            (found.seconds(2048, 8), LATENCY + 256 / RATE + 0.005),
        ]
        hits += [c.interval is not None and c.interval[0] <= truth <= c.interval[1] for c, truth in known]
    assert np.abs(hits / 400 - 0.95).max() < 5 * math.sqrt(0.95 * 0.05 / 400)


def test_nothing_is_negative():
    """Without latency the least squares would often put it below zero."""
    found = [
        fit_step_time(*made(noise=0.05, seed=seed, latency=0.0, talk=dict.fromkeys(TALK, 0.0))) for seed in range(20)
    ]
    held = [f for f in found if f.latency.value == 0]
    assert 0 < len(held) < 20
    for f in held:
        assert (f.latency.interval, f.latency.method) == (None, "held at zero, where the fit would be below")
        assert f.seconds(64).interval is not None
    assert all(c.seconds.value >= 0 for f in found for c in f.communication)


def test_steps_whose_time_does_not_depend_on_their_size():
    found = fit_step_time([8, 16, 32, 64], [0.011, 0.0105, 0.01, 0.0101])
    assert (found.sample_seconds.value, found.throughput) == (0, math.inf)
    assert str(found).endswith("s a step at any size (n=4)")


def test_two_measurements_have_no_interval():
    found = fit_step_time([8, 16], [1.0, 1.5])
    assert (found.latency.interval, found.covariance, found.seconds(32).interval) == (None, None, None)
    assert found.seconds(32).value == pytest.approx(2.5)


def test_the_record_is_json():
    assert json.loads(json.dumps(fit_step_time(*made(noise=0.05)).to_dict(), allow_nan=False))["n"] == 12


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([8, 16], [1.0]), r"have shapes \(2,\), \(1,\) and \(2,\)"),
        (([8, 16], [1.0, 0.0]), "seconds holds a number that is not positive"),
        (([8, 16], [1.0, 2.0], [0, 1]), "devices holds a number that is not positive"),
        (([8, 16], [1.0, 2.0], [1, 1.5]), "devices holds 1.5; give whole numbers"),
        (([8, 16], [1.0, 2.0], [1, 2]), r"all devices had \[8.0\] samples a step; latency and throughput need two"),
    ],
)
def test_refuses_with_a_sentence(arguments, sentence):
    with pytest.raises(BadInput, match=sentence):
        fit_step_time(*arguments)


@pytest.mark.parametrize(("batch_size", "devices"), [(-5, 1), (0, 1), (8, 0), (math.nan, 1)])
def test_there_is_no_step_without_samples_or_devices(batch_size, devices):
    with pytest.raises(BadInput, match="more than 0 samples"):
        fit_step_time([8, 16], [1.0, 1.5]).seconds(batch_size, devices)
