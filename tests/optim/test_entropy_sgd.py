# Oracle: on 1/2 h x^2 the walk is an autoregression: mean, variance and the local entropy's gradient in closed form.
from functools import partial

import pytest
import torch
from torch.optim import SGD

from gengap.core.errors import BadInput
from gengap.optim.entropy_sgd import EntropySgd, Walk

N, CURVATURE, START = 20_000, 2.0, 1.5  # independent coordinates with the same law
GAMMA, RATE, NOISE, ALPHA = 0.5, 0.1, 0.8, 0.3
DECAY = 1 - RATE * (CURVATURE + GAMMA)


def gradients(steps, noise=NOISE, seed=0, outer=1, scoping=0.0):
    """What the base is given at the last of `outer` steps, in every coordinate; the base does not move."""
    w = torch.nn.Parameter(torch.full((N,), START, dtype=torch.float64))
    walk = Walk(steps=steps, lr=RATE, noise=noise, alpha=ALPHA)
    optimizer = EntropySgd(
        [w], partial(SGD, lr=0.0), gamma=GAMMA, scoping=scoping, walk=walk, times_gamma=True, seed=seed
    )

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * CURVATURE * (w**2).sum()
        loss.backward()
        return loss

    for _ in range(outer):
        optimizer.step(closure)
    assert torch.equal(w, torch.full_like(w, START))
    return w.grad


def test_a_long_walk_finds_the_gradient_of_the_local_entropy():
    """exp(-h x'^2 / 2 - gamma (x - x')^2 / 2) is a Gaussian with mean gamma x / (h + gamma)."""
    found = gradients(steps=60)
    wanted = GAMMA * (START - GAMMA * START / (CURVATURE + GAMMA))
    error = found.std() / N**0.5
    assert abs(found.mean() - wanted) < 5 * error
    assert error < 0.02 * wanted


def test_the_noise_has_its_variance():
    found = (gradients(steps=60) / GAMMA).var().item()
    of_walk, b = RATE * NOISE**2 / (1 - DECAY**2), 1 - ALPHA
    of_mean = ALPHA**2 * of_walk / (1 - b**2) * (1 + b * DECAY) / (1 - b * DECAY)
    assert found == pytest.approx(of_mean, rel=5 * (2 / N) ** 0.5)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_short_walk_without_noise(steps):
    """Step l of the walk is at m + (x - m) decay^l, m the mean of the Gaussian; mu weighs the steps geometrically."""
    m = GAMMA * START / (CURVATURE + GAMMA)
    places = [m + (START - m) * DECAY**i for i in range(steps + 1)]
    weights = [(1 - ALPHA) ** steps] + [ALPHA * (1 - ALPHA) ** (steps - i) for i in range(1, steps + 1)]
    mu = sum(w * place for w, place in zip(weights, places, strict=True))
    found = gradients(steps, noise=0.0)
    torch.testing.assert_close(found, torch.full_like(found, GAMMA * (START - mu)), rtol=1e-12, atol=0)


def test_the_scope_grows_with_every_step():
    found = gradients(1, noise=0.0, outer=4, scoping=0.5)
    scope = GAMMA * 1.5**3
    wanted = scope * ALPHA * RATE * CURVATURE * START  # one step of the walk does not feel the pull
    torch.testing.assert_close(found, torch.full_like(found, wanted), rtol=1e-12, atol=0)


def test_noise_follows_the_seed_and_the_step():
    first = gradients(3, seed=1)
    assert torch.equal(first, gradients(3, seed=1))
    for other in (gradients(3, seed=2), gradients(3, seed=1, outer=2)):
        assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 5 / N**0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Walk(steps=0), "steps is 0"),
        (lambda: Walk(lr=0.0), "lr is 0"),
        (lambda: Walk(noise=-1.0), "noise is -1"),
        (lambda: Walk(alpha=0.0), "alpha is 0"),
        (lambda: EntropySgd([torch.nn.Parameter(torch.ones(1))], SGD, gamma=0.0), "gamma is 0"),
        (lambda: EntropySgd([torch.nn.Parameter(torch.ones(1))], SGD, scoping=-1.0), "scoping is -1"),
    ],
)
def test_refuses(make, words):
    with pytest.raises(BadInput, match=words):
        make()
