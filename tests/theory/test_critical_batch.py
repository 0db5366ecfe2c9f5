# Oracles: simulated seeds with a known curve (coverage bands fixed beforehand); the MLPerf reference convergence points,
# fitted again by scipy's curve_fit; the trade-off of steps and samples as an identity; means and medians written out.
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from gengap.core.errors import BadInput
from gengap.theory.cost_laws import MCCANDLISH, fit_law, region
from gengap.theory.cost_points import cost_points
from gengap.theory.critical_batch import fit_critical_batch, means_of, numbers

SIZES = np.geomspace(16, 4096, 8)


def seeds(curve, *, noise, count=3, scatter=0.0, sizes=SIZES, seed=0):
    """Batch sizes and samples of `count` runs each; `scatter` is common to the runs of a batch size."""
    rng = np.random.default_rng(seed)
    batch = np.repeat(sizes, count)
    tuning = np.repeat(scatter * rng.normal(size=len(sizes)), count)
    return batch, curve(batch) * np.exp(tuning + noise * rng.normal(size=len(batch)))


def rising(b_crit, e_min=1e5):
    return lambda batch: e_min * (1 + batch / b_crit)


def mlperf(name):
    task = json.loads(Path(__file__).with_name("mlperf_points.json").read_text())[name]
    pairs = [(float(batch), count) for batch, counts in task["runs"].items() for count in counts]
    batch, counts = np.array(pairs).T
    return batch, counts * task["samples_per_unit"]


def test_resnet_50_on_imagenet():
    batch, samples = mlperf("resnet")
    found = fit_critical_batch(batch, samples)
    assert (found.verdict, found.law) == ("resolved", "McCandlish")
    assert found.b_crit.value == pytest.approx(47_000, rel=0.01)
    low, high = found.b_crit.interval
    assert 40_000 < low < 43_000 < 52_000 < high < 56_000
    assert max(abs(p.residual_percent) for p in found.points) < 6.2
    assert found.s_min.value == pytest.approx(945, rel=0.01)
    assert "unequal tuning" in found.notes[0]
    # seeds agree to a percent and batch sizes do not: every batch size counts about the same
    sizes = np.unique(batch)
    means = [np.log(samples[batch == size]).mean() for size in sizes]
    (bend, level), _ = curve_fit(lambda x, b, a: a + np.log1p(np.exp(x - b)), np.log(sizes), means, p0=(10, 17))
    assert found.b_crit.value == pytest.approx(math.exp(bend), rel=2e-3)
    assert found.e_min.value == pytest.approx(math.exp(level), rel=2e-3)


def test_bert():
    """The law holds less well here: up to 12 % at one batch size; that is reported, not hidden."""
    found = fit_critical_batch(*mlperf("bert"))
    assert (found.verdict, found.law) == ("resolved", "McCandlish")
    assert found.b_crit.value == pytest.approx(12_700, rel=0.01)
    assert found.e_min.value == pytest.approx(2.33e6, rel=0.01)
    worst = max(found.points, key=lambda p: abs(p.residual_percent))
    assert (worst.batch_size, worst.residual_percent) == (4608, pytest.approx(-12.0, abs=0.3))
    assert [law.name for law in found.laws[:3]] == ["McCandlish", "power form", "three regimes"]


@pytest.mark.parametrize(
    ("b_crit", "count", "noise", "scatter", "sizes"),
    [(500, 3, 0.1, 0.0, SIZES), (2000, 3, 0.05, 0.1, SIZES), (100, 5, 0.1, 0.0, SIZES[::2])],
    ids=["seeds only", "scatter of tuning", "four batch sizes"],
)
def test_intervals_cover_the_truth_in_95_of_100(b_crit, count, noise, scatter, sizes):
    """200 data sets: 5 standard errors are 7.7 %. Normal quantiles with four batch sizes would cover 81 %."""
    experiments, hits = 200, np.zeros(4)
    for seed in range(experiments):
        data = seeds(rising(b_crit), noise=noise, count=count, scatter=scatter, sizes=sizes, seed=seed)
        fit = fit_law(MCCANDLISH, means_of(cost_points(*data)[0]))
        bounds = region(fit)
        intervals = [number.interval for number in numbers(fit, bounds)]
        hits[:3] += [low <= t <= high for t, (low, high) in zip((b_crit, 1e5, 1e5 / b_crit), intervals, strict=True)]
        low, high = np.exp(bounds.band(np.log([1000.0])))
        hits[3] += low[0] <= rising(b_crit)(1000) <= high[0]
    assert np.abs(hits / experiments - 0.95).max() < 5 * math.sqrt(0.95 * 0.05 / experiments)


def test_the_public_fit_gives_those_intervals():
    data = seeds(rising(500), noise=0.1)
    found = fit_critical_batch(*data)
    fit = fit_law(MCCANDLISH, means_of(cost_points(*data)[0]))
    assert (found.b_crit, found.e_min, found.s_min) == numbers(fit, region(fit))


def test_the_trade_off_of_steps_and_samples():
    found = fit_critical_batch(*seeds(rising(500), noise=0.1))
    batch = np.array([[20.0, 100.0], [500.0, 9000.0]])
    left = (found.steps(batch) / found.s_min.value - 1) * (found.samples(batch) / found.e_min.value - 1)
    assert left == pytest.approx(np.ones((2, 2)), rel=1e-6)
    assert found.samples(found.b_crit.value) == pytest.approx(2 * found.e_min.value, rel=1e-6)


def test_the_band_is_around_the_curve_and_widens_outside():
    found = fit_critical_batch(*seeds(rising(500), noise=0.1))
    batch = np.array([4.0, 500.0, 1e6])
    low, high = found.band(batch)
    assert (low < found.samples(batch)).all()
    assert (found.samples(batch) < high).all()
    widths = np.log(high / low)
    assert widths[1] < widths[0] < widths[2]


def test_small_batches_only_bound_it_from_below():
    found = fit_critical_batch(*seeds(rising(20_000), noise=0.05, sizes=np.geomspace(4, 512, 8)))
    assert found.verdict == "lower bound"
    assert found.b_crit.value is None
    assert 512 < found.b_crit.interval[0] < 20_000
    assert found.b_crit.interval[1] == math.inf
    assert str(found.b_crit).startswith("at least ")
    assert str(found.b_crit) in found.reason
    assert found.e_min.value == pytest.approx(1e5, rel=0.1)
    assert str(found.s_min).startswith("at most ")


def test_constant_steps_only_bound_it_from_above():
    found = fit_critical_batch(*seeds(rising(3), noise=0.05, sizes=np.geomspace(256, 8192, 6)))
    assert found.verdict == "upper bound"
    assert found.b_crit.interval[0] == 0
    assert 3 < found.b_crit.interval[1] < 256
    assert str(found.b_crit) in found.reason
    assert found.e_min.value is None
    assert found.s_min.value == pytest.approx(1e5 / 3, rel=0.1)


def test_noise_that_hides_everything():
    found = fit_critical_batch(*seeds(rising(64), noise=3.0, count=1, sizes=np.array([32, 48, 64, 96])))
    assert found.verdict == "not resolvable"
    assert str(found.b_crit) == "not resolvable"
    assert "hides whether samples or steps are the constant" in found.reason


def test_bounds_hold_where_they_are_one_sided():
    """200 data sets at the border of what can be told: ends, where there are any, cover in 95 of 100."""
    hits, one_sided = 0, 0
    for seed in range(200):
        data = seeds(rising(3000), noise=0.1, sizes=np.geomspace(8, 512, 6), seed=seed)
        fit = fit_law(MCCANDLISH, means_of(cost_points(*data)[0]))
        bounds = region(fit)
        b_crit, *_ = numbers(fit, bounds)
        one_sided += bounds.no_most
        hits += b_crit.interval[0] <= 3000 <= b_crit.interval[1]
    assert 50 < one_sided < 200
    assert abs(hits / 200 - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 200)


@pytest.mark.parametrize(
    ("curve", "law"),
    [
        (lambda b: 1e5 * (1 + (b / 500) ** 2), "power form"),
        (
            lambda b: 1e5 * np.where(b < 60, 1, np.where(b < 1000, (b / 60) ** 0.3, (1000 / 60) ** 0.3 * b / 1000)),
            "three",
        ),
        (rising(500), "McCandlish"),
        (lambda b: 1e5 * b**0, "McCandlish"),
    ],
    ids=["square", "three regimes", "McCandlish", "perfect"],
)
def test_the_law_behind_the_points_is_named(curve, law):
    found = fit_critical_batch(*seeds(curve, noise=0.02, sizes=np.geomspace(16, 8192, 12)))
    assert found.law.startswith(law)
    assert "AICc lower by" in found.law_reason
    best = found.laws[0]
    assert best.aicc == 0
    if law == "three":
        assert best.parameters["perfect_until"] == pytest.approx(60, rel=0.3)
        assert best.parameters["stagnation_from"] == pytest.approx(1000, rel=0.3)
        assert best.parameters["exponent"] == pytest.approx(0.3, abs=0.05)
    if law == "power form":
        assert (best.parameters["exponent"], found.s_min) == (pytest.approx(2, abs=0.2), None)
        assert found.b_crit.interval[0] < 500 < found.b_crit.interval[1]


def test_misses():
    """One of three misses: the median. Two of three: left out. Its own mean would be too low."""
    sizes = np.array([16, 64, 256, 1024, 4096])
    batch, samples = seeds(rising(500), noise=0.1, sizes=sizes)
    samples = samples.reshape(5, 3)
    samples[3, 0], samples[4, :2] = math.nan, math.inf
    found = fit_critical_batch(batch, samples.ravel())
    point = found.points[3]
    assert point.samples == pytest.approx(max(samples[3, 1:]), rel=1e-12)
    assert (point.used, point.missed, found.points[4].used, found.points[4].residual_percent) == (True, 1, False, None)
    assert found.notes[:2] == (
        "batch 1,024: 1 of 3 runs missed the target; their median stands for the mean",
        "batch 4,096: 2 of 3 runs missed the target; left out, since the others alone would be too low",
    )
    assert found.b_crit.n == 4
    assert cost_points([8, 8], [1.0, None])[0][0].samples is None


def test_the_error_of_a_median():
    """About pi / 2 times the variance of a mean, with the spread that the other batch sizes show."""
    logs = np.array([[1.0, 1.2, 1.1, 0.9], [1.5, 1.1, 1.3, 1.2]])
    whole, runs = np.exp(logs).ravel().tolist(), [5.0, 6.0, 4.0, math.inf]
    point = cost_points([8] * 4 + [16] * 4 + [32] * 4, whole + runs)[0][2]
    assert point.log_stderr**2 == pytest.approx(math.pi / 2 * logs.var(axis=1, ddof=1).mean() / 4, rel=1e-9)


def test_perfect_scaling_is_a_bound_and_not_a_law():
    """With five batch sizes its AICc may well be lower by more than 6."""
    found = fit_critical_batch([8, 16, 32, 64, 128], [100.0, 101.0, 99.0, 100.5, 99.5])
    assert (found.laws[0].name, found.laws[1].aicc > 6) == ("perfect scaling", True)
    assert (found.law, found.verdict) == ("McCandlish", "lower bound")


def test_a_median_of_an_even_number_needs_both_of_its_middle():
    assert cost_points([8] * 4, [1, 2, 3, math.inf])[0][0].samples == pytest.approx(math.sqrt(6))
    assert cost_points([8] * 4, [1, 2, math.inf, math.inf])[0][0].samples is None
    assert cost_points([8] * 5, [1, 2, 4, math.inf, math.inf])[0][0].samples == pytest.approx(4)


def test_points_written_out():
    batch, samples = seeds(rising(500), noise=0.1, count=4)
    points, notes = cost_points(batch, samples)
    logs = np.log(samples).reshape(8, 4)
    common = logs.var(axis=1, ddof=1).mean()
    for point, row in zip(points, logs, strict=True):
        assert point.samples == pytest.approx(stats.gmean(np.exp(row)), rel=1e-12)
        low, high = stats.t.interval(0.95, 3, loc=row.mean(), scale=stats.sem(row))
        assert point.interval == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)
        assert point.log_stderr**2 == pytest.approx((4 * common + 3 * row.var(ddof=1)) / 7 / 4, rel=1e-9)
    assert notes == ()


def test_too_few_batch_sizes_is_an_outcome():
    found = fit_critical_batch([8, 16, 32, 32], [100.0, 120.0, 150.0, 140.0])
    assert str(found) == "not resolvable: 3 batch sizes reached the target; at least 4 are needed"
    assert (found.b_crit, found.law, len(found.points)) == (None, None, 3)
    with pytest.raises(BadInput, match="there is no curve: 3 batch sizes reached"):
        found.samples(8)
    assert fit_critical_batch([], []).verdict == "not resolvable"


def test_four_batch_sizes_cannot_compare_laws():
    found = fit_critical_batch([8, 64, 512, 4096], [100.0, 105.0, 200.0, 900.0])
    assert (found.law, found.laws[-1].aicc) == ("McCandlish", None)
    assert "4 batch sizes cannot compare laws" in found.law_reason


def test_a_critical_batch_that_was_not_run_is_noted():
    found = fit_critical_batch(*seeds(rising(2000), noise=0.01, sizes=np.geomspace(16, 1024, 7)))
    assert found.verdict == "resolved"
    assert found.notes == ("b_crit lies outside of the batch sizes that were run, 16 to 1,024",)


def test_the_record_is_json():
    for data in [seeds(rising(500), noise=0.1), seeds(rising(1e5), noise=0.1), ([8], [1.0])]:
        told = json.loads(json.dumps(fit_critical_batch(*data).to_dict(), allow_nan=False))
        assert set(told) >= {"verdict", "reason", "b_crit", "e_min", "s_min", "laws", "points"}
    told = fit_critical_batch(*seeds(rising(1e5), noise=0.1)).to_dict()["b_crit"]
    assert (told["value"], told["interval"][1]) == (None, None)


@pytest.mark.parametrize(
    ("batch", "samples", "sentence"),
    [
        ([8, 16], [1.0], r"batch_sizes has shape \(2,\) and samples \(1,\)"),
        ([8, -16], [1.0, 2.0], "batch_sizes holds -16; give numbers above zero"),
        ([8, math.nan], [1.0, 2.0], "batch_sizes holds nan"),
        ([8, 16], [1.0, 0.0], "samples holds 0; a target that is met at the start has no cost"),
    ],
)
def test_refuses_with_a_sentence(batch, samples, sentence):
    with pytest.raises(BadInput, match=sentence):
        fit_critical_batch(batch, samples)
    found = fit_critical_batch(*seeds(rising(500), noise=0.1))
    with pytest.raises(BadInput, match="batch_sizes holds -1; ask for sizes above zero"):
        found.band([-1.0])
