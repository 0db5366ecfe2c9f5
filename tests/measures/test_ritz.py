# Oracles: matrices made from a spectrum and an orthogonal matrix that are both known; numpy's dense eigenvalues; sums in
# exact rational arithmetic (math.fsum); the same network in float64.
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from gengap.measures.curvature.eigenvalues import top_eigenvalues
from gengap.measures.curvature.operators import Dense
from gengap.measures.curvature.ritz import Subspace, coefficients, errors_of, orthogonal
from gengap.measures.trees import dot, norm
from gengap.problem.from_model import loss_function

F32, F64 = torch.float32, torch.float64


def draw(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def with_spectrum(values, seed=0, dtype=F64):
    turn, _ = torch.linalg.qr(draw(len(values), len(values), seed=seed))
    return Dense(((turn * torch.as_tensor(values, dtype=F64)) @ turn.T).to(dtype)), turn.T


def top(k):
    return lambda count: range(count - 1, max(count - k, 0) - 1, -1)


def bottom(k):
    return lambda count: range(min(k, count))


TOP = top(3)


def grown(operator, count, *, wanted=TOP, seed=1, capacity=None):
    """Lanczos: add the residual that is farthest from its tolerance, or something new where nothing is left of it."""
    space = Subspace(operator, capacity or count)
    fresh = draw(operator.size, seed=seed, dtype=operator.dtype)
    while space.count < count:
        if not space.add(fresh):
            space.add(draw(operator.size, seed=seed + 100 + space.count, dtype=operator.dtype))
        fresh = space.pairs(wanted, 1e-12).worst
    return space


DECAY = np.concatenate([[100.0, 40.0, 39.0], np.linspace(-2, 2, 120), [-3.0, -7.0]])


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("wanted", [TOP, bottom(2)], ids=["top", "bottom"])
def test_values_vectors_and_residuals_of_a_known_spectrum(dtype, wanted):
    operator, rows = with_spectrum(DECAY, dtype=dtype)
    pairs = grown(operator, 60, wanted=wanted).pairs(wanted, 1e-4)
    order = np.argsort(DECAY)
    exact = order[list(wanted(len(order)))]
    scale = 100 * torch.finfo(dtype).eps
    assert pairs.values == pytest.approx(DECAY[exact], abs=5 * scale)
    assert pairs.converged
    assert (pairs.residuals < 1e-3).all()
    for vector, i in zip(pairs.vectors, exact, strict=True):
        assert vector.dtype == dtype
        assert float(vector.double() @ rows[i]) ** 2 == pytest.approx(1, abs=1e-6)
        assert norm(vector) == pytest.approx(1, abs=5 * torch.finfo(dtype).eps)


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(1, 30),
    count=st.integers(1, 12),
    k=st.integers(1, 4),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([F32, F64]),
)
def test_an_eigenvalue_lies_within_the_residual_of_each_value(size, count, k, seed, dtype):
    matrix = draw(size, size, seed=seed)
    matrix = ((matrix + matrix.T) / 2).to(dtype)
    space = grown(Dense(matrix), min(count, size), wanted=top(k), seed=seed + 1)
    pairs = space.pairs(top(k), 1e-3)
    exact = np.linalg.eigvalsh(matrix.double().numpy())
    grain = 50 * torch.finfo(dtype).eps * np.abs(exact).max()
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.abs(exact - value).min() <= residual + grain
    for vector, value, residual in zip(pairs.vectors, pairs.values, pairs.residuals, strict=True):
        left = matrix.double() @ vector.double() - value * vector.double()
        assert abs(float(left.norm()) - residual) <= grain
    assert exact[0] - grain <= pairs.values[-1] <= pairs.values[0] <= exact[-1] + grain
    if space.count == size:
        assert pairs.converged
        assert pairs.values == pytest.approx(exact[::-1][: len(pairs.values)], abs=grain)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_basis_stays_orthonormal_over_eight_orders_of_magnitude(dtype):
    operator, _ = with_spectrum(np.logspace(4, -4, 120), dtype=dtype)
    space = grown(operator, 40)
    gram = space.basis.double() @ space.basis.double().T
    assert (gram - torch.eye(40, dtype=F64)).abs().max() < 20 * torch.finfo(dtype).eps
    by_hand = space.basis.double() @ operator.matrix.double() @ space.basis.double().T
    assert (torch.from_numpy(space.projected) - by_hand).abs().max() < 1e4 * 50 * torch.finfo(dtype).eps


def test_a_restart_keeps_what_is_known_and_costs_no_product():
    operator, _ = with_spectrum(DECAY)
    space = grown(operator, 15, wanted=TOP)
    before, spent = space.pairs(TOP, 1e-3), operator.products
    space.restart([*TOP(15), 0, 1])
    assert (space.count, operator.products) == (5, spent)
    assert torch.allclose(space.basis @ space.basis.T, torch.eye(5, dtype=F64), atol=1e-13)
    assert torch.allclose(space.images, space.basis @ operator.matrix, atol=1e-11)
    after = space.pairs(TOP, 1e-3)
    assert after.values == pytest.approx(before.values, abs=1e-11)
    assert after.residuals == pytest.approx(before.residuals, abs=1e-10)
    for _ in range(8):
        fresh = space.pairs(TOP, 1e-12).worst
        while not space.full and space.add(fresh):
            fresh = space.pairs(TOP, 1e-12).worst
        space.restart([*TOP(space.count), *range(2)])
    assert space.pairs(TOP, 1e-6).values == pytest.approx([100, 40, 39], abs=1e-9)


def test_a_start_near_the_answer_saves_products():
    operator, rows = with_spectrum(DECAY)
    near = rows[0] + 1e-4 * draw(len(DECAY), seed=5) / len(DECAY) ** 0.5

    def needed(start):
        space, fresh = Subspace(operator, 60), start
        while space.add(fresh):
            pairs = space.pairs(top(1), 1e-8)
            if pairs.converged and space.count > 1:
                break
            fresh = pairs.worst
        assert pairs.values[0] == pytest.approx(100, rel=1e-8)
        return space.count

    assert needed(near) < needed(draw(len(DECAY), seed=6)) - 2


def test_equal_eigenvalues_are_met_once_from_one_start_and_all_from_several():
    operator, _ = with_spectrum([5.0, 5.0, 5.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    space = grown(operator, 3, capacity=8)  # as many as there are different values
    assert space.pairs(TOP, 1e-6).values == pytest.approx([5, 1, 0], abs=1e-12)
    for seed in (7, 8):
        space.add(draw(8, seed=seed))
        space.add(space.pairs(TOP, 1e-12).worst)
    assert space.pairs(TOP, 1e-6).values == pytest.approx([5, 5, 5], abs=1e-12)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_smallest_matrices(dtype):
    one = Subspace(Dense(torch.tensor([[-3.0]], dtype=dtype)), 4)
    assert one.add(torch.tensor([2.0], dtype=dtype))
    assert not one.add(torch.tensor([5.0], dtype=dtype))
    pairs = one.pairs(top(2), 1e-3)
    assert (pairs.values.tolist(), pairs.residuals.tolist(), pairs.converged) == ([-3.0], [0.0], True)
    two = grown(Dense(torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=dtype)), 2)
    assert two.count == 2
    assert two.pairs(top(1), 1e-3).values == pytest.approx([2], rel=1e-6)
    assert two.pairs(bottom(5), 1e-3).values == pytest.approx([-2, 2], rel=1e-6)


def test_the_matrix_of_zeros_has_zeros_for_eigenvalues():
    space = Subspace(Dense(torch.zeros(6, 6, dtype=F64)), 3)
    assert space.add(torch.ones(6, dtype=F64))
    pairs = space.pairs(top(1), 1e-3)
    assert (pairs.values.tolist(), pairs.errors.tolist(), pairs.converged) == ([0.0], [0.0], True)
    assert not space.add(pairs.worst)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_what_the_basis_has_adds_nothing_and_costs_no_product(dtype):
    operator, _ = with_spectrum(DECAY, dtype=dtype)
    space = grown(operator, 10)
    spent = operator.products
    mixed = draw(10, seed=3, dtype=dtype) @ space.basis
    assert not Subspace(operator, 3).add(torch.zeros(len(DECAY), dtype=dtype))
    assert orthogonal(mixed, space.basis) is None
    assert operator.products == spent
    barely = mixed + 1e-4 * draw(len(DECAY), seed=4, dtype=dtype)
    fresh = orthogonal(barely, space.basis)
    assert coefficients(space.basis, fresh).abs().max() < 20 * torch.finfo(dtype).eps
    assert norm(fresh) == pytest.approx(1, abs=5 * torch.finfo(dtype).eps)


def test_errors_are_residual_squared_over_the_gap_where_there_is_one():
    values, residuals = np.array([10.0, 9.0, 4.0]), np.array([0.1, 0.5, 2.0])
    found = errors_of(values, residuals, np.array([3.0, -5.0]))
    # gaps: 10 to 9 less its residual; 9 to 10 less its residual; 4 to 3, less than the residual of 2
    assert found == pytest.approx([0.1**2 / 0.5, 0.5**2 / 0.9, 2.0])
    assert errors_of(np.array([1.0]), np.array([0.3]), np.array([])) == pytest.approx([0.3])


def test_a_million_float32_entries_are_summed_without_losing_digits():
    x, y = draw(1_500_000, seed=1, dtype=F32).abs(), draw(1_500_000, seed=2, dtype=F32).abs()
    exact = math.fsum((x.double() * y.double()).tolist())
    assert dot(x, y) == pytest.approx(exact, rel=1e-7)
    assert norm(x) ** 2 == pytest.approx(math.fsum(x.double().square().tolist()), rel=1e-7)
    rows = torch.stack([x, y])
    found = coefficients(rows, y)
    assert found.dtype == F64
    assert found.tolist() == pytest.approx([exact, math.fsum(y.double().square().tolist())], rel=1e-6)


def test_float32_agrees_with_float64_on_a_network_of_a_million_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 1200), nn.ReLU(), nn.Linear(1200, 10))
    assert sum(p.numel() for p in model.parameters()) > 950_000
    data = torch.randn(96, 784, generator=torch.Generator().manual_seed(1)), torch.arange(96) % 10
    loss = loss_function(model, "cross_entropy", data)
    single = {n: p.detach() for n, p in model.named_parameters()}
    found = [
        top_eigenvalues(loss, params, k=1, rel_error=1e-7, max_products=24, check=False).values[0]
        for params in (single, {n: p.double() for n, p in single.items()})
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
