# Oracles: all batches of a small set listed one by one, the exact stationary state of the discrete update (scipy's
# Lyapunov solver), and simulated SGD with error bars fixed beforehand.
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.linalg import solve_discrete_lyapunov

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.theory.noise_scale import batch_size_for, lr_for, recipe_noise_scale, sde_noise_scale


def sample_gradients(samples, seed=0):
    """Gradients of squared errors of a linear model with three weights, one row for each sample."""
    rng = np.random.default_rng(seed)
    inputs, targets, w = rng.normal(size=(samples, 3)), rng.normal(size=samples), np.array([0.3, -1.0, 0.5])
    return (inputs @ w - targets)[:, None] * inputs


@pytest.mark.parametrize("batch", [1, 3, 7, 8])
def test_variance_of_an_update_over_all_batches(batch):
    """lr^2 (N/B - 1) F/N times N/(N - 1), exactly: the mean over the 8 choose B batches."""
    gradients, lr, N = sample_gradients(8), 0.1, 8
    updates = np.array([-lr * gradients[list(rows)].mean(0) for rows in itertools.combinations(range(N), batch)])
    expected = lr * sde_noise_scale(lr=lr, batch_size=batch, samples=N).value * np.cov(gradients.T, bias=True) / N
    np.testing.assert_allclose(np.cov(updates.T, bias=True), expected * N / (N - 1), rtol=1e-12, atol=1e-18)


def test_variance_of_simulated_updates():
    """20,000 batches of 5 from 40; a 10 % bias is more than 5 standard errors."""
    gradients, lr, N, B, draws = sample_gradients(40), 0.1, 40, 5, 20_000
    rng = np.random.default_rng(1)
    rows = np.argsort(rng.random((draws, N)), axis=1)[:, :B]
    updates = -lr * gradients[rows].mean(1)[:, 0]
    squares = (updates - -lr * gradients.mean(0)[0]) ** 2
    stderr = squares.std(ddof=1) / math.sqrt(draws)
    expected = lr * sde_noise_scale(lr=lr, batch_size=B, samples=N).value * gradients[:, 0].var() / (N - 1)
    assert abs(squares.mean() - expected) < 5 * stderr
    assert stderr < 0.02 * expected


def stationary_variance(rate, momentum, noise, nesterov=False):
    """Variance of w under v <- m v + h w + noise, w <- w - lr v with lr h = `rate`: (w, v) is linear in itself."""
    step = np.array([1.0, momentum])  # how far w moves for the new gradient and for the old velocity, in units of rate
    if nesterov:
        step = np.array([1 + momentum, momentum**2])
    matrix = np.array([[1 - rate * step[0], -rate * step[1]], [1.0, momentum]])
    kick = np.array([-rate * step[0], 1.0])
    return solve_discrete_lyapunov(matrix, noise * np.outer(kick, kick))[0, 0]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_stationary_state_of_a_quadratic(momentum, nesterov):
    """The diffusion equation has variance g F / (2 N h) in C = N h w^2 / 2; SGD gets there as lr h goes to zero."""
    N, B, h, F, lr = 50, 4, 2.0, 3.0, 1e-6
    noise = F * (1 / B - 1 / N)
    exact = stationary_variance(lr * h, momentum, noise / h**2, nesterov)
    g = sde_noise_scale(lr=lr, batch_size=B, samples=N, momentum=momentum).value
    assert exact == pytest.approx(g * F / (2 * N * h), rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_simulated_sgd_spreads_as_the_diffusion_equation_says(momentum):
    """Heavy-ball SGD on 12 quadratics with their own centres, in batches of 3; 20,000 runs at lr h = 0.01."""
    rng, N, B, lr, h, runs = np.random.default_rng(2), 12, 3, 0.005, 2.0, 20_000
    centres = rng.normal(size=N)
    centres -= centres.mean()
    batches = np.array([centres[list(rows)].mean() for rows in itertools.combinations(range(N), B)])
    g, F = sde_noise_scale(lr=lr, batch_size=B, samples=N, momentum=momentum).value, h**2 * centres.var()
    expected = g * F / (2 * N * h) * N / (N - 1)
    w, v = math.sqrt(expected) * rng.normal(size=runs), np.zeros(runs)
    for _ in range(int(3 * (1 - momentum) / (lr * h))):
        v = momentum * v + h * (w - rng.choice(batches, size=runs))
        w = w - lr * v
    stderr = (w**2).std(ddof=1) / math.sqrt(runs)
    # at this finite step the exact stationary variance is 0.5 % larger without momentum, 0.1 % with it
    assert abs((w**2).mean() - expected) < 5 * stderr + 0.005 * expected
    assert stderr < 0.015 * expected


def test_what_one_gradient_moves_in_the_end_is_the_effective_rate():
    lr, m = 0.3, 0.7
    for nesterov in (False, True):
        w = v = 0.0
        for gradient in [1.0] + [0.0] * 200:
            v = m * v + gradient
            w -= lr * (gradient + m * v if nesterov else v)
        assert -w == pytest.approx(sde_noise_scale(lr=lr, batch_size=1, samples=2, momentum=m).effective_lr, rel=1e-12)


def test_the_numbers_of_the_record():
    found = sde_noise_scale(lr=1.0, batch_size=30, samples=1000, momentum=0.9)
    assert found.value == pytest.approx(10 * 970 / 30)
    assert found.large_set == pytest.approx(1000 / 3)
    assert found.effective_lr == pytest.approx(10)
    assert found.temperature == pytest.approx(1 / 3)
    assert json.loads(json.dumps(found.to_dict()))["batch_size"] == 30
    assert "noise scale 323.3" in str(found)


def test_the_full_batch_has_no_noise():
    assert sde_noise_scale(lr=0.1, batch_size=60, samples=60).value == 0
    assert batch_size_for(0.0, lr=0.1, samples=60) == 60


@given(
    lr=st.floats(1e-6, 10),
    samples=st.integers(2, 10**6),
    share=st.floats(0, 0.99),
    momentum=st.floats(0, 0.999),
)
def test_inverses(lr, samples, share, momentum):
    size = 1 + share * (samples - 1)
    g = sde_noise_scale(lr=lr, batch_size=size, samples=samples, momentum=momentum).value
    assert batch_size_for(g, lr=lr, samples=samples, momentum=momentum) == pytest.approx(size, rel=1e-9)
    assert lr_for(g, batch_size=size, samples=samples, momentum=momentum) == pytest.approx(lr, rel=1e-9)


@pytest.mark.parametrize("changed", [{"lr": 0.2}, {"samples": 2000}, {"momentum": 0.5}], ids=str)
def test_what_doubles_the_best_batch(changed):
    """At equal noise the batch grows with lr, with N and with 1/(1 - m), for N >> B."""
    fixed = {"lr": 0.1, "samples": 1000, "momentum": 0.0}
    base = batch_size_for(1e6, **{**fixed, "lr": 1e4, "samples": 10**9})
    scale = {"lr": 1e5, "samples": 10**6}  # keeps N/B large
    more = {name: x * scale.get(name, 1) for name, x in {**fixed, **changed}.items()}
    assert batch_size_for(1e6, **more) == pytest.approx(2 * base, rel=0.02)


def test_of_a_recipe():
    recipe = Recipe(lr=0.1, momentum=0.9, batch_size="10%", budget={"epochs": 2}, schedule="cosine")
    expected = sde_noise_scale(lr=0.1, batch_size=101, samples=1001, momentum=0.9)
    assert recipe_noise_scale(recipe, 1001) == expected
    assert recipe_noise_scale(recipe, 1001, lr=0.05).value == pytest.approx(expected.value / 2)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_refuses_optimizers_that_rescale_the_noise(optimizer):
    recipe = Recipe(optimizer=optimizer, lr=0.1, batch_size=10, budget={"epochs": 2})
    with pytest.raises(BadInput, match=f"optimizer is '{optimizer}', for which the noise scale g does not exist"):
        recipe_noise_scale(recipe, 100)


GOOD = {"lr": 0.1, "batch_size": 4, "samples": 100, "momentum": 0.5}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lr": 0.0}, "lr is 0.0; give a positive number"),
        ({"lr": math.inf}, "lr is inf"),
        ({"momentum": 1.0}, "momentum is 1.0; give a number from 0 to below 1"),
        ({"momentum": math.nan}, "momentum is nan"),
        ({"batch_size": 0}, "batch_size is 0; give a number from 1 to samples, which is 100"),
        ({"batch_size": 101}, "batch_size is 101"),
        ({"samples": 0}, "samples is 0"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        sde_noise_scale(**{**GOOD, **change})


def test_refuses_what_no_recipe_gives():
    with pytest.raises(BadInput, match=r"noise_scale is 1000.0, but batches of one sample make only 9.9"):
        batch_size_for(1000.0, lr=0.1, samples=100)
    with pytest.raises(BadInput, match="all 100 samples: no learning rate gives noise"):
        lr_for(1.0, batch_size=100, samples=100)
    with pytest.raises(BadInput, match=r"noise_scale is -1\.0; give a number of at least 0"):
        batch_size_for(-1.0, lr=0.1, samples=100)
    with pytest.raises(BadInput, match="noise_scale is 0, which no learning rate"):
        lr_for(0.0, batch_size=10, samples=100)
