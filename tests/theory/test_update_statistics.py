# Oracles: every batch enumerated, with its exact mean and covariance; all permutations of a small epoch; the noise scale of
# the stochastic differential equation; drawn multiplicative noise with error bars.
import itertools
import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.noise_scale import sde_noise_scale
from gengap.theory.ornstein_uhlenbeck import HeavyBall
from gengap.theory.update_statistics import (
    epoch_sum_variance,
    matching_lr,
    matching_noise,
    update_covariance,
    update_variance,
)

RNG = np.random.default_rng(0)
G = RNG.normal(size=(8, 3)) @ RNG.normal(size=(3, 3)) + [1.0, -0.5, 0.0]
F = G[:, 0].var()


def scatter(batches):
    means = np.array([G[list(rows)].mean(axis=0) for rows in batches])
    return np.cov(means.T, bias=True)


@pytest.mark.parametrize("B", [1, 3, 7, 8])
def test_one_update_by_enumeration(B):
    lr = 0.3
    exact = lr**2 * scatter(itertools.combinations(range(8), B))
    np.testing.assert_allclose(update_covariance(G, lr=lr, batch_size=B), exact, atol=1e-14)
    found = update_variance(F, lr=lr, batch_size=B, samples=8)
    assert found.exact == pytest.approx(exact[0, 0], abs=1e-14)
    g = sde_noise_scale(lr=lr, batch_size=B, samples=8).value
    assert found.diffusion == pytest.approx(lr * g * F / 8)  # one update is an integration over a time of lr / N
    assert found.exact == pytest.approx(found.diffusion * 8 / 7)
    assert found.exact == pytest.approx(lr**2 * F * HeavyBall(lr, B, samples=8).noise_share)


@pytest.mark.parametrize("B", [1, 2, 3])
def test_with_replacement_by_enumeration(B):
    found = update_covariance(G, lr=0.3, batch_size=B, sampling="with replacement")
    np.testing.assert_allclose(found, 0.09 * scatter(itertools.product(range(8), repeat=B)), rtol=1e-10)


def test_epochs_by_all_permutations():
    """N = 6, B = 2: the three updates of an epoch, their correlation, and sums that come back to zero."""
    g = G[:6, 0]
    means = np.array([g[list(order)].reshape(3, 2).mean(axis=1) for order in itertools.permutations(range(6))])
    found = update_variance(g.var(), lr=1.0, batch_size=2, samples=6)
    assert found.epoch_correlation == pytest.approx(np.corrcoef(means.T)[0, 1]) == pytest.approx(-0.5)
    for k in (1, 2, 3):
        expected = means[:, :k].sum(axis=1).var()
        assert epoch_sum_variance(g.var(), lr=1.0, batch_size=2, samples=6, updates=k) == pytest.approx(
            expected, abs=1e-14
        )
    assert np.ptp(means.sum(axis=1)) < 1e-14
    assert epoch_sum_variance(1.0, lr=1.0, batch_size=6, samples=6, updates=1) == 0


def test_simulated_updates_of_a_linear_model():
    """Least squares on 40 samples, batches of 5: 20,000 drawn updates, exact to 5 standard errors, diffusion 2.5 % off."""
    rng, N, B, lr = np.random.default_rng(1), 40, 5, 0.1
    x, y, w = rng.normal(size=(N, 2)), rng.normal(size=N), np.array([0.5, -1.0])
    gradients = (x @ w - y)[:, None] * x
    rows = rng.permuted(np.tile(np.arange(N), (20_000, 1)), axis=1)[:, :B]
    updates = -lr * gradients[rows].mean(axis=1)[:, 0]
    found = update_variance(gradients[:, 0].var(), lr=lr, batch_size=B, samples=N)
    squares = (updates + lr * gradients[:, 0].mean()) ** 2
    stderr = squares.std(ddof=1) / math.sqrt(len(squares))
    assert abs(squares.mean() - found.exact) < 5 * stderr < 0.1 * found.exact
    assert found.ratio == pytest.approx(40 / 39)


@pytest.mark.parametrize("sampling", ["without replacement", "with replacement"])
def test_multiplicative_noise_has_the_covariance_of_a_small_batch(sampling):
    """40,000 drawn batches of 6 out of 8 with factors N(1, sigma^2), each entry within 5 standard errors."""
    rng, draws, B, noise = np.random.default_rng(2), 40_000, 6, 2.0
    if sampling == "with replacement":
        rows = rng.integers(8, size=(draws, B))
    else:
        rows = rng.permuted(np.tile(np.arange(8), (draws, 1)), axis=1)[:, :B]
    z = 1 + math.sqrt(noise) * rng.standard_normal((draws, B, 1))
    means = (z * G[rows]).mean(axis=1) - G.mean(axis=0)
    products = means[:, :, None] * means[:, None, :]
    stderr = products.std(axis=0, ddof=1) / math.sqrt(draws)
    found = update_covariance(G, lr=1.0, batch_size=B, sampling=sampling, noise_variance=noise)
    assert (np.abs(products.mean(axis=0) - found) < 5 * stderr).all()
    assert stderr[0, 0] < 0.02 * found[0, 0]


def test_matching_noise_matches_where_the_mean_gradient_vanishes():
    centred = G - G.mean(axis=0)
    sigma2 = matching_noise(small=4, large=64)
    assert sigma2 == 15
    many = np.tile(centred, (100, 1))
    small = update_covariance(many, lr=0.1, batch_size=4, sampling="with replacement")
    large = update_covariance(many, lr=0.1, batch_size=64, sampling="with replacement", noise_variance=sigma2)
    np.testing.assert_allclose(small, large, rtol=1e-12)
    extra = update_covariance(G, lr=1.0, batch_size=8, sampling="with replacement", noise_variance=3.0)
    extra -= update_covariance(centred, lr=1.0, batch_size=8, sampling="with replacement", noise_variance=3.0)
    np.testing.assert_allclose(extra, 3 / 8 * np.outer(G.mean(axis=0), G.mean(axis=0)), atol=1e-13)


def test_matching_lr_keeps_the_covariance():
    assert matching_lr(0.1, small=16, large=64) == pytest.approx(0.2)
    for samples, sampling in ((None, "with replacement"), (8, "without replacement")):
        lr = matching_lr(0.1, small=2, large=6, samples=samples)
        np.testing.assert_allclose(
            update_covariance(G, lr=0.1, batch_size=2, sampling=sampling),
            update_covariance(G, lr=lr, batch_size=6, sampling=sampling),
            rtol=1e-10,
        )


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: update_variance(-1.0, lr=0.1, batch_size=1, samples=2), "gradient_variance is -1.0"),
        (lambda: update_variance(1.0, lr=0.1, batch_size=3, samples=2), "batch_size is 3; give a number from 1 to samples"),
        (lambda: update_covariance([1.0], lr=0.1, batch_size=1), r"gradients has shape \(1,\)"),
        (lambda: update_covariance(G, lr=0.1, batch_size=1, sampling="urn"), "sampling is 'urn'; choose one of"),
        (lambda: update_covariance(G, lr=0.1, batch_size=1, noise_variance=-1), "noise_variance is -1"),
        (lambda: epoch_sum_variance(1.0, lr=0.1, batch_size=3, samples=8, updates=3), "updates is 3; an epoch of 8 "),
        (lambda: matching_lr(0.1, small=8, large=4), "small is 8 and large 4; give 1 <= small <= large"),
        (lambda: matching_lr(0.1, small=2, large=8, samples=8), "large is all 8 samples"),
        (lambda: matching_noise(small=0, large=4), "small is 0"),
    ],
)  # fmt: skip
def test_refuses_with_a_sentence(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
