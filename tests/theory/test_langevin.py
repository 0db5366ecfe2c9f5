# Oracles: the motion of a damped oscillator in closed form; an integrator of Langevin's equation with inertia that shares no
# step with SGD (BAOAB); Gibbs' density by sums over a grid; the noise scale of a recipe; AR(2) theory of heavy-ball SGD.
import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.langevin import Langevin, as_langevin, sgd_temperature, simulate_noisy_descent
from gengap.theory.noise_scale import sde_noise_scale
from gengap.theory.ornstein_uhlenbeck import HeavyBall, Quadratic, simulate_sgd, stationary_state
from gengap.theory.potentials import DoubleWell, Parabola, TwoMinima


@pytest.mark.parametrize(("lr", "momentum", "N"), [(0.1, 0.9, 1000), (3.0, 0.0, 50), (1e-4, 0.999, 60_000)])
def test_both_ways_and_the_noise_scale(lr, momentum, N):
    found = as_langevin(lr=lr, momentum=momentum, samples=N)
    assert found.lr == pytest.approx(lr)
    assert found.momentum == pytest.approx(momentum, abs=1e-12)
    noise = sde_noise_scale(lr=lr, batch_size=7, samples=N, momentum=momentum)
    assert found.noise_scale(7) == pytest.approx(noise.large_set)


@pytest.mark.parametrize("damping", [0.3, 5.0], ids=["swings", "creeps"])
def test_updates_follow_a_damped_oscillator(damping):
    """w'' = -damping w' - h w from w = 1 at rest, solved by its two exponentials; one update covers step / N of time."""
    h, N, step = 2.0, 10, 0.01  # h is the curvature of the summed loss
    eq = Langevin(damping, step, N)
    roots = np.roots([1, damping, h]).astype(complex)
    minimum = Quadratic([h / N], [0.0])  # of the mean loss
    for updates in (500, 2000, 4000):
        t = updates * step / N
        a, b = roots
        exact = ((b * np.exp(a * t) - a * np.exp(b * t)) / (b - a)).real
        rule = HeavyBall(eq.lr, momentum=eq.momentum)
        end = simulate_sgd(minimum, rule, steps=updates, runs=1, records=1, start=[1.0]).displacements[0, 0]
        assert end == pytest.approx(exact, abs=2e-3)


def baoab(h, damping, temperature, dt, steps, runs, rng):
    """Leimkuhler & Matthews' integrator of w'' = -damping w' - h w + sqrt(2 damping T) noise; exact variance T / h."""
    w, p = np.zeros(runs), np.zeros(runs)
    keep = math.exp(-damping * dt)
    for _ in range(steps):
        p -= dt / 2 * h * w
        w += dt / 2 * p
        p = keep * p + math.sqrt(temperature * (1 - keep**2)) * rng.standard_normal(runs)
        w += dt / 2 * p
        p -= dt / 2 * h * w
    return w


def test_momentum_spreads_as_langevin_dynamics_does():
    """From rest at the minimum, half-way to the stationary state, where inertia still shows: 20,000 runs each."""
    N, B, lr, m, F, h, runs = 100, 2, 0.01, 0.95, 3.0, 1.0, 20_000  # F: gradient variance; h: of the mean loss
    eq = as_langevin(lr=lr, momentum=m, samples=N)
    steps = 30
    g = eq.noise_scale(B)
    # eta has variance g damping F for the summed loss: 2 damping T = g damping F
    time = steps * eq.step / N
    other = baoab(N * h, eq.damping, g * F / 2, time / 60, 60, runs, np.random.default_rng(0))
    rule = HeavyBall(lr, B, m)
    ours = simulate_sgd(Quadratic([h], [F]), rule, steps=steps, runs=runs).displacements[:, 0]
    spread = [(x**2).mean() for x in (ours, other)]
    error = math.hypot(*[(x**2).std() / math.sqrt(runs) for x in (ours, other)])
    # one update is 1/50 of the time the velocity lasts, and the discrete variance differs by as much
    assert abs(spread[0] - spread[1]) < 5 * error + 0.03 * spread[1]
    assert error < 0.02 * spread[1]
    late = stationary_state(Quadratic([h], [F]), rule).covariance[0, 0]
    assert spread[0] < 0.9 * late == pytest.approx(0.9 * g * F / (2 * N * h), rel=0.01)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_temperature_is_that_of_the_quadratic(momentum):
    rule = HeavyBall(1e-5, 4, momentum)
    assert sgd_temperature(rule, 9.0) / 2.0 == pytest.approx(
        stationary_state(Quadratic([2.0], [9.0]), rule).covariance[0, 0], rel=1e-4
    )


@pytest.mark.parametrize(
    "potential",
    [DoubleWell(0.4), TwoMinima(Parabola(2.0, -0.6), Parabola(8.0, 0.6, 0.05), 0.03)],
    ids=["double well", "two minima"],
)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sgd_ends_in_gibbs_density(potential, momentum):
    """Five shares of the line, each expected to hold a fifth by a sum over a grid; 4,000 runs, error of a share by chance."""
    B, T, lr, runs = 4, 0.3, 0.01, 4000
    rule, variance = HeavyBall(lr * (1 - momentum), B, momentum), 2 * T * B / lr
    assert sgd_temperature(rule, variance) == pytest.approx(T)
    grid = np.linspace(-4, 4, 80_001)
    mass = np.cumsum(np.exp(-potential.value(grid) / T))
    edges = np.interp(np.arange(1, 5) / 5, mass / mass[-1], grid)
    start = np.resize([-0.6, -0.6, 0.6], runs)
    ends = simulate_noisy_descent(potential, rule, variance, steps=2000, start=start, seed=4)
    shares = np.bincount(np.searchsorted(edges, ends), minlength=5) / runs
    # the step lr is finite: lr times the largest curvature met, 0.1, is how far off the density may be
    assert np.abs(shares - 0.2).max() < 5 * math.sqrt(0.16 / runs) + 0.01


def test_without_noise_it_is_gradient_descent():
    start = [0.3, -2.0]
    rule = HeavyBall(0.1, 1e30, 0.5)
    found = simulate_noisy_descent(Parabola(2.0, 1.0), rule, 1.0, steps=3, start=start)
    w, v = np.array(start), np.zeros(2)
    for _ in range(3):
        v = 0.5 * v + 2 * (w - 1)
        w = w - 0.1 * v
    np.testing.assert_allclose(found, w, rtol=1e-12)


def test_refuses_with_a_sentence():
    with pytest.raises(BadInput, match=r"damping 3.0 times step 2.0 is above samples, 5"):
        Langevin(3.0, 2.0, 5)
    with pytest.raises(BadInput, match="samples is 0; give a positive number"):
        as_langevin(lr=0.1, momentum=0.9, samples=0)
    with pytest.raises(BadInput, match=r"gradient_variance is -1\.0"):
        sgd_temperature(HeavyBall(0.1), -1.0)
    with pytest.raises(BadInput, match="steps is 0"):
        simulate_noisy_descent(Parabola(1.0), HeavyBall(0.1), 1.0, steps=0, start=[0.0])
    with pytest.raises(FloatingPointError, match=r"2 of 2 runs left for infinity; lower lr from 5\.0"):
        simulate_noisy_descent(DoubleWell(1.0), HeavyBall(5.0), 1.0, steps=50, start=[3.0, -3.0])
