# Oracles: the matrix exponential of the master equation; single walkers with exponential waiting times (Gillespie); free
# diffusion; the structure function of fractional Brownian motion; the laws known of such walks, found by the package's fits.
import math

import numpy as np
import pytest
from scipy.linalg import expm

from gengap.core.errors import BadInput
from gengap.theory.diffusion import fit_power_law
from gengap.theory.laws import compare_laws
from gengap.theory.random_walk import densities, increments_root, ultra_slow_walk

RNG = np.random.default_rng(0)
POTENTIAL = np.cumsum(1.5 * RNG.normal(size=11))


def rates(potential):
    n = len(potential)
    W = np.zeros((n, n))
    for i in range(n):
        for j in (i - 1, i + 1):
            if 0 <= j < n:
                W[j, i] = math.exp((potential[i] - potential[j]) / 2)
    return W - np.diag(W.sum(axis=0))


def test_density_is_the_matrix_exponential():
    """Implicit steps of a tenth of the time smear an exponential decay a little: 2 % of the walkers at most."""
    times = np.geomspace(0.02, 1e6, 25)
    found = densities(POTENTIAL, times)
    start = np.eye(11)[5]
    for t, density in zip(times, found, strict=True):
        np.testing.assert_allclose(density, expm(rates(POTENTIAL) * t) @ start, atol=0.02)
    gibbs = np.exp(-POTENTIAL) / np.exp(-POTENTIAL).sum()
    np.testing.assert_allclose(found[-1], gibbs, rtol=1e-6)
    assert (found >= 0).all()


def test_single_walkers_end_there():
    """20,000 walkers followed jump by jump to t = 3; shares of the sites within 5 standard errors."""
    rng, walkers, until = np.random.default_rng(1), 20_000, 3.0
    site, clock = np.full(walkers, 5), np.zeros(walkers)
    right = np.append(np.exp(-np.diff(POTENTIAL) / 2), 0.0)
    left = np.append(0.0, np.exp(np.diff(POTENTIAL) / 2))
    while (clock < until).any():
        clock += rng.exponential(size=walkers) / (right + left)[site]
        jump = np.where(rng.random(walkers) < (right / (right + left))[site], 1, -1)
        site = np.where(clock < until, site + jump, site)
    shares = np.bincount(site, minlength=11) / walkers
    exact = densities(POTENTIAL, np.array([until]))[0]
    assert (np.abs(shares - exact) < 5 * np.sqrt(exact / walkers) + 0.01).all()


def test_on_flat_ground_it_is_free_diffusion():
    """One step to either side in a unit of time: variance 2 t."""
    walk = ultra_slow_walk(np.geomspace(1, 100, 12), roughness=1e-9, sites=201, potentials=2)
    np.testing.assert_allclose(walk.distances, np.sqrt(2 * walk.times), rtol=0.01)
    assert compare_laws(walk.times, walk.distances).laws[0].name == "square root"


@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.6])
def test_the_potential_has_its_structure_function(alpha):
    """E (V(x) - V(y))^2 from the covariance of the steps, exactly |x - y|^alpha."""
    root = increments_root(41, alpha)
    covariance = root @ root.T
    for x, y in ((0, 1), (3, 20), (0, 40)):
        assert covariance[x:y, x:y].sum() == pytest.approx((y - x) ** alpha)


@pytest.fixture(scope="module")
def sinai():
    return ultra_slow_walk(np.geomspace(10, 1e9, 30), roughness=3.0, sites=301, potentials=30)


def test_sinais_walk_is_recognised(sinai):
    """alpha = 1: the root of the distance is a line in ln t; as a power of t the exponent is far below that of a free walk."""
    assert sinai.exponent == 2
    assert compare_laws(sinai.times, np.sqrt(sinai.distances)).verdict == "log law"
    power = fit_power_law(np.log(sinai.times), sinai.distances).exponent
    assert 1.25 < power.value < 2.25  # 2 in the end; the first sites are climbed in no time
    assert fit_power_law(sinai.times, sinai.distances).exponent.value < 0.25


def test_a_rougher_potential_holds_longer(sinai):
    faster = ultra_slow_walk(sinai.times[:12], roughness=1.0, sites=301, potentials=10)
    n = len(faster.times)
    assert (faster.distances[3:] > sinai.distances[3:n] + 2 * sinai.stderr[3:n]).all()
    assert (np.diff(sinai.distances) > 0).all()


def test_leaves_out_what_the_ends_decide():
    walk = ultra_slow_walk(np.geomspace(1, 1e5, 20), roughness=0.5, sites=51, potentials=4)
    assert walk.left_out > 5
    assert len(walk.times) == len(walk.distances) == len(walk.stderr) == 20 - walk.left_out
    longer = ultra_slow_walk(walk.times, roughness=0.5, sites=51, potentials=4)
    np.testing.assert_allclose(longer.distances, walk.distances)
    with pytest.raises(BadInput, match="walkers reach the ends of 51 sites before"):
        ultra_slow_walk([1e6], roughness=0.5, sites=51, potentials=4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"times": [2.0, 1.0]}, r"times has shape \(2,\); give a vector of ascending moments"),
        ({"alpha": 2.0}, r"alpha is 2\.0 and roughness 2\.0"),
        ({"roughness": 0.0}, r"roughness 0\.0; give 0 < alpha < 2"),
        ({"sites": 20}, "sites is 20 and potentials 100; give an odd number"),
        ({"potentials": 1}, "potentials 1"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        ultra_slow_walk(**{"times": [1.0, 2.0], **change})
