# ruff: noqa: RUF001 - the signs are what is tested
"""Oracle: what a person would write by hand."""

import math

import pytest

from gengap.report import numbers


def estimate(value, stdev=None, interval=None):
    return {"value": value, "stdev": stdev, "n": 5, "interval": interval, "method": ""}


@pytest.mark.parametrize(
    ("x", "written"),
    [
        (0.0, "0"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (98.9123, "98.9"),
        (3682.4, "3,682"),
        (-2.123, "−2.12"),
        (0.00123, "0.00123"),
        (2.3e-7, "2.30 × 10⁻⁷"),
        (-1e-12, "−1.00 × 10⁻¹²"),
        (1_462_794.0, "1.46 × 10⁶"),
        (999.96, "1,000"),
    ],
)
def test_a_number_has_three_significant_digits(x, written):
    assert numbers.number(x) == written


@pytest.mark.parametrize("exponent", range(-300, 300, 7))
def test_a_number_that_is_not_zero_is_never_written_as_zero(exponent):
    x = 3.7 * 10.0**exponent
    for text in (numbers.number(x), numbers.significant(x), numbers.tick(x), numbers.spread(estimate(x, 1.0))):
        assert any(digit in text.partition("±")[0] for digit in "123456789"), text


@pytest.mark.parametrize(
    ("value", "stdev", "written"),
    [
        (98.912, 0.53, "98.9 ± 0.5"),
        (98.912, 0.123, "98.91 ± 0.12"),
        (2.31e-7, 1.13e-7, "(2.3 ± 1.1) × 10⁻⁷"),
        (1234.0, 3456.0, "1,000 ± 3,000"),
        (100.0, 0.0, "100.0"),
        (12.3, None, "12.30"),
        (0.0, 0.1, "0.00 ± 0.10"),
        (None, None, "–"),
    ],
)
def test_a_mean_has_the_decimals_of_its_deviation(value, stdev, written):
    assert numbers.spread(estimate(value, stdev)) == written


@pytest.mark.parametrize(
    ("bounds", "written"),
    [
        ([0.9, 3.3], "0.9 to 3.3"),
        ([-3.31, -0.87], "−3.3 to −0.9"),
        ([1.1e-8, 3.2e-8], "(1.1 to 3.2) × 10⁻⁸"),
        ([0.0, 0.0], "0 to 0"),
        ([None, 3.0], "−∞ to 3.00"),
        ([None, None], ""),
        (None, ""),
    ],
)
def test_an_interval_has_the_decimals_of_its_width(bounds, written):
    assert numbers.interval(estimate(1.0, 1.0, bounds)) == written


def test_ratios_have_two_significant_digits():
    ratio = estimate(61.4, 1.0, [12.3, 301.0])
    assert (numbers.times(ratio), numbers.ratio_interval(ratio)) == ("61 ×", "12 to 300")
    assert numbers.ratio_interval(estimate(3.0, 9.0, [0.0, None])) == "0 to ∞"
    assert numbers.times(None) == "–"


@pytest.mark.parametrize(("value", "written"), [(2.13, "+2.1"), (-2.13, "−2.1"), (0.0, "0.0")])
def test_a_difference_has_its_sign(value, written):
    assert numbers.difference(estimate(value, 1.0, [value - 1.2, value + 1.2])) == written


@pytest.mark.parametrize(
    ("x", "written"),
    [(0.42, "0.42 s"), (12.34, "12.3 s"), (99.96, "1 min 40 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "–")],
)
def test_durations(x, written):
    assert numbers.seconds(x) == written


@pytest.mark.parametrize(
    ("x", "written"),
    [(0, "0"), (-0.5, "−0.5"), (98.25, "98.25"), (1000, "1,000"), (1e-3, "10⁻³"), (2.5e-7, "2.5·10⁻⁷")],
)
def test_ticks_are_short(x, written):
    assert numbers.tick(x) == written
