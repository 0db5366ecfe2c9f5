"""K-FAC.

Oracles: dense Fisher matrices from per-sample Jacobians (autograd, one sample at a time), where the Kronecker form is exact;
Newton's step on least squares; a numpy twin of the whole rule.
"""

import numpy as np
import pytest
import torch
from kfac_tools import (
    EXACT,
    dense_fisher,
    drawn,
    factors,
    filled,
    half_square,
    in_parameter_order,
    one_step,
    output_fisher,
)
from torch import nn
from torch.nn import functional as F

from gengap.core.errors import BadInput
from gengap.optim.kfac import Curvature, Kfac
from gengap.optim.kfac_scores import exact_scores, sampled_scores


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_a_linear_layer_at_zero_has_exactly_the_kronecker_form(likelihood):
    """At zero weights every sample predicts the same, so the mean of products is the product of means."""
    model = filled(nn.Linear(4, 3), scale=0.0)
    x = drawn(9, 4)
    curvature = Curvature(likelihood=likelihood, **EXACT)
    optimizer = one_step(model, x, torch.zeros(9, 3), half_square, lr=0.0, curvature=curvature)
    np.testing.assert_allclose(
        in_parameter_order(*factors(optimizer, model), 4), dense_fisher(model, x, likelihood), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli"])
def test_one_sample_has_exactly_the_kronecker_form(likelihood):
    model, x = filled(nn.Linear(4, 3)), drawn(1, 4)
    curvature = Curvature(likelihood=likelihood, **EXACT)
    optimizer = one_step(model, x, torch.zeros(1, 3), half_square, lr=0.0, curvature=curvature)
    dense = dense_fisher(model, x, likelihood)
    np.testing.assert_allclose(in_parameter_order(*factors(optimizer, model), 4), dense, rtol=1e-12, atol=1e-15)
    assert np.abs(dense).max() > 1e-2


def test_a_deep_linear_network_has_exact_blocks():
    """With gaussian outputs the slopes do not depend on the sample."""
    model, x = filled(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2))), drawn(9, 4)
    curvature = Curvature(likelihood="gaussian", **EXACT)
    optimizer = one_step(model, x, torch.zeros(9, 2), half_square, lr=0.0, curvature=curvature)
    dense, start = dense_fisher(model, x, "gaussian"), 0
    for layer in model:
        size = layer.weight.numel() + layer.bias.numel()
        block = dense[start : start + size, start : start + size]
        found = in_parameter_order(*factors(optimizer, layer), layer.in_features)
        np.testing.assert_allclose(found, block, rtol=1e-11, atol=1e-14)
        start += size


def test_on_least_squares_a_step_is_newtons():
    model, x, y = filled(nn.Linear(4, 3)), drawn(30, 4), drawn(30, 3, seed=1)
    curvature = Curvature(likelihood="gaussian", damping=1e-28, **EXACT)
    one_step(model, x, y, half_square, curvature=curvature)
    best, *_ = np.linalg.lstsq(np.hstack([x, np.ones((30, 1))]), y.numpy())
    np.testing.assert_allclose(torch.cat([model.weight, model.bias[:, None]], 1).detach().numpy(), best.T, rtol=1e-8)


def test_logistic_step_against_the_dense_solution():
    """At zero weights (F + factored damping) u = gradient, solved as one dense system."""
    model, x = filled(nn.Linear(4, 3), scale=0.0), drawn(20, 4)
    y = torch.arange(20) % 3
    F.cross_entropy(model(x), y).backward()
    slope = np.concatenate([model.weight.grad.numpy().ravel(), model.bias.grad.numpy()])
    model.zero_grad()
    optimizer = one_step(model, x, y, F.cross_entropy, curvature=Curvature(damping=0.04, **EXACT))
    A, G = factors(optimizer, model)
    pi = np.sqrt((np.trace(A) / 5) / (np.trace(G) / 3))
    damped = in_parameter_order(A + pi * 0.2 * np.eye(5), G + 0.2 / pi * np.eye(3), 4)
    moved = np.concatenate([model.weight.detach().numpy().ravel(), model.bias.detach().numpy()])
    np.testing.assert_allclose(moved, -np.linalg.solve(damped, slope), rtol=1e-10)
    # the approximation of the damping: F + damping I would be another matrix, near by
    exact = dense_fisher(filled(nn.Linear(4, 3), scale=0.0), x, "softmax") + 0.04 * np.eye(15)
    assert np.linalg.norm(np.linalg.solve(exact, slope) + moved) < np.linalg.norm(moved)


class Twin:
    """The whole rule in numpy, for a network of two layers with tanh and exact gaussian factors."""

    def __init__(self, model, lr, momentum, decay, damping, factor_decay, inverse_every, kl_clip):
        self.W = [
            np.hstack([m.weight.detach().numpy(), m.bias.detach().numpy()[:, None]]) for m in (model[0], model[2])
        ]
        self.lr, self.momentum, self.decay, self.damping = lr, momentum, decay, damping
        self.factor_decay, self.every, self.kl_clip, self.k = factor_decay, inverse_every, kl_clip, 0
        self.A, self.G, self.v = [0, 0], [0, 0], [0, 0]

    def step(self, x, y):
        ones = np.ones((len(x), 1))
        a0 = np.hstack([x, ones])
        h = np.tanh(a0 @ self.W[0].T)
        a1 = np.hstack([h, ones])
        error = (a1 @ self.W[1].T - y) / len(x)
        back = (error @ self.W[1][:, :-1]) * (1 - h**2)
        slopes = [back.T @ a0 + self.decay * self.W[0], error.T @ a1 + self.decay * self.W[1]]
        G0 = sum(np.einsum("bi,bj->ij", s, s) for s in (self.W[1][c, :-1] * (1 - h**2) for c in range(2))) / len(x)
        new = [(a0.T @ a0 / len(x), G0), (a1.T @ a1 / len(x), np.eye(2))]
        old = min(1 - 1 / (self.k + 1), self.factor_decay)
        for i, (A, G) in enumerate(new):
            self.A[i], self.G[i] = old * self.A[i] + (1 - old) * A, old * self.G[i] + (1 - old) * G
        if self.k % self.every == 0:
            self.inverse = [self.inverted(A, G) for A, G in zip(self.A, self.G, strict=True)]
        U = [G @ s @ A for (A, G), s in zip(self.inverse, slopes, strict=True)]
        change = self.lr**2 * sum((u * s).sum() for u, s in zip(U, slopes, strict=True))
        self.shorter = min(1, np.sqrt(self.kl_clip / change))
        for i in range(2):
            self.v[i] = self.momentum * self.v[i] + self.shorter * U[i]
            self.W[i] = self.W[i] - self.lr * self.v[i]
        self.k += 1

    def inverted(self, A, G):
        root = np.sqrt(self.damping + self.decay)
        pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(G) / len(G)))
        return np.linalg.inv(A + pi * root * np.eye(len(A))), np.linalg.inv(G + root / pi * np.eye(len(G)))


@pytest.mark.parametrize("kl_clip", [1e-3, 10.0], ids=["shortened", "not shortened"])
def test_follows_a_numpy_twin_of_the_whole_rule(kl_clip):
    model = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    twin = Twin(model, 0.3, 0.8, 0.05, 0.02, 0.6, 3, kl_clip)
    curvature = Curvature(
        likelihood="gaussian", samples=None, damping=0.02, factor_decay=0.6, inverse_every=3, kl_clip=kl_clip
    )
    optimizer = Kfac(model, lr=0.3, momentum=0.8, weight_decay=0.05, curvature=curvature)
    shortened = []
    for step in range(8):
        x, y = drawn(12, 3, seed=step), drawn(12, 2, seed=50 + step)
        optimizer.zero_grad()
        half_square(model(x), y).backward()
        optimizer.step()
        twin.step(x.numpy(), y.numpy())
        shortened.append(twin.shorter < 1)
        for layer, W in zip((model[0], model[2]), twin.W, strict=True):
            found = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().numpy()
            np.testing.assert_allclose(found, W, rtol=1e-9, atol=1e-11)
    assert all(shortened) if kl_clip == 1e-3 else not any(shortened)


def test_accumulated_passes_make_the_factors_of_the_whole_batch():
    x, y = drawn(12, 3), torch.arange(12) % 2
    found = []
    for parts in (1, 3):
        model = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
        optimizer = Kfac(model, lr=0.0, curvature=Curvature(**EXACT))
        for rows in torch.arange(12).split([12] if parts == 1 else [2, 3, 7]):
            (F.cross_entropy(model(x[rows]), y[rows]) * len(rows) / 12).backward()
        optimizer.step()
        found.append([factor for layer in (model[0], model[2]) for factor in factors(optimizer, layer)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


class ClassesSecond(nn.Module):
    """What language models give, and torch's cross-entropy takes: (B, C, T)."""

    def forward(self, x):
        return x.transpose(1, 2) if x.dim() == 3 else x


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_sequences_are_positions(likelihood):
    """A token model without mixing: the same rows given as tokens of sequences or as samples have the same factors."""
    x = drawn(6, 4, 3)
    last = ClassesSecond() if likelihood == "softmax" else nn.Identity()
    found = []
    for inputs in (x, x.reshape(24, 3)):
        model = filled(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), last))
        optimizer = Kfac(model, lr=0.0, curvature=Curvature(likelihood=likelihood, **EXACT))
        model(inputs).square().mean().backward()
        optimizer.step()
        found.append([factor for layer in (model[0], model[2]) for factor in factors(optimizer, layer)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_drawn_labels_are_unbiased(likelihood):
    """Outer products of 20,000 drawn scores against the matrix from its definition; 5 standard errors."""
    f = drawn(3, seed=4)
    outputs = f.expand(20_000, 3)
    found = sampled_scores(likelihood, outputs, torch.Generator().manual_seed(0)).numpy()
    outer = found[:, :, None] * found[:, None, :]
    truth = output_fisher(likelihood, f)
    error = outer.std(0) / np.sqrt(len(outer))
    assert (np.abs(outer.mean(0) - truth) <= 5 * error + 1e-15).all()
    assert 5 * error.max() < 0.1 * np.abs(truth).max()
    assert (np.abs(found.mean(0)) < 5 * found.std(0) / np.sqrt(len(found))).all()
    exact = sum(np.outer(s[0], s[0]) for s in exact_scores(likelihood, outputs))
    np.testing.assert_allclose(exact, truth, rtol=1e-12, atol=1e-15)


def test_draws_differ_between_steps_and_passes_and_seeds():
    x, found = drawn(8, 3), []
    for seed in (0, 1):
        model = filled(nn.Linear(3, 2))
        optimizer = Kfac(model, lr=0.0, curvature=Curvature(likelihood="gaussian", factor_decay=0.0, seed=seed))
        for _ in range(2):
            model(x).sum().backward()
            optimizer.step()
            found.append(factors(optimizer, model)[1].copy())
    assert len({factor.tobytes() for factor in found}) == 4


def test_reading_touches_no_gradient_no_generator_and_only_its_turns():
    model, x = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))), drawn(8, 3)
    optimizer = Kfac(model, lr=0.0, curvature=Curvature(factor_every=3))
    state = torch.get_rng_state()
    readings = []
    for _ in range(5):
        outputs = model(x)
        assert all(p.grad is None for p in model.parameters())
        outputs.sum().backward()
        model.eval()(x)
        with torch.no_grad():
            model.train()(x)
        optimizer.step()
        optimizer.zero_grad()
        readings.append(optimizer.state[model[0].weight]["readings"])
    assert readings == [1, 1, 1, 2, 2]
    assert torch.equal(torch.get_rng_state(), state)
    optimizer.close()
    assert not model._forward_hooks
    assert not model[0]._forward_hooks


def test_other_weights_take_momentum_steps():
    model = filled(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    optimizer = Kfac(model, lr=0.1, momentum=0.9, weight_decay=0.2)
    twin = nn.Parameter(model[1].weight.detach().clone())
    sgd = torch.optim.SGD([twin], lr=0.1, momentum=0.9, weight_decay=0.2)
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(drawn(8, 3, seed=step)), torch.arange(8) % 2).backward()
        twin.grad = model[1].weight.grad.clone()
        optimizer.step()
        sgd.step()
    torch.testing.assert_close(model[1].weight.detach(), twin.detach(), rtol=1e-12, atol=0)


def test_a_shared_layer_sums_over_its_uses():
    """Used twice in a row, a linear layer with gaussian outputs: A is the sum over uses, G their mean."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            return self.layer(self.layer(x))

    model, x = filled(Twice()), drawn(7, 3)
    optimizer = one_step(
        model, x, torch.zeros(7, 3), half_square, lr=0.0, curvature=Curvature(likelihood="gaussian", **EXACT)
    )
    A, G = factors(optimizer, model.layer)
    W, x = model.layer.weight.detach().numpy(), x.numpy()
    hidden = x @ W.T
    np.testing.assert_allclose(A, (x.T @ x + hidden.T @ hidden) / 7, rtol=1e-12)
    np.testing.assert_allclose(G, (W.T @ W + np.eye(3)) / 2, rtol=1e-12)


def test_average_is_given_every_factor():
    seen = []
    model = filled(nn.Linear(3, 2))
    one_step(
        model, drawn(5, 3), torch.zeros(5, 2), half_square, average=lambda factor: seen.append(factor.mul_(2).shape)
    )
    assert seen == [(4, 4), (2, 2)]


def test_what_it_cannot_do_is_refused():
    with pytest.raises(BadInput, match="no linear"):
        Kfac(nn.BatchNorm1d(3), lr=0.1)
    with pytest.raises(BadInput, match="float32 or float64"):
        Kfac(nn.Linear(2, 2).half(), lr=0.1)
    for wrong in ({"damping": 0}, {"likelihood": "poisson"}, {"samples": 0}, {"factor_decay": 1.0}, {"kl_clip": -1}):
        with pytest.raises(BadInput):
            Curvature(**wrong)
    model = nn.Linear(2, 2)
    optimizer = Kfac(model, lr=0.1)
    model.eval()(torch.ones(3, 2)).sum().backward()
    with pytest.raises(BadInput, match="training mode"):
        optimizer.step()
    flat = nn.Linear(2, 2).train()
    Kfac(flat, lr=0.1)
    with pytest.raises(BadInput, match="one tensor"):
        flat(torch.ones(2))
    tiny = nn.Linear(2, 2)
    optimizer = Kfac(tiny, lr=0.1, curvature=Curvature(damping=1e-30))
    tiny(torch.ones(3, 2)).sum().backward()
    with pytest.raises(BadInput, match="raise the damping"):
        optimizer.step()
