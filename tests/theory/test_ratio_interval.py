# Oracles: the t test that Fieller's interval inverts, solved for its roots by brentq; a jackknife written as a loop; and
# coverage of known ratios in simulated experiments, with bands fixed beforehand.
import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from gengap.core.errors import BadInput
from gengap.theory.intervals import fieller, ratio_interval


def paired(n, top, bottom, seed, spread=1.0):
    """Correlated normal draws (0.5) with known means."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=n), rng.normal(size=n)
    return top + spread * common, bottom + spread * (0.5 * common + math.sqrt(0.75) * own)


def excess(r, a, b):
    """How far the t statistic of mean(a - r b) is above its 95 % quantile."""
    d = a - r * b
    return abs(d.mean()) / (d.std(ddof=1) / math.sqrt(len(d))) - stats.t.ppf(0.975, len(d) - 1)


def test_fieller_inverts_the_t_test():
    a, b = paired(10, 5.0, 3.0, seed=0)
    found = ratio_interval(a, b)
    low = brentq(excess, found.value - 5, found.value, args=(a, b), xtol=1e-12)
    high = brentq(excess, found.value, found.value + 20, args=(a, b), xtol=1e-12)
    assert found.interval == pytest.approx((low, high), rel=1e-9)
    assert (found.outcome, found.value) == ("bounded", pytest.approx(a.mean() / b.mean(), rel=1e-12))


def test_the_lower_end_where_the_denominator_may_be_zero():
    a, b = paired(10, 5.0, 0.1, seed=1)
    found, known = ratio_interval(a, b), ratio_interval(a, b, nonnegative=True)
    assert found.interval is None
    assert found.outcome == known.outcome == "denominator not distinguishable from zero"
    assert known.interval == pytest.approx((brentq(excess, 0, 1e4, args=(a, b), xtol=1e-12), math.inf), rel=1e-9)
    assert f"at least {known.interval[0]:.4g}; denominator not" in str(known)


@pytest.mark.parametrize("denominator", [1.95, 1.95999, 1.96, 1.96001, -1.9])
def test_the_lower_end_is_continuous_where_the_denominator_becomes_distinguishable(denominator):
    (low, _), _ = fieller(50.0, denominator, np.diag([1.0, 1.0]), 1.96, nonnegative=True)
    roots = np.roots([denominator**2 - 1.96**2 + 1e-300, -100 * denominator, 2500 - 1.96**2])
    assert low == pytest.approx(min(r for r in roots if r > 0), rel=1e-6)


def test_a_numerator_that_may_be_zero_leaves_no_gap():
    assert fieller(0.5, 0.1, np.eye(2), 1.96, nonnegative=True)[0] == (0.0, math.inf)
    assert fieller(0.5, 0.1, np.eye(2), 1.96)[0] is None


def test_ratios_of_nonnegative_means_stay_nonnegative():
    assert fieller(0.5, 10.0, np.eye(2), 1.96)[0][0] < 0
    (low, high), outcome = fieller(0.5, 10.0, np.eye(2), 1.96, nonnegative=True)
    assert (low, outcome) == (0.0, "bounded")
    assert high == fieller(0.5, 10.0, np.eye(2), 1.96)[0][1]
    # a squared norm that comes out significantly negative says nothing
    assert fieller(5.0, -10.0, np.eye(2), 1.96, nonnegative=True) == (
        (0.0, math.inf),
        "denominator not distinguishable from zero",
    )


def test_jackknife_as_a_loop():
    a, b = paired(7, 5.0, 3.0, seed=2)
    found = ratio_interval(a, b)
    without = np.array([np.delete(a, i).mean() / np.delete(b, i).mean() for i in range(7)])
    assert found.stderr == pytest.approx(math.sqrt(6 * without.var()), rel=1e-12)
    assert found.bias == pytest.approx(6 * (without.mean() - found.value), rel=1e-9)
    half = stats.t.ppf(0.975, 6) * found.stderr
    assert found.jackknife_interval == pytest.approx((found.value - found.bias - half, found.value - found.bias + half))


@pytest.mark.parametrize(("bottom", "nonnegative"), [(3.0, False), (0.6, False), (0.6, True), (0.05, True)], ids=str)
def test_fieller_covers_the_truth_in_95_of_100(bottom, nonnegative):
    """2,000 experiments of 10 draws: 5 standard errors are 2.4 %; the normal quantile would cover 91.8 %."""
    experiments, hits, unbounded = 2000, 0, 0
    for seed in range(experiments):
        found = ratio_interval(*paired(10, 2.0, bottom, seed), nonnegative=nonnegative)
        unbounded += found.outcome != "bounded"
        low, high = found.interval or (-math.inf, math.inf)
        if found.interval is None:  # the gap around zero, from the test itself
            hits += excess(2.0 / bottom, *paired(10, 2.0, bottom, seed)) <= 0
        else:
            hits += low <= 2.0 / bottom <= high
    band = 5 * math.sqrt(0.95 * 0.05 / experiments)
    assert band < 0.95 - 0.918
    assert abs(hits / experiments - 0.95) < band
    assert (unbounded == 0) == (bottom == 3.0)


def test_the_jackknife_covers_where_the_denominator_is_far_from_zero():
    """2,000 experiments of 30 draws, the denominator 16 standard errors from zero."""
    experiments, truth = 2000, 2.0 / 3.0
    found = [ratio_interval(*paired(30, 2.0, 3.0, seed)) for seed in range(experiments)]
    share = np.mean([low <= truth <= high for low, high in (f.jackknife_interval for f in found)])
    assert abs(share - 0.95) < 5 * math.sqrt(0.95 * 0.05 / experiments)
    stderrs, values = [f.stderr for f in found], [f.value for f in found]
    assert np.mean(stderrs) == pytest.approx(np.std(values, ddof=1), rel=5 / math.sqrt(2 * experiments))


def test_a_denominator_of_zero():
    found = ratio_interval([1.0, 3.0], [1.0, -1.0])
    assert (found.value, found.stderr, found.bias, found.jackknife_interval) == (math.inf, None, None, None)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["value"], told["interval"], told["n"]) == (None, None, 2)
    assert math.isnan(ratio_interval([1.0, -1.0], [1.0, -1.0]).value)


def test_draws_without_spread_are_exact():
    found = ratio_interval([3.0, 3.0, 3.0], [2.0, 2.0, 2.0])
    assert (found.value, found.stderr, found.interval, found.outcome) == (1.5, 0.0, (1.5, 1.5), "bounded")
    assert str(found) == "1.5 (95 % 1.5 to 1.5, n=3)"


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ([1.0], [1.0], r"numerators has shape \(1,\); give a vector of at least two draws"),
        ([1.0, 2.0], [[1.0, 2.0]], r"denominators has shape \(1, 2\)"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "there are 2 numerators and 3 denominators"),
        ([1.0, math.nan], [1.0, 2.0], "numerators holds 1 values that are not finite"),
    ],
)
def test_refuses_with_a_sentence(a, b, sentence):
    with pytest.raises(BadInput, match=sentence):
        ratio_interval(a, b)
