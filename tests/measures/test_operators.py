# Oracles: the closed forms of the Hessians of linear, logistic and softmax regression in numpy; finite differences of
# gradients and of outputs; torch.func, which shares only autograd; curvlinops, another library.
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.func import functional_call, jacrev

from gengap.core.errors import BadInput
from gengap.measures.curvature.operators import Dense, gauss_newton, hessian
from gengap.measures.session import measuring
from gengap.problem.from_model import loss_function

N, IN, OUT = 23, 4, 3
F64 = torch.float64


def samples(n=N, features=IN, classes=OUT, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, dtype=F64, generator=rng), torch.randint(classes, (n,), generator=rng)


def weights(model, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, dtype=F64, generator=rng) for n, p in model.named_parameters()}


def whole(operator):
    """The matrix, column by column."""
    return torch.stack([operator(e) for e in torch.eye(operator.size, dtype=operator.dtype)], 1)


def matrix_of(make, loss, params, **options):
    with measuring(loss, params, passes="product", **options) as session:
        return whole(make(session))


def close(found, exact, rel=1e-10):
    exact = torch.as_tensor(exact)
    assert (found - exact).abs().max() <= rel * exact.abs().max()


def with_one(x):
    return np.concatenate([x.numpy(), np.ones((len(x), 1))], 1)


def reordered(matrix, outputs, inputs):
    """From (output, input with bias last) to all weights first, then all biases: the order of the layer's parameters."""
    index = np.arange(outputs * (inputs + 1)).reshape(outputs, inputs + 1)
    order = [*index[:, :inputs].ravel(), *index[:, inputs]]
    return matrix[np.ix_(order, order)]


def linear_case():
    x, _ = samples()
    y = torch.randn(N, OUT, dtype=F64, generator=torch.Generator().manual_seed(5))
    exact = np.kron(np.eye(OUT), 2 / (N * OUT) * with_one(x).T @ with_one(x))
    return "mean_square", (x, y), OUT, lambda _: exact


def logistic_case():
    x, y = samples(classes=2)

    def exact(w):
        p = 1 / (1 + np.exp(-(x.numpy() @ w["weight"].numpy().T + w["bias"].numpy()).ravel()))
        return (with_one(x).T * (p * (1 - p))) @ with_one(x) / N

    return "binary_cross_entropy", (x, y.double()), 1, exact


def softmax_case():
    x, y = samples()

    def exact(w):
        total = 0
        for row in with_one(x):
            z = np.exp(w["weight"].numpy() @ row[:IN] + w["bias"].numpy())
            p = z / z.sum()
            total = total + np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row))
        return total / N

    return "cross_entropy", (x, y), OUT, exact


@pytest.mark.parametrize("chunk", [None, 1, 5], ids=lambda c: f"chunk {c}")
@pytest.mark.parametrize("make", [hessian, gauss_newton])
@pytest.mark.parametrize("case", [linear_case, logistic_case, softmax_case])
def test_equals_the_closed_form_of_regression(case, make, chunk):
    """The network is linear in its weights, so that the Gauss-Newton matrix is the Hessian."""
    loss, data, outputs, exact = case()
    model = nn.Linear(IN, outputs).double()
    params = weights(model)
    found = matrix_of(make, loss_function(model, loss, data, batch_size=chunk), params)
    close(found, reordered(exact(params), outputs, IN), 1e-12)


def mlp(features=IN, hidden=5, classes=OUT, activation=nn.Tanh):
    return nn.Sequential(nn.Linear(features, hidden), activation(), nn.Linear(hidden, classes)).double()


def deep_case(chunk=5, activation=nn.Tanh):
    model = mlp(activation=activation)
    return loss_function(model, "cross_entropy", samples(), batch_size=chunk), weights(model), model


def test_hessian_is_the_slope_of_the_gradient():
    loss, params, _ = deep_case()
    found = matrix_of(hessian, loss, params)
    flat = torch.cat([p.ravel() for p in params.values()])

    def gradient(vector):
        parts = vector.split([p.numel() for p in params.values()])
        tree = {n: part.view(p.shape) for part, (n, p) in zip(parts, params.items(), strict=True)}
        return torch.cat([g.ravel() for g in loss.value_and_grad(tree)[1].values()])

    step = 1e-5
    columns = [
        (gradient(flat + step * e) - gradient(flat - step * e)) / (2 * step) for e in torch.eye(len(flat), dtype=F64)
    ]
    close(found, torch.stack(columns, 1), 1e-8)
    close(found, found.T, 1e-12)


def test_gauss_newton_is_the_outputs_jacobian_around_the_curvature_of_softmax():
    """J by finite differences of the outputs, and diag p - p p^T by hand."""
    loss, params, model = deep_case()
    x, _ = samples()
    flat = torch.cat([p.ravel() for p in params.values()])

    def outputs(vector):
        parts = vector.split([p.numel() for p in params.values()])
        tree = {n: part.view(p.shape) for part, (n, p) in zip(parts, params.items(), strict=True)}
        with torch.no_grad():
            return functional_call(model, tree, (x,)).numpy()

    step = 1e-5
    eye = torch.eye(len(flat), dtype=F64)
    jacobian = np.stack([(outputs(flat + step * e) - outputs(flat - step * e)) / (2 * step) for e in eye], 2)
    z = np.exp(outputs(flat))
    p = z / z.sum(1, keepdims=True)
    exact = sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(jacobian, p, strict=True))
    found = matrix_of(gauss_newton, loss, params)
    close(found, exact / N, 1e-8)
    assert np.linalg.eigvalsh(found.numpy()).min() > -1e-14
    assert (found - matrix_of(hessian, loss, params)).abs().max() > 0.01


@settings(max_examples=10, deadline=None)
@given(
    n=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4)),
    chunk=st.integers(1, 10),
    activation=st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU, nn.Identity]),
)
def test_equals_the_dense_hessian_for_any_shape(n, shape, chunk, activation):
    model, (x, y) = mlp(*shape, activation), samples(n, shape[0], shape[2])
    params = weights(model)
    dense = jacrev(jacrev(lambda p: F.cross_entropy(functional_call(model, p, (x,)), y)))(params)
    rows = [torch.cat([dense[a][b].reshape(params[a].numel(), -1) for b in params], 1) for a in params]
    found = matrix_of(hessian, loss_function(model, "cross_entropy", (x, y), batch_size=chunk), params)
    torch.testing.assert_close(found, torch.cat(rows), rtol=1e-10, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", ["dense", "convolution"])
def test_agrees_with_curvlinops_on_a_ragged_last_batch(case):
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    x, y = samples(features=36 if case == "convolution" else IN)
    model = mlp()
    if case == "convolution":
        model = nn.Sequential(
            nn.Unflatten(1, (1, 6, 6)),
            nn.Conv2d(1, 2, 3),
            nn.BatchNorm2d(2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(32, OUT),
        )
        model = model.double().eval()
    params = dict(model.named_parameters())
    loss = loss_function(model, "cross_entropy", (x, y), batch_size=10)
    batches = list(zip(x.split(10), y.split(10), strict=True))
    assert [len(b) for _, b in batches] == [10, 10, 3]
    vectors = torch.randn(
        3, sum(p.numel() for p in params.values()), dtype=F64, generator=torch.Generator().manual_seed(2)
    )
    for make, other in ((hessian, HessianLinearOperator), (gauss_newton, GGNLinearOperator)):
        peer = other(model, nn.CrossEntropyLoss(), list(params.values()), batches)
        with measuring(loss, params, passes="product") as session:
            operator = make(session)
            for v in vectors:
                close(operator(v), (peer @ v).detach(), 1e-11)


def test_part_of_the_weights_is_a_block_of_the_whole_matrix():
    loss, params, model = deep_case()
    for p in (model[0].bias, model[2].weight):
        p.requires_grad_(False)
    frozen = loss_function(model, "cross_entropy", samples(), batch_size=5)
    slots = dict(zip(params, torch.arange(sum(p.numel() for p in params.values())).split([20, 5, 15, 3]), strict=True))
    for make in (hessian, gauss_newton):
        every = matrix_of(make, loss, params)
        for chosen, options in (
            (["2.weight", "2.bias"], {"only": "2.*"}),
            (["0.weight", "2.weight"], {"only": ["0.w*", "2.weight"]}),
            (["0.weight", "2.bias"], {"loss": frozen}),
            (["0.bias"], {"loss": frozen, "only": "0.bias"}),
        ):
            rows = torch.cat([slots[name] for name in chosen])
            found = matrix_of(make, options.pop("loss", loss), params, **options)
            close(found, every[rows][:, rows], 1e-12)
    plain = matrix_of(hessian, lambda p: loss(p), params, only="2.*")
    rows = torch.cat([slots["2.weight"], slots["2.bias"]])
    close(plain, matrix_of(hessian, loss, params)[rows][:, rows], 1e-12)


def test_graphs_that_are_kept_give_the_same_products_as_those_built_again():
    loss, params, _ = deep_case()
    v = torch.randn(43, dtype=F64, generator=torch.Generator().manual_seed(3))
    products, kept = [], []
    with measuring(loss, params, passes="product") as session:
        cost = int(session.memory.kept_per_sample * 5) + 8 * 43
        for room in (0, cost, 2 * cost + 7, 100 * cost):
            session.memory = replace(session.memory, free=room)
            operator = hessian(session)
            products += [operator(v) for _ in range(3)]
            kept.append(operator.kept)
            assert operator.products == 3
    assert kept == [0, 1, 2, 5]
    assert all((p - products[0]).abs().max() <= 1e-15 for p in products)


def test_some_pieces_give_the_matrix_of_their_samples():
    loss, params, model = deep_case(chunk=5)
    chosen = torch.cat([torch.arange(0, 5), torch.arange(10, 15), torch.arange(20, 23)])
    few = loss_function(model, "cross_entropy", samples(), samples=chosen, batch_size=5)
    with measuring(loss, params, passes="product") as session:
        for make in (hessian, gauss_newton):
            close(whole(make(session, every=2)), matrix_of(make, few, params), 1e-12)


def test_losses_without_curvature_have_a_matrix_of_zeros():
    model, (x, y) = nn.Linear(IN, 1).double(), samples()
    linear = loss_function(model, lambda o, t: (o[:, 0] * t).mean(), (x, y.double()))
    for make in (hessian, gauss_newton):
        assert matrix_of(make, linear, weights(model)).count_nonzero() == 0


class Idle(nn.Module):
    """A network with weights that it does not use."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(IN, OUT), nn.Linear(2, 1)

    def forward(self, x):
        return self.used(x)


def test_weights_that_the_loss_does_not_use_have_rows_of_zeros():
    model = Idle().double()
    params, loss = weights(model), loss_function(model, "cross_entropy", samples())
    found = matrix_of(hessian, loss, params), matrix_of(gauss_newton, loss, params)
    for matrix in found:
        assert matrix[-3:].count_nonzero() == matrix[:, -3:].count_nonzero() == 0
        assert matrix[:15, :15].count_nonzero() > 100
    one = loss_function(model, "cross_entropy", samples(), samples=[0])  # too few for a trial of its memory
    for refused in (loss, one):
        for make in (hessian, gauss_newton, lambda session: session.loss.value_and_grad(session.params)):
            with pytest.raises(BadInput, match="does not depend on params in a way torch can differentiate"):
                matrix_of(make, refused, params, only="idle.*")


def test_weights_of_two_dtypes_share_vectors_of_the_finer():
    model, (x, y) = mlp(), samples()
    params = weights(model)
    mixed = {n: p.float() if n.startswith("0") else p for n, p in params.items()}

    def loss(p):
        hidden = torch.tanh(F.linear(x, p["0.weight"].double(), p["0.bias"].double()))
        return F.cross_entropy(F.linear(hidden, p["2.weight"], p["2.bias"]), y)

    found = matrix_of(hessian, loss, mixed)
    assert found.dtype == F64
    close(found, matrix_of(hessian, loss, {n: p.double() for n, p in mixed.items()}), 1e-6)


def test_a_plain_function_has_no_gauss_newton_matrix():
    with (
        pytest.raises(BadInput, match=r"the Gauss-Newton matrix needs .* gengap\.loss_function\(model, loss, data\)"),
        measuring(lambda w: w.square().sum(), torch.ones(2), passes="product") as session,
    ):
        gauss_newton(session)


def test_a_dense_matrix_multiplies_and_counts():
    matrix = Dense(torch.tensor([[1.0, 2.0], [2.0, 5.0]]))
    assert matrix(torch.tensor([1.0, -1.0])).tolist() == [-1.0, -3.0]
    assert (matrix.size, matrix.products) == (2, 1)
