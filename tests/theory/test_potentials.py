# Oracles: central differences of the value; moments of the normal distribution; sums over a fine grid; a double well's
# curvatures by second differences.
import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.potentials import DoubleWell, Parabola, TwoMinima, gibbs_mean

TWO = TwoMinima(Parabola(2.0, -1.0, 0.1), Parabola(30.0, 1.0, 0.0), 0.02)
ALL = [Parabola(3.0, 0.5, -1.0), DoubleWell(0.7, 2.0), TWO]


@pytest.mark.parametrize("potential", ALL, ids=lambda p: type(p).__name__)
def test_slope_is_the_derivative_of_the_value(potential):
    w, eps = np.linspace(-3, 3, 101), 1e-6
    differences = (potential.value(w + eps) - potential.value(w - eps)) / (2 * eps)
    np.testing.assert_allclose(potential.slope(w), differences, rtol=1e-6, atol=1e-6)


def test_two_minima_are_the_parabolas_near_their_centres():
    for well in (TWO.left, TWO.right):
        w = well.centre + np.linspace(-0.1, 0.1, 5)
        np.testing.assert_allclose(TWO.value(w), well.value(w), rtol=1e-6, atol=1e-9)
    place, height = TWO.crossing
    assert -1 < place < 1
    assert TWO.left.value(place) == pytest.approx(TWO.right.value(place)) == pytest.approx(height)
    assert TWO.value(np.array(place)) == pytest.approx(height - 0.02 * math.log(2))
    assert abs(TWO.slope(np.array(place - 0.3))) > 0


def test_double_well_by_differences():
    well, eps = DoubleWell(0.7, 2.0), 1e-4
    for at, curvature in zip((2.0, 0.0), well.curvatures, strict=True):
        around = well.value(np.array([at - eps, at, at + eps]))
        assert (around[0] - 2 * around[1] + around[2]) / eps**2 == pytest.approx(curvature, rel=1e-4)
    assert well.value(np.array([0.0, 2.0])).tolist() == [0.7, 0.0]


@pytest.mark.parametrize("temperature", [1e-4, 0.3, 50.0])
def test_gibbs_moments_of_a_parabola(temperature):
    well = Parabola(3.0, 0.5, -1.0)
    assert gibbs_mean(well, temperature, lambda w: w) == pytest.approx(0.5)
    assert gibbs_mean(well, temperature, lambda w: (w - 0.5) ** 2) == pytest.approx(temperature / 3)


@pytest.mark.parametrize("potential", [DoubleWell(0.7, 2.0), TWO], ids=lambda p: type(p).__name__)
def test_gibbs_mean_is_a_sum_over_a_grid(potential):
    grid = np.linspace(-8, 8, 400_001)
    for temperature in (0.02, 0.3):
        weight = np.exp(-potential.value(grid) / temperature)
        expected = (weight * np.tanh(grid - 0.3)).sum() / weight.sum()
        assert gibbs_mean(potential, temperature, lambda w: math.tanh(w - 0.3)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Parabola(0.0), "curvature is 0.0; give a positive number"),
        (lambda: DoubleWell(1.0, math.inf), "at is inf"),
        (lambda: TwoMinima(Parabola(1.0, 1.0), Parabola(1.0, -1.0), 0.01), "left.centre is 1.0 and right.centre -1.0"),
        (
            lambda: TwoMinima(Parabola(1.0, 0.0), Parabola(1.0, 1.0, 9.0), 0.01),
            "the minimum at 1.0 lies above the other",
        ),
        (lambda: TwoMinima(Parabola(1.0, -1.0), Parabola(1.0, 1.0), 0.06), "smoothing is 0.06 beside a barrier of 0.5"),
        (lambda: gibbs_mean(Parabola(1.0), 0.0, abs), "temperature is 0.0"),
    ],
)
def test_refuses_with_a_sentence(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
