# Oracles: central differences of gradients for products with the Hessian; copies made before measuring, compared bit by bit.
# One exam: every measure on one small network of every kind. A new measure or network is one line in a table.
import json
import random

import numpy as np
import pytest
import torch
from noise_networks import KINDS, case
from torch import nn

import gengap
from gengap.measures.curvature.operators import gauss_newton, hessian
from gengap.measures.session import measuring
from gengap.measures.trees import ravel, unravel

MEASURES = {
    "sharpness": lambda f, p: gengap.sharpness(f, p, iterations=2),
    "subspace_sharpness": lambda f, p: gengap.subspace_sharpness(f, p, dim=3, repeats=2, iterations=2),
    "ball_sharpness": lambda f, p: gengap.ball_sharpness(f, p, steps=2),
    "adaptive ball": lambda f, p: gengap.ball_sharpness(f, p, adaptive=True, steps=2),
    "average_sharpness": lambda f, p: gengap.average_sharpness(f, p, max_pairs=3),
    "random_rise": lambda f, p: gengap.random_rise(f, p, samples=3),
    "steep_fraction": lambda f, p: gengap.steep_fraction(f, p, samples=2, steps=3),
    "top_eigenvalues": lambda f, p: gengap.top_eigenvalues(f, p, k=2, rel_error=0.1, max_products=12),
    "bottom_eigenvalues": lambda f, p: gengap.top_eigenvalues(
        f, p, k=1, which="bottom", rel_error=0.1, max_products=12
    ),
    "trace": lambda f, p: gengap.trace(f, p, rel_error=0.5, deflate=2, max_products=12),
    "gauss-newton trace": lambda f, p: gengap.trace(
        f, p, rel_error=0.5, deflate=2, max_products=12, matrix="gauss-newton"
    ),
    "spectral_density": lambda f, p: gengap.spectral_density(f, p, steps=3, starts=2, points=10),
    "noise_scale": lambda f, p: gengap.noise_scale(f, p),
    "two_batch_noise_scale": lambda f, p: gengap.two_batch_noise_scale(f, p, b_small=1, b_big=2, draws=8),
    "curvature_noise_scale": lambda f, p: gengap.curvature_noise_scale(f, p),
    "covariance_eigenvalues": lambda f, p: gengap.covariance_eigenvalues(f, p, k=2),
    "interpolate": lambda f, p: gengap.interpolate(f, a=p, b={k: 2 * v for k, v in p.items()}, alphas=[0, 0.5, 1]),
    "slice_1d": lambda f, p: gengap.slice_1d(f, p, positions=[-0.1, 0, 0.1]),
    "slice_2d": lambda f, p: gengap.slice_2d(f, p, x=[-0.1, 0.1], y=[0, 0.1]),
    "log_evidence": lambda f, p: gengap.log_evidence(f, p, l2=[0.1, 1.0], method="lanczos", steps=4, starts=2),
    "loss_against_distance": lambda f, p: gengap.loss_against_distance(f, p, max_distance=1.0, draws=30, bins=3),
}
TWENTY_FOUR = 24  # samples: enough for eight draws of two disjoint batches


def at_hand(name):
    c = case(name, n=TWENTY_FOUR)
    loss = c.problem.loss_function("train", buffers=dict(c.model.named_buffers()), batch_size=7)
    return loss, c


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def stripped(record):
    told = record.to_dict()
    return {k: v for k, v in told.items() if k not in {"seconds", "peak_memory", "conditions"}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_measure_takes_every_network_and_leaves_it_as_it_was(kind):
    loss, c = at_hand(kind)
    for p in c.model.parameters():
        p.grad = torch.ones_like(p)
    c.model.train()
    before = {n: t.clone() for n, t in c.model.state_dict().items()}
    buffers, at_start = {n: b.clone() for n, b in loss.buffers.items()}, states()
    for name, measure in MEASURES.items():
        found = measure(loss, c.params)
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)), name
        assert str(found), name
        assert states() == at_start, name
    assert all(torch.equal(t, before[n]) for n, t in c.model.state_dict().items())
    assert all(torch.equal(b, buffers[n]) for n, b in loss.buffers.items())
    assert all(p.grad.eq(1).all() for p in c.model.parameters())
    assert c.model.training


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_repeats_itself(name):
    loss, c = at_hand("batch norm")
    first, second = (stripped(MEASURES[name](loss, c.params)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_differences_of_gradients(kind):
    loss, c = at_hand(kind)
    with measuring(loss, c.params, passes="product") as session:
        rng = torch.Generator().manual_seed(4)
        v = torch.randn(session.weights, dtype=torch.float64, generator=rng)
        if (
            kind == "embedding"
        ):  # torch gives a padding row no gradient: it is no weight, though moving it moves the loss
            unravel(v, session.params)["table.weight"][1] = 0
        w, step = ravel(session.params), 1e-6
        slopes = [
            ravel(session.loss.value_and_grad(unravel(w + sign * step * v, session.params))[1]) for sign in (1, -1)
        ]
        by_differences = (slopes[0] - slopes[1]) / (2 * step)
        found = hessian(session)(v)
        torch.testing.assert_close(found, by_differences, rtol=1e-5, atol=1e-7)
        outer = gauss_newton(session)
        assert float(v @ outer(v)) >= -1e-12
        u = torch.randn(session.weights, dtype=torch.float64, generator=rng)
        assert float(u @ outer(v)) == pytest.approx(float(v @ outer(u)), rel=1e-9, abs=1e-12)


class Bigram(nn.Module):
    """Outputs (B, C, T) for targets (B, T), as a language model has them."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(5, 4), nn.Linear(4, 5)

    def forward(self, tokens):
        return self.out(torch.tanh(self.table(tokens))).transpose(1, 2)


def test_a_language_model_and_batch_statistics():
    rng = torch.Generator().manual_seed(0)
    tokens, following = (torch.randint(5, (TWENTY_FOUR, 6), generator=rng) for _ in range(2))
    words = gengap.Problem(model=Bigram, loss="cross_entropy", train=(tokens, following), test=(tokens, following))
    params = {k: p.detach().double() for k, p in words.model(seed=0).named_parameters()}
    for name, measure in MEASURES.items():
        assert json.dumps(measure(words.loss_function("train"), params).to_dict(), allow_nan=False), name
    c = case("batch norm", n=TWENTY_FOUR)
    coupled = c.problem.loss_function("train", batch_norm="batch")
    for name, measure in MEASURES.items():
        if name in {"noise_scale", "curvature_noise_scale", "covariance_eigenvalues", "two_batch_noise_scale"}:
            with pytest.raises(gengap.BadInput, match="statistics"):
                measure(coupled, c.params)
        else:
            assert json.dumps(measure(coupled, c.params).to_dict(), allow_nan=False), name


@pytest.mark.parametrize(("measure", "key"), [(gengap.top_eigenvalues, "values"), (gengap.sharpness, "percent")])
def test_a_pattern_measures_those_weights_alone(measure, key):
    loss, c = at_hand("mlp")

    def rest(p):
        return loss({**c.params, **p})

    one = measure(loss, c.params, only="2.*")
    other = measure(rest, {name: c.params[name] for name in ("2.weight", "2.bias")})
    assert getattr(one, key) == pytest.approx(getattr(other, key), rel=1e-6)
