"""Oracle: scipy.stats and numpy; the interval's coverage by simulation, with a band fixed beforehand."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from gengap.core.estimate import Estimate, mean, paired_difference, paired_ratio

SMALL = [97.1, 98.4, 96.9, 98.0, 97.7]
LARGE = [95.2, 96.8, 95.9, 95.1, 96.3]


@pytest.mark.parametrize("values", [SMALL, [1.0, 2.0], [-3.0, 0.0, 5.0, 1e-9], list(np.geomspace(1e-6, 1e6, 30))])
def test_mean_is_that_of_scipy(values):
    found = mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.value == pytest.approx(np.mean(values), rel=1e-12)
    assert found.stdev == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert found.stderr == pytest.approx(stats.sem(values), rel=1e-12)
    assert found.interval == pytest.approx((low, high), rel=1e-9)
    assert found.n == len(values)
    assert "95 %" in found.method


def test_mean_of_numbers_that_nearly_cancel():
    values = [1e15 + 1, 1e15 + 2, 1e15 + 4]
    # floats of this size are 1/8 apart, and so is their mean from the true one; a sum of squares would lose all digits
    assert mean(values).stdev == pytest.approx(math.sqrt(7 / 3), rel=2e-3)


def test_paired_difference_is_that_of_scipy():
    found = paired_difference(SMALL, LARGE)
    test = stats.ttest_rel(LARGE, SMALL)
    assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    by_hand = np.array([-1.9, -1.6, -1.0, -2.9, -1.4])
    assert found.value == pytest.approx(by_hand.mean(), rel=1e-12)
    assert found.stdev == pytest.approx(by_hand.std(ddof=1), rel=1e-12)
    assert found.n == 5
    assert found.method.startswith("paired difference")


def test_pairing_removes_what_the_seeds_share():
    seeds = [0.0, 100.0, -50.0]
    found = paired_difference(seeds, [x + 1 for x in seeds])
    assert (found.value, found.stdev, found.interval) == (1.0, 0.0, (1.0, 1.0))


def test_paired_ratio_is_a_geometric_mean():
    first, second = [1.0, 2.0, 4.0], [10.0, 10.0, 160.0]
    logs = np.log([10.0, 5.0, 40.0])
    found = paired_ratio(first, second)
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert found.value == pytest.approx(2000 ** (1 / 3), rel=1e-12)
    assert found.stdev == pytest.approx(logs.std(ddof=1), rel=1e-12)
    assert found.interval == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_ratio_needs_positive_numbers(bad):
    assert paired_ratio([1.0, 2.0], [1.0, bad]) is None
    assert paired_ratio([bad, 2.0], [1.0, 2.0]) is None


def test_one_observation_has_no_interval():
    for found in (mean([3.5]), paired_difference([1.0], [4.5]), paired_ratio([2.0], [7.0])):
        assert found.value == pytest.approx(3.5)
        assert (found.stdev, found.stderr, found.interval, found.n) == (None, None, None, 1)
    assert str(mean([3.5])) == "3.5 (n=1)"


def test_a_constant_has_an_interval_of_no_width():
    assert mean([0.0, 0.0, 0.0]) == Estimate(0.0, 0.0, 3, (0.0, 0.0), "Student t, 95 %")
    assert str(mean([2.0, 3.0])) == "2.5 ± 0.71 (n=2)"


@pytest.mark.parametrize("estimate", [mean, lambda x: paired_difference(x, x), lambda x: paired_ratio(x, x)])
def test_nothing_observed(estimate):
    with pytest.raises(ValueError, match="at least one observation"):
        estimate([])


@pytest.mark.parametrize("estimate", [paired_difference, paired_ratio])
def test_pairs_must_be_pairs(estimate):
    with pytest.raises(ValueError, match="shorter"):
        estimate([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    "values",
    [[math.nan], [math.nan, 1.0], [math.inf, 1.0], [math.inf, -math.inf], [1e200, 1.0], [1e308, 1e308]],
    ids=str,
)
def test_json_has_no_word_for_what_is_not_finite(values):
    told = json.loads(json.dumps(mean(values).to_dict(), allow_nan=False))
    assert told["n"] == len(values)
    assert set(told) == {"value", "stdev", "n", "interval", "method"}
    for x in (told["value"], told["stdev"], *(told["interval"] or [])):
        assert x is None or math.isfinite(x)


def test_a_ratio_whose_interval_overflows():
    found = paired_ratio([1e-150, 1.0], [1.0, 1.0])
    assert found.interval == (0.0, math.inf)
    assert found.to_dict()["interval"] == [0.0, None]


def test_json_form():
    told = mean([1.0, 3.0]).to_dict()
    assert (told["value"], told["stdev"], told["n"]) == (2.0, pytest.approx(math.sqrt(2)), 2)
    assert told["interval"] == pytest.approx([2 - 12.706204736, 2 + 12.706204736], rel=1e-9)


def test_the_interval_covers_the_truth_in_95_of_100():
    """3,000 experiments of 5: 5 standard errors are 2.0 %; an interval from the normal quantile covers 87.8 %."""
    experiments, truth, rng = 3000, 1.7, np.random.default_rng(20240)
    hits = ratio_hits = 0
    for first, noise in rng.normal(size=(experiments, 2, 5)).tolist():
        low, high = mean([truth + x for x in first]).interval
        hits += low <= truth <= high
        second = [math.exp(x + 0.3 * y) * truth for x, y in zip(first, noise, strict=True)]
        low, high = paired_ratio([math.exp(x) for x in first], second).interval
        ratio_hits += low <= truth <= high
    band = 5 * math.sqrt(0.95 * 0.05 / experiments)
    assert band < 0.95 - 0.878
    assert abs(hits / experiments - 0.95) < band
    assert abs(ratio_hits / experiments - 0.95) < band
