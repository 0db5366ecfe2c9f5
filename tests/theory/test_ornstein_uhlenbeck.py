# Oracles: scipy's solvers of the discrete and the continuous Lyapunov equation on the (w, v) map written out; eigenvalues
# of that map; heavy-ball SGD simulated on real samples in enumerated batches; noise-free runs.
import itertools
import math

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

from gengap.core.errors import BadInput
from gengap.theory.ornstein_uhlenbeck import (
    HeavyBall,
    Quadratic,
    relaxation_steps,
    simulate_sgd,
    stability_limit,
    stationary_state,
)

RNG = np.random.default_rng(0)
A, C = RNG.normal(size=(2, 4, 4))
H = A @ A.T + 0.5 * np.eye(4)
SIGMA = C @ C.T  # does not commute with H


def linear_map(hessian, lr, momentum):
    """(w, v) -> (w - lr (m v + H w), m v + H w)."""
    eye = np.eye(len(hessian))
    return np.block([[eye - lr * hessian, -lr * momentum * eye], [hessian, momentum * eye]])


def lyapunov(hessian, noise, lr, momentum):
    P = len(hessian)
    kick = np.vstack([-lr * np.eye(P), np.eye(P)])
    return solve_discrete_lyapunov(linear_map(hessian, lr, momentum), kick @ noise @ kick.T)[:P, :P]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("share", [1e-3, 0.3, 0.97], ids=["small lr", "middle", "edge of stability"])
def test_covariance_solves_the_lyapunov_equation(momentum, share):
    lr = share * 2 * (1 + momentum) / np.linalg.eigvalsh(H)[-1]
    found = stationary_state(Quadratic(H, SIGMA), HeavyBall(lr, 3, momentum))
    expected = lyapunov(H, SIGMA / 3, lr, momentum)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    assert found.excess_loss == pytest.approx(np.trace(H @ expected) / 2, rel=1e-7)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_limit_is_the_ornstein_uhlenbeck_process(momentum):
    lr, B = 1e-5, 2
    found = stationary_state(Quadratic(H, SIGMA), HeavyBall(lr, B, momentum))
    expected = solve_continuous_lyapunov(H, lr / (1 - momentum) * SIGMA / B)
    np.testing.assert_allclose(found.limit_covariance, expected, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, expected, rtol=2e-3)
    assert found.limit_excess_loss == pytest.approx(np.trace(H @ expected) / 2, rel=1e-9)


def test_three_factors():
    """With H equal to the gradient covariance, E[L] - L_min = lr tr(H) / 4 B; equal lr/B give equal losses."""
    losses = [stationary_state(Quadratic(H, H), HeavyBall(1e-6 * B, B)).excess_loss for B in (1, 8, 64)]
    assert losses == pytest.approx([1e-6 * np.trace(H) / 4] * 3, rel=1e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_simulated_runs_have_the_exact_covariance(momentum):
    """At a large learning rate, where exact and limit differ: 4,000 runs, errors from the runs themselves."""
    minimum, rule = Quadratic(H, SIGMA), HeavyBall(0.6 * stability_limit(np.linalg.eigvalsh(H)[-1]), 2, momentum)
    state = stationary_state(minimum, rule)
    steps = math.ceil(10 * state.relaxation_steps)
    made = simulate_sgd(minimum, rule, steps=steps, runs=4000, seed=1)
    w = made.displacements
    products = w[:, :, None] * w[:, None, :]
    stderr = products.std(axis=0, ddof=1) / math.sqrt(len(w))
    assert (np.abs(products.mean(axis=0) - state.covariance) < 5 * stderr).all()
    ends = made.excess_losses[-1]
    error = ends.std(ddof=1) / math.sqrt(len(ends))
    assert abs(ends.mean() - state.excess_loss) < 5 * error < 0.1 * state.excess_loss
    assert abs(ends.mean() - state.limit_excess_loss) > 5 * error


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_batches_without_replacement(momentum):
    """12 samples with losses (w - c)' H (w - c) / 2, whose noise H (c - mean c) is the same everywhere; batches of 3."""
    rng, runs, B = np.random.default_rng(3), 6000, 3
    hessian = H[:2, :2]
    centres = rng.normal(size=(12, 2))
    centres -= centres.mean(axis=0)
    batches = np.array([centres[list(rows)].mean(axis=0) for rows in itertools.combinations(range(12), B)])
    gradients = centres @ hessian
    rule = HeavyBall(0.4 * stability_limit(np.linalg.eigvalsh(hessian)[-1]), B, momentum, samples=12)
    expected = stationary_state(Quadratic(hessian, gradients.T @ gradients / 12), rule).covariance
    w = v = np.zeros((runs, 2))
    for _ in range(80):
        v = momentum * v + (w - batches[rng.integers(len(batches), size=runs)]) @ hessian
        w = w - rule.lr * v
    products = w[:, :, None] * w[:, None, :]
    stderr = products.std(axis=0, ddof=1) / math.sqrt(runs)
    assert (np.abs(products.mean(axis=0) - expected) < 5 * stderr).all()
    assert stderr[0, 0] < 0.03 * expected[0, 0]


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("curvature", [0.01, 1.0, 3.7])
def test_relaxation_is_the_slowest_eigenvalue_of_the_map(momentum, curvature):
    lr = 0.5
    radius = np.abs(np.linalg.eigvals(linear_map(np.array([[curvature]]), lr, momentum))).max()
    assert relaxation_steps(curvature, lr, momentum) == pytest.approx(-1 / math.log(radius), rel=1e-6)


def test_relaxation_of_the_whole_is_that_of_its_slowest_direction():
    for lr in (0.01, 1.9):
        state = stationary_state(Quadratic([0.1, 0.7, 1.0], np.eye(3)), HeavyBall(lr))
        assert state.relaxation_steps == pytest.approx(max(relaxation_steps(h, lr) for h in (0.1, 0.7, 1.0)))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_runs_diverge_above_the_limit_only(momentum):
    minimum = Quadratic([0.5, 2.0], [0.0, 0.0])
    limit = stability_limit(2.0, momentum)
    assert limit == pytest.approx(1 + momentum)
    for factor, grows in ((0.98, False), (1.02, True)):
        made = simulate_sgd(minimum, HeavyBall(factor * limit, momentum=momentum), steps=1000, runs=1, start=[1.0, 1.0])
        assert (made.excess_losses[-1, 0] > 1.25) == grows
    assert relaxation_steps(2.0, limit, momentum) == math.inf
    assert relaxation_steps(1.0, 1.0) == 0


def test_what_one_run_does_does_not_depend_on_when_it_is_looked_at():
    minimum, rule = Quadratic(H, SIGMA), HeavyBall(0.05)
    few, many = (simulate_sgd(minimum, rule, steps=12, runs=3, records=n, seed=5) for n in (1, 12))
    np.testing.assert_array_equal(few.displacements, many.displacements)
    assert many.steps.tolist() == list(range(1, 13))
    assert few.excess_losses.shape == (1, 3)
    direct = 0.5 * np.einsum("ki,ij,kj->k", few.displacements, H, few.displacements)
    np.testing.assert_allclose(few.excess_losses[-1], direct, rtol=1e-10)


def test_says_what_it_found():
    text = str(stationary_state(Quadratic([1.0], [4.0]), HeavyBall(0.1)))
    assert text.startswith("excess loss 0.1053 (0.1 for small learning rates), reached in about 9.491 updates")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: Quadratic([1.0, 0.0], [1.0, 1.0]),
            "hessian has an eigenvalue of 0, and along it SGD spreads for ever",
        ),
        (lambda: Quadratic([1.0], [-1.0]), "covariance has an eigenvalue of -1"),
        (lambda: Quadratic([1.0], [1.0, 2.0]), r"hessian has shape \(1, 1\) and covariance \(2, 2\)"),
        (lambda: Quadratic([[1.0, 2.0], [0.0, 1.0]], [1.0, 1.0]), "hessian is not symmetric"),
        (lambda: Quadratic([math.nan], [1.0]), "hessian holds 1 numbers that are not finite"),
        (lambda: Quadratic(1.0, [1.0]), r"hessian has shape \(\); give a square matrix"),
        (lambda: HeavyBall(0.1, 0.5), "batch_size is 0.5; give a number of at least 1"),
        (lambda: HeavyBall(0.1, 5, samples=4), "batch_size is 5; give a number from 1 to samples"),
        (lambda: HeavyBall(0.1, momentum=1.0), "momentum is 1.0"),
        (lambda: stationary_state(Quadratic([2.0], [1.0]), HeavyBall(1.0)), "SGD leaves the minimum from 1 on"),
        (lambda: stability_limit(0.0), "curvature is 0.0; give a positive number"),
        (lambda: simulate_sgd(Quadratic([1.0], [1.0]), HeavyBall(0.1), steps=0), "steps is 0"),
        (
            lambda: simulate_sgd(Quadratic([1.0], [1.0]), HeavyBall(0.1), steps=1, start=[1.0, 2.0, 3.0]),
            r"start has shape \(3,\)",
        ),
    ],
)
def test_refuses_with_a_sentence(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
