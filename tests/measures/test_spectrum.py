# Oracles: matrices of prescribed spectrum, whose traces, densities and log-determinants are sums over known numbers;
# numpy's dense eigenvalues of softmax regression's closed-form Hessian; a naive Lanczos with full orthogonalisation.
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.measures.curvature.density import spectral_density
from gengap.measures.curvature.operators import Dense
from gengap.measures.curvature.quadrature import lanczos_quadrature, mean_over_rules, signs, tridiagonal

SPECTRUM = np.concatenate([[100.0, 50.0, 20.0, -5.0], np.logspace(-4, 0, 196)])


def with_spectrum(values, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=rng))
    return Dense(((turn * torch.as_tensor(values, dtype=torch.float64)) @ turn.T).to(dtype))


def as_loss(operator):
    return lambda w: 0.5 * w @ operator.matrix @ w


def naive_lanczos(matrix, start, steps):
    """Every vector is made orthogonal to all before it, twice, in float64."""
    basis = [start / np.linalg.norm(start)]
    for _ in range(steps - 1):
        w = matrix @ basis[-1]
        for _ in range(2):
            for q in basis:
                w = w - q * (q @ w)
        basis.append(w / np.linalg.norm(w))
    q = np.array(basis)
    return np.linalg.eigh(q @ matrix @ q.T)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_recurrence_equals_a_naive_lanczos(steps):
    operator = with_spectrum(np.linspace(-1, 2, 100))  # nothing converges in ten steps: orthogonality lasts that long
    start = signs(operator, 3)
    nodes, turned = naive_lanczos(operator.matrix.numpy(), start.numpy(), steps)
    diagonal, beside = tridiagonal(operator, start, steps)
    t = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    ours, mixed = np.linalg.eigh(t)
    assert ours == pytest.approx(nodes, rel=1e-6, abs=1e-8)
    assert mixed[0] ** 2 == pytest.approx(turned[0] ** 2, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_long_runs_lose_orthogonality_but_not_their_sums(dtype):
    """150 steps repeat the outer nodes many times; moments, logarithms and counts stay right."""
    operator = with_spectrum(SPECTRUM, dtype=dtype)
    start = signs(operator, 1)
    (rule,) = lanczos_quadrature(operator, steps=150, starts=1, seed=0)
    start = signs(operator, gengap_stream(0, 0))
    values, turn = np.linalg.eigh(operator.matrix.double().numpy())
    share = (turn.T @ start.double().numpy()) ** 2 / operator.size
    for function in (lambda x: x, np.square, lambda x: np.log(np.abs(x) + 0.1), lambda x: np.exp(-(x**2))):
        exact = share @ function(values)
        assert rule.mean(function) == pytest.approx(exact, rel=1e-5 if dtype == torch.float32 else 1e-9)
    assert rule.weights.sum() == pytest.approx(1, rel=1e-12)


def gengap_stream(seed, index):
    from gengap.core.seeds import stream

    return stream(seed, "quadrature", index)


def test_sums_over_eigenvalues_are_unbiased_and_their_error_is_right():
    operator = with_spectrum(np.concatenate([[2.0, 1.7, -0.5], np.linspace(0, 1, 97)]))
    values = np.linalg.eigvalsh(operator.matrix.numpy())
    rules = lanczos_quadrature(operator, steps=20, starts=300, seed=5)
    for function in (lambda x: x, lambda x: np.log(1 + np.abs(x)), np.square):
        found, exact = mean_over_rules(rules, function), function(values).mean()
        assert abs(found.value - exact) < 5 * found.stderr
        assert found.stderr < 0.02 * abs(exact)  # the test has power: a 10 % bias would fail


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 3), st.integers(0, 1000))
def test_any_size_gives_a_rule(size, steps, starts, seed):
    operator = with_spectrum(np.random.default_rng(seed).normal(size=size), seed)
    rules = lanczos_quadrature(operator, steps=steps, starts=starts, seed=seed)
    assert len(rules) == starts
    for i, rule in enumerate(rules):
        assert rule.weights.sum() == pytest.approx(1, rel=1e-9)
        v = signs(operator, gengap_stream(seed, i))
        assert rule.mean(lambda x: x) == pytest.approx(float(v @ operator.matrix @ v) / size, rel=1e-8, abs=1e-10)


def test_the_zero_matrix_has_one_node():
    (rule,) = lanczos_quadrature(Dense(torch.zeros(5, 5, dtype=torch.float64)), steps=4, starts=1, seed=0)
    assert rule.nodes.tolist() == [0.0]
    assert rule.weights.tolist() == [1.0]


def test_the_density_is_that_of_the_known_spectrum():
    values = np.concatenate([[6.0], np.linspace(-1, 1, 99)])
    operator = with_spectrum(values)
    found = spectral_density(as_loss(operator), torch.zeros(100, dtype=torch.float64), steps=40, starts=60, width=0.2)
    grid = np.array(found.grid)
    exact = np.exp(-0.5 * ((grid[:, None] - values) / 0.2) ** 2).mean(1) / (0.2 * math.sqrt(2 * math.pi))
    inside = (np.array(found.low) <= exact + 1e-9) & (exact <= np.array(found.high) + 1e-9)
    # neighbouring points are alike, so the share that a 95 % band covers varies; a band of wrong width is far from it
    assert inside.mean() > 0.8
    assert np.abs(np.array(found.density) - exact).max() < 0.1 * exact.max()
    assert np.trapezoid(found.density, grid) == pytest.approx(1, abs=0.01)
    assert found.nodes[0][-1] == pytest.approx(6, rel=1e-6)


def test_the_band_covers_the_truth_as_often_as_it_says():
    values = np.concatenate([[3.0], np.linspace(-1, 1, 59)])
    covered = []
    for seed in range(40):
        operator = with_spectrum(values, seed)
        w = torch.zeros(60, dtype=torch.float64)
        found = spectral_density(as_loss(operator), w, steps=15, starts=8, width=0.3, points=4, seed=seed)
        at = int(np.argmin(np.abs(np.array(found.grid))))
        exact = np.exp(-0.5 * ((found.grid[at] - values) / 0.3) ** 2).mean() / (0.3 * math.sqrt(2 * math.pi))
        covered.append(found.low[at] <= exact <= found.high[at])
    assert 0.8 <= np.mean(covered) <= 1.0  # 0.95 within 4.5 binomial errors


def test_shares_and_moments():
    values = np.concatenate([[50.0, 40.0], np.full(8, -10.0), np.zeros(90)])
    operator = with_spectrum(values)
    found = spectral_density(as_loss(operator), torch.zeros(100, dtype=torch.float64), steps=10, starts=200, width=1.0)
    for estimate, exact in (
        (found.trace, 10.0),
        (found.squared_norm, 4900.0),
        (found.negative, 0.08),
        (found.near_zero, 0.9),
        (found.share_above(30.0), 0.02),
    ):
        assert abs(estimate.value - exact) < 5 * estimate.stderr
    assert found.near_zero.stderr < 0.01
    assert found.squared_norm.stderr < 0.05 * 4900


def test_a_softmax_regression_and_the_record():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, dtype=torch.float64, generator=rng)
    y = torch.randint(3, (40,), generator=rng)
    problem = gengap.Problem(model=lambda: nn.Linear(5, 3, bias=False), loss="cross_entropy", train=(x, y), test=(x, y))
    weight = torch.randn(3, 5, dtype=torch.float64, generator=rng)
    p = torch.softmax(x @ weight.T, 1).numpy()
    exact = np.mean(
        [np.kron(np.diag(q) - np.outer(q, q), np.outer(r, r)) for q, r in zip(p, x.numpy(), strict=True)], 0
    )
    loss = problem.loss_function("train", batch_size=7)
    for matrix in ("hessian", "gauss-newton"):
        found = spectral_density(loss, {"weight": weight}, steps=12, starts=30, matrix=matrix)
        assert abs(found.trace.value - np.trace(exact)) < 5 * found.trace.stderr < 0.6 * np.trace(exact)
        assert found.nodes[0][-1] == pytest.approx(np.linalg.eigvalsh(exact)[-1], rel=1e-8)
    again = spectral_density(loss, {"weight": weight}, steps=12, starts=30, matrix="gauss-newton")
    assert again.density == found.density
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert said["products"] == 360
    assert said["samples"] == 40
    assert set(said["trace"]) >= {"value", "stdev", "n", "interval"}
    assert "trace" in str(found)


def test_bad_arguments_are_refused_in_a_sentence():
    def loss(w):
        return w.square().sum()

    for wrong, words in (
        ({"steps": 1}, "steps is 1"),
        ({"starts": 1}, "starts is 1"),
        ({"points": 1.5}, "points is 1.5"),
        ({"width": -1.0}, "width is -1.0"),
        ({"matrix": "kfac"}, "matrix is 'kfac'"),
    ):
        with pytest.raises(BadInput, match=words):
            spectral_density(loss, torch.ones(3), **wrong)
