"""Oracles: covariances over all batches of a small population, enumerated; the stationary variance of linear recursions."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from gengap.core.errors import BadInput
from gengap.optim.gradient_noise import IsotropicNoise, MultiplicativeNoise, matched_sigma

GRADIENTS = np.random.default_rng(0).normal(size=(10, 2)) * np.array([1.0, 3.0])
GRADIENTS -= GRADIENTS.mean(0)


def batch_covariance(size):
    """Covariance of the mean over a batch without replacement: all batches, one by one."""
    means = np.array([GRADIENTS[list(rows)].mean(0) for rows in combinations(range(10), size)])
    return means.T @ means / len(means)


@pytest.mark.parametrize(("batch", "small"), [(5, 2), (10, 2), (10, 1), (6, 6)])
def test_matched_noise_gives_the_covariance_of_the_small_batch(batch, small):
    """The factors' own part is sigma^2 / B times the second moment."""
    sigma = matched_sigma(batch, small, n=10)
    added = sigma**2 / batch * GRADIENTS.T @ GRADIENTS / 10
    np.testing.assert_allclose(batch_covariance(batch) + added, batch_covariance(small), rtol=1e-12, atol=1e-14)


def test_matched_noise_of_independent_draws():
    assert matched_sigma(4096, 128) == math.sqrt(31)
    assert matched_sigma(128, 128) == 0
    assert matched_sigma(100, 10, n=10**9) == pytest.approx(3, rel=1e-8)


@pytest.mark.parametrize("wrong", [(10, 11), (10, 0), (10, 2, 9)])
def test_batches_that_cannot_be_matched_are_refused(wrong):
    with pytest.raises(BadInput):
        matched_sigma(*wrong)


def test_weights_of_samples_have_the_mean_and_spread_asked_for():
    sigma, n = 3.0, 40_000
    drawn = MultiplicativeNoise(sigma, seed=3).weights(n, step=0, dtype=torch.float64)
    assert abs(drawn.mean() - 1) < 5 * sigma / math.sqrt(n)
    assert abs(drawn.var() - sigma**2) < 5 * sigma**2 * math.sqrt(2 / n)
    assert 5 * sigma**2 * math.sqrt(2 / n) < 0.1 * sigma**2  # a bias of a tenth would show


def test_the_gradient_of_weighted_losses_has_the_covariance_of_the_small_batch():
    """8,000 updates of a full batch with weighted samples, through autograd; 5 standard errors."""
    noise, steps = MultiplicativeNoise(matched_sigma(10, 2, n=10), seed=0), 8_000
    found = np.empty((steps, 2))
    features = torch.tensor(GRADIENTS)
    factors = torch.stack([noise.weights(10, step=step, dtype=torch.float64) for step in range(steps)])
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    losses = features @ w  # the gradient of sample n is its row
    for step in range(steps):
        if step < 20:
            (slope,) = torch.autograd.grad((factors[step] * losses).mean(), w, retain_graph=True)
            np.testing.assert_allclose(slope.numpy(), factors[step].numpy() @ GRADIENTS / 10, rtol=1e-12)
        found[step] = factors[step].numpy() @ GRADIENTS / 10
    truth = batch_covariance(2)
    assert (np.abs(found.mean(0)) < 5 * np.sqrt(np.diag(truth) / steps)).all()
    error = np.sqrt((truth**2 + np.outer(np.diag(truth), np.diag(truth))) / steps)
    assert (np.abs(np.cov(found.T) - truth) < 5 * error).all()


def test_factors_of_gradient_entries():
    """Every entry of many equal gradients has a factor of its own; one without gradient is left out."""
    w, idle = nn.Parameter(torch.zeros(200, 200, dtype=torch.float64)), nn.Parameter(torch.zeros(1))
    w.grad = torch.full_like(w, 2.0)
    MultiplicativeNoise(0.5, seed=1).scale_gradients([w, idle], step=4)
    assert abs(w.grad.mean() - 2) < 5 * 1.0 / 200
    assert abs(w.grad.var() - 1) < 5 * math.sqrt(2) / 200
    assert idle.grad is None
    flat = w.grad.flatten()
    assert abs(((flat[1:] - 2) * (flat[:-1] - 2)).mean()) < 5 / 200  # independent of their neighbours


def test_draws_depend_on_seed_and_step_only():
    noise = MultiplicativeNoise(1.0, seed=5)
    state = torch.get_rng_state()
    assert torch.equal(noise.weights(8, step=2), MultiplicativeNoise(1.0, seed=5).weights(8, step=2))
    assert not torch.equal(noise.weights(8, step=2), noise.weights(8, step=3))
    assert not torch.equal(noise.weights(8, step=2), MultiplicativeNoise(1.0, seed=6).weights(8, step=2))
    assert torch.equal(torch.get_rng_state(), state)


def langevin(*, lr, momentum, temperature, curvature, steps, chains=4000):
    """Independent chains on a quadratic, each an entry of one tensor, after many relaxation times."""
    w = nn.Parameter(torch.zeros(chains, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum)
    noise = IsotropicNoise(temperature, seed=2)
    for step in range(steps):
        w.grad = curvature * w.detach()
        noise.add_to_gradients(optimizer, step=step)
        optimizer.step()
    return w.detach()


@pytest.mark.parametrize(("lr", "momentum", "curvature"), [(0.5, 0.0, 1.0), (0.1, 0.0, 4.0), (0.05, 0.8, 1.0)])
def test_stationary_variance_on_a_quadratic(lr, momentum, curvature):
    """Heavy ball with noise s^2: variance lr s^2 (1+m) / (h (1-m) (2 (1+m) - lr h)), which is 2 T / (h (2 - lr h)) at m = 0."""
    temperature = 0.3
    w = langevin(lr=lr, momentum=momentum, temperature=temperature, curvature=curvature, steps=200)
    square = 2 * temperature * (1 - momentum) / lr
    truth = lr * square * (1 + momentum) / (curvature * (1 - momentum) * (2 * (1 + momentum) - lr * curvature))
    assert truth == pytest.approx(temperature / curvature, rel=0.35)
    if momentum == 0:
        assert truth == pytest.approx(2 * temperature / (curvature * (2 - lr * curvature)))
    assert abs(w.var() - truth) < 5 * truth * math.sqrt(2 / len(w))
    assert 5 * math.sqrt(2 / len(w)) < 0.12
    assert abs(w.mean()) < 5 * math.sqrt(truth / len(w))


def test_attached_noise_is_that_of_explicit_calls_also_after_resuming():
    ends = []
    for way in ("explicit", "attached", "resumed"):
        weights = [nn.Parameter(torch.ones(3, dtype=torch.float64)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
        optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.3}], lr=0.1)
        noise = IsotropicNoise(0.1, seed=0)
        handle = noise.attach(optimizer) if way != "explicit" else None
        for step in range(6):
            if way == "resumed" and step == 3:
                handle.remove()
                handle = noise.attach(optimizer, start=3)
            for w in weights:
                w.grad = w.detach().clone()
            if way == "explicit":
                noise.add_to_gradients(optimizer, step=step)
            optimizer.step()
        ends.append(torch.cat([w.detach() for w in weights]))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_zero_noise_and_zero_rate():
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    optimizer = torch.optim.SGD([w], lr=0.0)
    IsotropicNoise(1.0, seed=0).add_to_gradients(optimizer, step=0)
    optimizer.param_groups[0]["lr"] = 1.0
    IsotropicNoise(0.0, seed=0).add_to_gradients(optimizer, step=0)
    MultiplicativeNoise(0.0, seed=0).scale_gradients([w], step=0)
    assert (w.grad == 1).all()
    assert (MultiplicativeNoise(0.0, seed=0).weights(4, step=1) == 1).all()


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_wrong_strengths_are_refused(wrong):
    with pytest.raises(BadInput, match="sigma"):
        MultiplicativeNoise(wrong, seed=0)
    with pytest.raises(BadInput, match="temperature"):
        IsotropicNoise(wrong, seed=0)
