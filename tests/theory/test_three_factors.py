"""Which of noise, learning rate and batch size decides. Oracle: values made from one of them, and none."""

import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.three_factors import compare_factors, explained

SIZES, RATES, SEEDS = [8 * 2**i for i in range(6)], [0.01 * 2**i for i in range(6)], range(4)


def grid(value, scatter: float, seed: int) -> tuple[list, list, list, list]:
    rng = np.random.default_rng(seed)
    rows = [
        (size, rate, value(size, rate) + scatter * rng.standard_normal(), run)
        for size in SIZES
        for rate in RATES
        for run in SEEDS
    ]
    return tuple(map(list, zip(*rows, strict=True)))


def peak(x: float) -> float:
    return 90 - 2 * (math.log2(x)) ** 2


@pytest.mark.parametrize(
    ("truth", "value"),
    [
        ("noise", lambda size, rate: peak(rate / size * 1000)),
        ("learning rate", lambda size, rate: peak(rate * 20)),
        ("batch size", lambda size, rate: peak(size / 40)),
    ],
)
def test_the_factor_that_decides_is_found(truth: str, value) -> None:
    for seed in range(20):
        sizes, rates, values, seeds = grid(value, 0.5, seed)
        found = compare_factors(sizes, rates, values, seeds=seeds)
        assert found.verdict == truth
        assert found.shares[truth] > 0.95


def test_values_that_nothing_decides_are_not_resolvable() -> None:
    wrong = 0
    for seed in range(100):
        sizes, rates, values, seeds = grid(lambda size, rate: 90.0, 1.0, seed)
        wrong += compare_factors(sizes, rates, values, seeds=seeds).verdict != "not resolvable"
    assert wrong <= 5


def test_runs_of_equal_noise_match_up_to_the_stable_rate() -> None:
    def value(size: int, rate: float) -> float:
        return peak(rate / size * 1000) - (20 * math.log2(rate / 0.08) if rate > 0.08 else 0.0)

    sizes, rates, values, seeds = grid(value, 0.3, 0)
    longest = compare_factors(sizes, rates, values, seeds=seeds).classes[0]
    assert longest.batch_sizes == tuple(SIZES)
    assert longest.temperature == pytest.approx(0.01 / 8)
    assert longest.transition.verdict == "transition"
    assert 32 <= longest.transition.batch_size.value <= 128


def test_the_share_is_that_of_an_analysis_of_variance_by_hand() -> None:
    labels, means = np.array([0, 0, 1, 1, 2, 2]), np.array([1.0, 2.0, 4.0, 6.0, 9.0, 9.0])
    within = 0.5 + 2.0 + 0.0
    total = float(((means - means.mean()) ** 2).sum())
    assert explained(labels, means) == pytest.approx(1 - (within / 3) / (total / 5))


def test_two_momenta_of_one_ratio_are_one_class() -> None:
    sizes, rates, values, seeds = grid(lambda size, rate: peak(rate / size * 1000), 0.1, 1)
    found = compare_factors(sizes * 2, rates * 2, values * 2, seeds=seeds * 2)
    assert found.verdict == "noise"
    assert found.n == 36
    assert found.classes == ()


def test_few_settings_say_nothing() -> None:
    found = compare_factors([8, 16], [0.1, 0.2], [90.0, 91.0])
    assert (found.verdict, found.shares) == ("not resolvable", {})


@pytest.mark.parametrize(
    ("sizes", "rates", "values"), [([8], [0.1, 0.2], [1.0]), ([0], [0.1], [1.0]), ([8], [0.1], [math.nan])]
)
def test_what_cannot_be_used_is_refused(sizes: list, rates: list, values: list) -> None:
    with pytest.raises(BadInput):
        compare_factors(sizes, rates, values)
