# Oracles: matrices of prescribed spectrum, the closed form of softmax regression's Hessian written out sample by sample in
# numpy, and numpy's dense eigenvalues of finite differences for a network.
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

import gengap
from gengap.core.errors import BadInput
from gengap.measures.curvature.eigenvalues import extreme_pairs, random_start, top_eigenvalues
from gengap.measures.curvature.operators import Dense
from gengap.measures.curvature.stability import max_stable_lr

N, F, C = 53, 4, 3


def with_spectrum(values, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=rng))
    return Dense(((turn * torch.as_tensor(values, dtype=torch.float64)) @ turn.T).to(dtype))


def samples(seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(N, F, dtype=torch.float64, generator=rng) * torch.tensor([3.0, 1.0, 0.5, 0.1])
    return x, torch.randint(C, (N,), generator=rng)


def softmax_hessian(weight, x):
    """H = mean over samples of (diag p - p p^T) kron (x x^T), for weights of shape (C, F) in row-major order."""
    w, inputs = weight.numpy(), x.numpy()
    total = np.zeros((C * F, C * F))
    for row in inputs:
        scores = np.exp(w @ row - (w @ row).max())
        p = scores / scores.sum()
        total += np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row))
    return total / len(inputs)


def softmax_regression(chunk=None):
    x, y = samples()
    problem = gengap.Problem(
        model=lambda: nn.Linear(F, C, bias=False), loss="cross_entropy", train=(x, y), test=(x, y), name="softmax"
    )
    loss = problem.loss_function("train", batch_size=chunk)
    weight = torch.randn(C, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return loss, {"weight": weight}, softmax_hessian(weight, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["top", "bottom"])
def test_finds_both_ends_of_a_known_spectrum(dtype, which):
    known = np.concatenate([[90.0, 31.0, 30.0, 7.0, 5.0, -8.0, -3.0, -2.5], np.linspace(-1, 1, 192)])
    operator = with_spectrum(known, dtype=dtype)
    pairs = extreme_pairs(operator, random_start(operator, 0), k=3, rel_error=1e-4, which=which)
    exact = sorted(known, reverse=which == "top")[:3]
    assert pairs.converged
    assert pairs.values == pytest.approx(exact, rel=1e-4)
    # each residual bounds the distance to an eigenvalue, whatever is known of the others; rounding comes on top
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.abs(known - value).min() <= residual + 1e-4 * (dtype == torch.float32)
    gram = pairs.vectors.double() @ pairs.vectors.double().T
    assert gram.numpy() == pytest.approx(np.eye(3), abs=1e-5 if dtype == torch.float32 else 1e-12)


def test_the_estimated_error_is_near_the_true_one_and_never_far_below():
    known = np.concatenate([[12.0, 9.0, 6.0, 5.5, 4.0], np.linspace(0, 2, 395)])
    ratios = []
    for seed in range(20):
        operator = with_spectrum(known, seed)
        pairs = extreme_pairs(operator, random_start(operator, seed), k=2, rel_error=1e-3)
        ratios.extend(np.abs(pairs.values - known[:2]) / pairs.errors)
    assert max(ratios) < 3
    assert np.median(ratios) > 1e-3


@pytest.mark.parametrize("chunk", [None, 10], ids=["whole", "ragged"])
def test_softmax_regression_agrees_with_its_closed_form(chunk):
    loss, params, exact = softmax_regression(chunk)
    values = np.linalg.eigvalsh(exact)[::-1]
    for matrix in ("hessian", "gauss-newton"):
        found = top_eigenvalues(loss, params, k=4, rel_error=1e-8, matrix=matrix)
        assert found.values == pytest.approx(values[:4], rel=1e-8)
        for value, vector in zip(found.values, found.vectors, strict=True):
            v = vector["weight"].reshape(-1).numpy()
            assert exact @ v == pytest.approx(value * v, abs=1e-4 * values[0])


def test_all_eigenvalues_of_a_small_problem():
    loss, params, exact = softmax_regression()
    found = top_eigenvalues(loss, params, k=C * F, rel_error=1e-6)
    assert found.values == pytest.approx(np.linalg.eigvalsh(exact)[::-1], abs=1e-10)
    assert found.converged


def test_a_network_agrees_with_finite_differences_of_its_gradient():
    x, y = samples()
    net = nn.Sequential(nn.Linear(F, 5), nn.Tanh(), nn.Linear(5, C)).double()
    params = {name: p.detach() for name, p in net.named_parameters()}
    problem = gengap.Problem(model=lambda: net, loss="cross_entropy", train=(x, y), test=(x, y))
    flat = torch.cat([p.reshape(-1) for p in params.values()])

    def gradient(w):
        nn.utils.vector_to_parameters(w, net.parameters())
        net.zero_grad()
        cross_entropy(net(x), y).backward()
        return torch.cat([p.grad.reshape(-1) for p in net.parameters()]).clone()

    steps = torch.eye(len(flat), dtype=torch.float64) * 1e-5
    dense = torch.stack([(gradient(flat + s) - gradient(flat - s)) / 2e-5 for s in steps]).numpy()
    exact = np.linalg.eigvalsh((dense + dense.T) / 2)
    params = {name: p.clone() for name, p in unflattened(flat, params).items()}
    loss = problem.loss_function("train")
    assert top_eigenvalues(loss, params, k=3, rel_error=1e-7).values == pytest.approx(exact[::-1][:3], rel=1e-6)
    bottom = top_eigenvalues(loss, params, k=2, rel_error=1e-7, which="bottom")
    assert bottom.values == pytest.approx(exact[:2], rel=1e-5)


def unflattened(flat, like):
    parts = flat.split([p.numel() for p in like.values()])
    return {name: part.view(p.shape) for part, (name, p) in zip(parts, like.items(), strict=True)}


def test_earlier_vectors_shorten_the_search():
    known = np.concatenate([[12.0, 9.0, 6.0, 5.5, 4.0], np.linspace(0, 2, 395)])
    old, new = with_spectrum(known), with_spectrum(known * 1.01)
    first = extreme_pairs(old, random_start(old, 0), k=3, rel_error=1e-3)
    cold = extreme_pairs(new, random_start(new, 1), k=3, rel_error=1e-3)
    spent = new.products
    warm = extreme_pairs(new, first.vectors.sum(0), k=3, rel_error=1e-3)
    assert warm.values == pytest.approx(cold.values, rel=2e-3)
    assert new.products - spent < spent


def test_vectors_of_an_earlier_checkpoint_are_taken_by_name():
    loss, params, exact = softmax_regression()
    first = top_eigenvalues(loss, params, k=2, rel_error=1e-8)
    again = top_eigenvalues(loss, params, k=2, rel_error=1e-8, start=first.vectors)
    assert again.values == pytest.approx(np.linalg.eigvalsh(exact)[::-1][:2], rel=1e-8)
    assert again.products < first.products


def test_restarts_when_the_subspace_is_full():
    known = np.concatenate([[1.002, 1.001], np.linspace(-1, 1, 498)])
    operator = with_spectrum(known)
    pairs = extreme_pairs(operator, random_start(operator, 0), k=1, rel_error=1e-8, most=2000)
    assert operator.products > 25
    assert pairs.values[0] == pytest.approx(1.002, rel=1e-7)


def test_says_when_it_was_stopped_before_it_converged():
    operator = with_spectrum(np.linspace(0, 1, 300))
    loss, params, _ = softmax_regression()
    pairs = extreme_pairs(operator, random_start(operator, 0), k=2, rel_error=1e-12, most=5)
    assert not pairs.converged
    stopped = top_eigenvalues(loss, params, k=2, rel_error=1e-14, max_products=4)
    assert not stopped.converged
    assert "not converged" in str(stopped)


def test_ends_where_the_start_spans_an_invariant_subspace():
    operator = Dense(torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0], dtype=torch.float64)))
    start = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    pairs = extreme_pairs(operator, start, k=2, rel_error=1e-8)
    assert pairs.values == pytest.approx([5.0, 4.0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000), st.data())
def test_any_size_and_any_number_wanted(size, seed, data):
    k = data.draw(st.integers(1, size))
    known = -np.sort(-np.random.default_rng(seed).normal(size=size))
    operator = with_spectrum(known, seed)
    pairs = extreme_pairs(operator, random_start(operator, seed), k=k, rel_error=1e-9)
    assert pairs.values == pytest.approx(known[:k], abs=1e-7)
    assert operator.products <= 2 * size + 1


def test_only_some_weights_and_a_plain_function():
    a = torch.tensor([2.0, 5.0], dtype=torch.float64)
    params = {"x": torch.ones(2, dtype=torch.float64), "y": torch.ones(1, dtype=torch.float64)}

    def loss(p):
        return 0.5 * (a * p["x"] ** 2).sum() + 50 * p["y"].square().sum() + p["x"].sum() * p["y"].sum()

    assert top_eigenvalues(loss, params, k=2, only="x").values == pytest.approx([5.0, 2.0])
    assert top_eigenvalues(loss, params, k=1).values[0] > 100
    bowl = top_eigenvalues(lambda w: 3 * w.square().sum(), torch.ones(3, dtype=torch.float64), k=1)
    assert bowl.values[0] == pytest.approx(6.0)


def test_a_loss_without_curvature_has_only_zeros():
    found = top_eigenvalues(lambda w: w.sum(), torch.ones(4, dtype=torch.float64), k=2)
    assert found.values == (0.0, 0.0)
    with pytest.raises(BadInput, match="nothing curves upwards"):
        max_stable_lr(found)


def test_the_learning_rate_bound_is_where_gradient_descent_on_a_quadratic_turns():
    curvature = torch.tensor([0.5, 4.0], dtype=torch.float64)
    found = top_eigenvalues(lambda w: 0.5 * (curvature * w**2).sum(), torch.ones(2, dtype=torch.float64), k=1)
    for momentum in (0.0, 0.9):
        bound = max_stable_lr(found, momentum=momentum)
        assert bound.low <= bound.value <= bound.high
        assert (
            after_descent(curvature, 0.99 * bound.value, momentum)
            < 1
            < after_descent(curvature, 1.01 * bound.value, momentum)
        )


def after_descent(curvature, lr, momentum):
    """Distance from the minimum after many steps of the heavy ball from distance one."""
    w, v = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for _ in range(3000):
        v = momentum * v + curvature * w
        w = w - lr * v
    return w.norm().item()


def test_bad_arguments_are_refused_in_a_sentence():
    loss, params, _ = softmax_regression()
    for wrong, words in (
        ({"k": 0}, "k is 0"),
        ({"k": 13}, "only 12 weights"),
        ({"rel_error": 0.0}, "rel_error is 0.0"),
        ({"which": "largest"}, "choose top or bottom"),
        ({"matrix": "fisher"}, "hessian, gauss-newton"),
        ({"max_products": 3}, "max_products is 3"),
        ({"start": []}, "start holds 0 vectors"),
        ({"start": [torch.zeros(12)]}, "norm 0"),
        ({"start": [{"bias": torch.ones(12)}]}, "lacks 'weight'"),
    ):
        with pytest.raises(BadInput, match=words):
            top_eigenvalues(loss, params, **wrong)
    with pytest.raises(BadInput, match="plain function hides"):
        top_eigenvalues(lambda w: w.square().sum(), torch.ones(2), matrix="gauss-newton", k=1)
    with pytest.raises(FloatingPointError, match="not finite"):
        top_eigenvalues(lambda w: w.sqrt().sum(), torch.zeros(2), k=1, check=False)
    with pytest.raises(BadInput, match="not bottom ones"):
        max_stable_lr(top_eigenvalues(loss, params, k=1, which="bottom"))


def test_the_record_is_valid_json_and_names_its_conditions():
    loss, params, _ = softmax_regression()
    found = json.loads(json.dumps(top_eigenvalues(loss, params, k=2).to_dict(), allow_nan=False))
    assert found["data"] == "train"
    assert found["samples"] == N
    assert found["weights"] == C * F
    assert "vectors" not in found
    assert found["memory_limit"] == 4 * 2**30
