# Oracles: the expectations written out, the published recursion of an exponential average, a scan over ratios for
# Fieller's interval, and draws from normal distributions with known parameters.
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gengap.core.errors import BadInput
from gengap.measures.noise.arithmetic import (
    Averages,
    Parts,
    exponential_averages,
    squared_gradient_norm,
    trace_covariance,
)

positive = st.floats(1e-3, 1e3)


@given(norm=positive, trace=positive, small=st.integers(1, 500), more=st.integers(1, 5000))
def test_two_batch_sizes_solve_two_equations(norm, trace, small, more):
    big = small + more
    squares = (norm + trace / small, norm + trace / big, small, big)
    scale = norm + trace / small
    assert squared_gradient_norm(*squares) == pytest.approx(norm, abs=1e-11 * scale * big / more)
    assert trace_covariance(*squares) == pytest.approx(trace, abs=1e-11 * scale * small * big / more)


@given(
    norm=positive,
    trace=positive,
    parts=st.lists(st.tuples(st.floats(0.1, 10), st.integers(1, 100)), min_size=2, max_size=6),
)
def test_parts_of_any_sizes_and_weights_are_two_batch_sizes(norm, trace, parts):
    weights, sizes = zip(*parts, strict=True)
    noise = sum(w**2 * trace / b for w, b in parts)
    sum_of_squares = sum(w**2 * norm for w in weights) + noise
    square_of_sum = sum(weights) ** 2 * norm + noise
    found = Parts.of(weights, sizes).estimates(sum_of_squares, square_of_sum)
    assert found == pytest.approx((norm, trace), rel=1e-7)


def test_effective_sizes_are_the_sizes_where_those_are_plain():
    alike = Parts.of([0.25] * 4, [64] * 4)
    assert (alike.weight, alike.B_small, alike.B_big) == pytest.approx((1, 64, 256))
    by_samples = Parts.of([60 / 100, 40 / 100], [60, 40])
    assert by_samples.B_big == pytest.approx(100)
    by_passes = Parts.of([1 / 2, 1 / 2], [60, 40])
    assert by_passes.B_small == pytest.approx(48)  # the harmonic mean


def test_estimates_are_unbiased_for_uneven_parts():
    rng = np.random.default_rng(1)
    truth, deviations = np.array([0.3, -0.2, 0.1, 0.4]), np.array([1.0, 2.0, 0.5, 1.5])
    weights, sizes = [0.5, 0.3, 0.2], [8, 4, 2]
    draws = [
        rng.normal(truth, deviations / math.sqrt(b), size=(200_000, 4)) * w for w, b in zip(weights, sizes, strict=True)
    ]
    small = sum((g**2).sum(1) for g in draws)
    big = (sum(draws) ** 2).sum(1)
    found = Parts.of(weights, sizes).estimates(small, big)
    for estimates, exact in zip(found, [(truth**2).sum(), (deviations**2).sum()], strict=True):
        stderr = estimates.std(ddof=1) / math.sqrt(len(estimates))
        assert abs(estimates.mean() - exact) < 5 * stderr
        assert 10 * stderr < 0.1 * exact  # a bias of 10 % would fail


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_averages_are_the_bias_corrected_recursion(beta):
    pairs = np.random.default_rng(2).normal(3.0, 1.0, size=(40, 2)).tolist()
    top = bottom = 0.0
    for a, b in pairs:
        top, bottom = beta * top + (1 - beta) * a, beta * bottom + (1 - beta) * b
    correction = 1 - beta ** len(pairs)
    found = exponential_averages(pairs, beta)
    assert (found.top, found.bottom) == pytest.approx((top / correction, bottom / correction), rel=1e-12)
    assert found.ratio().value == pytest.approx(top / bottom, rel=1e-12)
    assert found.ratio().stderr > 0
    assert found.n == 40


def test_beta_one_is_the_plain_mean():
    found = exponential_averages([(1.0, 4.0), (2.0, 5.0), (6.0, 3.0)], 1.0)
    assert (found.top, found.bottom) == pytest.approx((3.0, 4.0))
    assert "plain mean" in found.of_top().method


@pytest.mark.parametrize(("drift", "n", "beta"), [(0.0, 60, 0.95), (0.05, 60, 0.95), (0.0, 8, 1.0)])
def test_errors_are_those_of_the_averages_also_while_the_truth_drifts(drift, n, beta):
    rng = np.random.default_rng(3)
    covariance = np.array([[4.0, -1.0], [-1.0, 1.0]])
    path = drift * np.arange(n)[:, None] * np.array([1.0, 2.0])
    averages = [
        exponential_averages((path + rng.multivariate_normal([5, 9], covariance, size=n)).tolist(), beta)
        for _ in range(3000)
    ]
    weights = beta ** np.arange(n)
    exact = covariance * (weights**2).sum() / weights.sum() ** 2
    for told, truth in [("var_top", exact[0, 0]), ("var_bottom", exact[1, 1]), ("cov", exact[0, 1])]:
        values = np.array([getattr(a, told) for a in averages])
        stderr = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - truth) < 5 * stderr + 0.02 * abs(truth)  # squared drift itself adds 0.6 %
        assert 5 * stderr < 0.1 * abs(truth)


@pytest.mark.parametrize("beta", [1.0, 0.9])
def test_nineteen_of_twenty_intervals_hold_the_truth(beta):
    rng = np.random.default_rng(4)
    held, trials = np.zeros(3), 800
    for _ in range(trials):
        g = 0.25 + rng.normal(size=(40, 4, 30)) / math.sqrt(8)
        small, big = (g**2).sum(2).mean(1), (g.mean(1) ** 2).sum(1)
        pairs = [
            (trace_covariance(a, b, 8, 32), squared_gradient_norm(a, b, 8, 32)) for a, b in zip(small, big, strict=True)
        ]
        found = exponential_averages(pairs, beta)
        intervals = [found.of_top().interval, found.of_bottom().interval, found.ratio_interval()]
        held += [low <= truth <= high for (low, high), truth in zip(intervals, [30, 1.875, 16], strict=True)]
    assert all(held / trials > 0.95 - 5 * math.sqrt(0.95 * 0.05 / trials))
    assert all(held / trials < 0.99)


def averages(top, bottom, var_top, var_bottom, cov):
    return Averages(top, bottom, var_top, var_bottom, cov, 30, 20, "")


@pytest.mark.parametrize(
    "found",
    [
        averages(10.0, 2.0, 1.0, 0.04, -0.1),
        averages(10.0, 2.0, 1.0, 0.0, 0.0),
        averages(10.0, 0.5, 1.0, 0.5, -0.3),
        averages(10.0, -0.2, 1.0, 0.5, 0.0),
        averages(0.5, 2.0, 1.0, 0.1, 0.1),
    ],
)
def test_fieller_holds_exactly_the_ratios_that_are_not_refuted(found):
    ratios = np.linspace(0, 400, 400_001)
    error = np.sqrt(found.var_top - 2 * ratios * found.cov + ratios**2 * found.var_bottom)
    kept = ratios[np.abs(found.top - ratios * found.bottom) <= found.quantile * error]
    low, high = found.ratio_interval()
    assert low == pytest.approx(kept.min(), abs=2e-3)
    assert high == pytest.approx(kept.max(), abs=2e-3) or (math.isinf(high) and kept.max() == 400)


def test_fieller_at_the_edge_and_where_nothing_is_known():
    quantile = averages(1, 1, 1, 1, 0).quantile
    edge = averages(10.0, quantile, 1.0, 1.0, 0.0).ratio_interval()
    assert edge[0] == pytest.approx((100 - quantile**2) / (20 * quantile))
    assert edge[1] == math.inf or edge[1] > 1e12
    assert averages(1.0, 1.0, 1.0, 1.0, 0.0).ratio_interval() == (0.0, math.inf)


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda: squared_gradient_norm(2.0, 1.0, 64, 64), "batch sizes are 64 and 64"),
        (lambda: trace_covariance(2.0, 1.0, 0, 64), "batch sizes are 0 and 64"),
        (lambda: Parts.of([0.5, -0.5], [8, 8]), "all must be above 0"),
        (lambda: exponential_averages([(1.0, 1.0)], 0.9), "1 pairs have no spread"),
        (lambda: exponential_averages([(1.0, 1.0)] * 3, 0.0), "beta is 0.0"),
    ],
)
def test_refuses_what_has_no_answer(work, sentence):
    with pytest.raises(BadInput, match=sentence):
        work()
