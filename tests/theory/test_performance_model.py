# Oracles: the example of Keskar et al. and their inequality; the closed form of the fastest batch size; times and costs
# multiplied out; and Monte Carlo over both fits for the intervals.
import json
import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.critical_batch import fit_critical_batch
from gengap.theory.performance_model import large_batch_race, plan_training
from gengap.theory.step_time import fit_step_time

SIZES = 2.0 ** np.arange(4, 14)
LATENCY, RATE, TALK = 0.004, 20_000.0, 0.002
B_CRIT, E_MIN = 1000.0, 1e6


def cost(noise=0.0, seed=0, sizes=SIZES):
    batch = np.repeat(sizes, 2)
    wobble = noise * np.random.default_rng(seed).normal(size=len(batch))
    return fit_critical_batch(batch, E_MIN * (1 + batch / B_CRIT) * np.exp(wobble))


def step(noise=0.0, seed=0):
    batch, devices = (a.ravel() for a in np.meshgrid(SIZES[2:], [1.0, 8.0]))
    times = LATENCY + batch / devices / RATE + TALK * (devices == 8)
    return fit_step_time(batch, times * (1 + noise * np.random.default_rng(seed).normal(size=len(batch))), devices)


def true_seconds(batch, n):
    return E_MIN * (1 / batch + 1 / B_CRIT) * (LATENCY + batch / n / RATE + TALK * (n == 8))


def test_the_example_of_the_paper():
    found = large_batch_race(batch_ratio=0.1, small_efficiency=0.2)
    assert found.break_even == pytest.approx(0.5)
    assert (found.verdict, found.speedup) == ("not resolvable", None)
    assert "less than 0.5 times the iterations" in str(found)


@pytest.mark.parametrize("iterations", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("large_efficiency", [1.0, 0.8])
def test_the_inequality(iterations, large_efficiency):
    """P = 64, B_s = 100, B_l = 1000, I_s = 10,000: who needs less time?"""
    found = large_batch_race(
        batch_ratio=0.1, small_efficiency=0.2, large_efficiency=large_efficiency, iteration_ratio=iterations
    )
    small, large = 10_000 * 100 / (64 * 0.2), iterations * 10_000 * 1000 / (64 * large_efficiency)
    assert found.speedup == pytest.approx(small / large)
    expected = "equal" if math.isclose(small, large) else "large batch" if large < small else "small batch"
    assert found.verdict == expected


def test_a_race_from_what_was_measured():
    """With the efficiencies of the step-time model the race compares the model's times."""
    clock, n, small, large = step(), 8, 64.0, 4096.0
    ratio = (1 + large / B_CRIT) / large / ((1 + small / B_CRIT) / small)
    found = large_batch_race(
        batch_ratio=small / large * clock.seconds(small).value / small / (clock.seconds(large).value / large),
        small_efficiency=clock.efficiency(small, n),
        large_efficiency=clock.efficiency(large, n),
        iteration_ratio=ratio,
    )
    assert found.speedup == pytest.approx(true_seconds(small, n) / true_seconds(large, n), rel=1e-6)


@pytest.mark.parametrize("n", [1, 8])
def test_the_fastest_batch_in_closed_form(n):
    fine = np.geomspace(16, 8192, 2000)
    found = plan_training(cost(), step(), devices=[n], batch_sizes=fine.tolist())
    best = math.sqrt(n * RATE * (LATENCY + TALK * (n == 8)) * B_CRIT)
    assert found.fastest[0].batch_size == pytest.approx(best, rel=4e-3)
    assert found.fastest[0].seconds == pytest.approx(true_seconds(best, n), rel=1e-4)


def test_every_way_multiplied_out():
    found = plan_training(cost(), step(), devices=[8, 1, 1])
    assert [(w.devices, w.batch_size) for w in found.ways] == [(n, b) for n in (1, 8) for b in SIZES]
    cheapest = min(n * true_seconds(b, n) for n in (1, 8) for b in SIZES)
    for way in found.ways:
        seconds = true_seconds(way.batch_size, way.devices)
        assert way.seconds == pytest.approx(seconds, rel=1e-4)
        assert way.steps == pytest.approx(E_MIN * (1 / way.batch_size + 1 / B_CRIT), rel=1e-4)
        assert way.device_hours == pytest.approx(way.devices * seconds / 3600, rel=1e-4)
        assert way.efficiency == pytest.approx(cheapest / (way.devices * seconds), rel=1e-4)
    assert max(way.efficiency for way in found.ways) == 1


def test_the_largest_batch_within_an_efficiency():
    found = plan_training(cost(), step(), devices=[1, 8, 64], least_efficiency=0.3)
    for n in (1, 8):
        within = [w for w in found.ways if w.devices == n and w.efficiency >= 0.3]
        assert next(w for w in found.efficient if w.devices == n) == within[-1]
    assert len(within) < len([w for w in found.ways if w.devices == 8])
    assert [w.devices for w in plan_training(cost(), step(), devices=[1, 8], least_efficiency=1.0).efficient] == [1]


def test_what_is_extrapolated_is_said():
    found = plan_training(cost(), step(), devices=[1, 8, 64], batch_sizes=[8, 64, 512, 16384])
    doubts = {(w.devices, w.batch_size): w.extrapolated for w in found.ways}
    assert doubts[1, 512] == doubts[8, 512] == ()
    assert doubts[1, 8] == ("batch",)
    assert doubts[1, 16384] == ("batch", "share of a device")
    assert doubts[64, 512] == ("communication",)
    assert (64, 8) not in doubts
    assert "; extrapolated: batch, share of a device" in str(next(w for w in found.ways if w.batch_size == 16384))


def test_intervals_cover_time_and_cost_in_95_of_100():
    """200 experiments, both fits noisy. Either error alone would cover too little: see the last line."""
    hits, alone = 0, 0
    truth = true_seconds(512, 8)
    for seed in range(200):
        found = plan_training(cost(0.02, seed, SIZES[::3]), step(0.15, 1000 + seed), devices=[8], batch_sizes=[512])
        (way,) = found.ways
        assert way.device_hours_interval == pytest.approx([8 / 3600 * end for end in way.seconds_interval])
        hits += way.seconds_interval[0] <= truth <= way.seconds_interval[1]
        alone += way.steps_interval[0] <= truth * way.steps / way.seconds <= way.steps_interval[1]
    assert abs(hits / 200 - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 200)
    assert alone / 200 < 0.95 - 5 * math.sqrt(0.95 * 0.05 / 200)


def test_without_spare_measurements_there_is_no_interval():
    found = plan_training(cost(0.05), fit_step_time([64, 512], [0.01, 0.03]), devices=[1])
    assert {way.seconds_interval for way in found.ways} == {None}
    assert all(way.steps_interval[0] < way.steps < way.steps_interval[1] for way in found.ways)
    assert "95 %" not in str(found)


def test_batch_sizes_that_are_not_given():
    """Those that were run, and powers of two between them."""
    batch = np.array([20.0, 60.0, 100.0, 300.0])
    found = plan_training(fit_critical_batch(batch, E_MIN + 1e3 * batch), step(), devices=[1])
    assert [way.batch_size for way in found.ways] == [20, 32, 60, 64, 100, 128, 256, 300]


def test_no_curve_no_plan():
    found = plan_training(fit_critical_batch([8, 16], [1.0, 1.0]), step(), devices=[1])
    assert (found.verdict, found.ways) == ("not resolvable", ())
    assert "no curve of samples-to-target: 2 batch sizes reached the target" in str(found)
    found = plan_training(cost(), step(), devices=[100_000])
    assert str(found) == "not resolvable: 100000 devices are more than the largest batch, 8,192, has samples"


def test_the_record_is_json():
    told = json.loads(json.dumps(plan_training(cost(0.05), step(0.05), devices=[1, 8]).to_dict(), allow_nan=False))
    assert {len(told["fastest"]), len(told["efficient"])} <= {1, 2}
    assert json.dumps(large_batch_race(batch_ratio=0.1, small_efficiency=0.2).to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: large_batch_race(batch_ratio=2.0, small_efficiency=0.2), "batch_ratio is 2; it lies above 0"),
        (lambda: large_batch_race(batch_ratio=0.1, small_efficiency=0.0), "small_efficiency is 0"),
        (
            lambda: large_batch_race(batch_ratio=0.1, small_efficiency=0.2, iteration_ratio=-1.0),
            "iteration_ratio is -1",
        ),
        (lambda: plan_training(cost(), step(), devices=[]), r"devices is \[\]"),
        (lambda: plan_training(cost(), step(), devices=[0, 1]), r"devices is \[0, 1\]; give at least one whole number"),
        (lambda: plan_training(cost(), step(), devices=[1.5]), r"devices is \[1.5\]; give at least one whole number"),
        (lambda: plan_training(cost(), step(), devices=[1], batch_sizes=[]), r"batch_sizes is \[\]; give at least one"),
        (lambda: plan_training(cost(), step(), devices=[1], least_efficiency=80), "least_efficiency is 80"),
    ],
)
def test_refuses_with_a_sentence(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
