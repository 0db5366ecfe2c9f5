# Oracles: matrices of prescribed spectrum; the closed form of softmax regression's Hessian; for networks the diagonal of the
# Hessian by finite differences of the gradient, entry by entry.
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gengap
from gengap.core.errors import BadInput
from gengap.measures.curvature.operators import Dense
from gengap.measures.curvature.ritz import Subspace
from gengap.measures.curvature.trace import Probes, trace

N, F, C = 24, 6, 3


def with_spectrum(values, seed=0):
    rng = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=rng))
    return (turn * torch.as_tensor(values)) @ turn.T


def data(shape=(F,), seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(N, *shape, dtype=torch.float64, generator=rng), torch.randint(C, (N,), generator=rng)


def as_problem(net, x, y, loss="cross_entropy"):
    net = net.double().eval()
    problem = gengap.Problem(model=lambda: net, loss=loss, train=(x, y), test=(x, y))
    return problem, {name: p.detach().clone() for name, p in net.named_parameters()}


def diagonal_by_differences(net, x, y, loss=cross_entropy):
    """Sum of second differences of every entry, by weight name."""
    net = net.double().eval()
    found = {}
    for name, p in net.named_parameters():
        total, flat = 0.0, p.data.view(-1)
        for i in range(p.numel()):
            slopes = []
            for step in (1e-6, -2e-6):
                flat[i] += step
                net.zero_grad()
                loss(net(x), y).backward()
                slopes.append(p.grad.view(-1)[i].item())
            flat[i] += 1e-6
            total += (slopes[0] - slopes[1]) / 2e-6
        found[name] = total
    return found


class Residual(nn.Module):
    """Sums and means are piecewise linear."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(F, F), nn.Linear(F, F), nn.Linear(F, C)

    def forward(self, x):
        x = x + torch.relu(self.first(x))
        return self.last(2 * (x + self.second(torch.relu(x))) - 1)


class Gated(nn.Module):
    """A product of two branches bends in no single weight, but torch.mul of two of them is not known to be harmless."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = nn.Linear(F, 5), nn.Linear(F, 5), nn.Linear(5, C)

    def forward(self, x):
        return self.last(self.a(x) * torch.sigmoid(self.b(x)))


class Twice(nn.Module):
    """One weight used twice: the outputs are quadratic in it."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(F, F), nn.Linear(F, C)

    def forward(self, x):
        return self.last(torch.relu(self.inner(torch.relu(self.inner(x)))))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, C)
    )


STRAIGHT = {
    "linear": (lambda: nn.Linear(F, C), (F,)),
    "perceptron": (lambda: nn.Sequential(nn.Linear(F, 7), nn.LeakyReLU(0.1), nn.Dropout(), nn.Linear(7, C)), (F,)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(F, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, C)), (F,)),
    "convolution": (convolutional, (1, 4, 4)),
    "residual": (Residual, (F,)),
}
BENT = {
    "tanh": (lambda: nn.Sequential(nn.Linear(F, 5), nn.Tanh(), nn.Linear(5, C)), (F,)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(F, 5), nn.LayerNorm(5), nn.Linear(5, C)), (F,)),
    "gated": (Gated, (F,)),
    "used twice": (Twice, (F,)),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_by_samples_is_the_trace_of_the_hessian_where_it_says_so(name):
    torch.manual_seed(3)
    make, shape = STRAIGHT[name]
    net, (x, y) = make(), data(shape)
    exact = diagonal_by_differences(net, x, y)
    problem, params = as_problem(net, x, y)
    found = trace(problem.loss_function("train", batch_size=7), params, rel_error=0.005, max_products=3000)
    assert found.method == "per sample"
    assert abs(found.value - sum(exact.values())) < 5 * found.stderr
    assert found.stderr <= 0.005 * found.value
    assert sum(e.value for e in found.layers.values()) == pytest.approx(found.value)
    for layer, estimate in found.layers.items():
        # t intervals of few passes are wide; differences of gradients are right to about 1e-6
        assert abs(estimate.value - exact[layer]) < 6 * (estimate.stderr or 0) + 1e-5


@pytest.mark.parametrize("name", BENT)
def test_a_network_that_bends_is_probed_as_a_whole(name):
    torch.manual_seed(3)
    make, shape = BENT[name]
    net, (x, y) = make(), data(shape)
    exact = diagonal_by_differences(net, x, y)
    problem, params = as_problem(net, x, y)
    loss = problem.loss_function("train", batch_size=7)
    found = trace(loss, params, rel_error=0.05, deflate=12, max_products=3000)
    assert found.method == "hutch++"
    assert abs(found.value - sum(exact.values())) < 5 * found.stderr
    assert found.stderr <= 0.05 * abs(found.value)
    with pytest.raises(BadInput, match="bends in a single weight"):
        trace(loss, params, method="per sample")


class Swish(torch.autograd.Function):
    """An activation that torch's function modes cannot see into, twice differentiable."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return slope * (s + x * s * (1 - s))


@pytest.mark.parametrize("hidden", [Swish.apply, torch.vmap(torch.tanh)], ids=["function", "vmap"])
def test_a_bend_that_cannot_be_seen_is_felt(hidden):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(F, 5), nn.Linear(5, 5), nn.Linear(5, C)

        def forward(self, x):
            return self.c(hidden(self.b(torch.relu(self.a(x)))))

    torch.manual_seed(3)
    net, (x, y) = Hidden(), data()
    problem, params = as_problem(net, x, y)
    found = trace(problem.loss_function("train"), params, rel_error=0.2, deflate=4, max_products=200)
    assert found.method == "hutch++"


def test_per_layer_parts_of_the_probes_are_those_of_the_layers():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(F, 5), nn.Tanh(), nn.Linear(5, C)), data()
    exact = diagonal_by_differences(net, x, y)
    problem, params = as_problem(net, x, y)
    loss = problem.loss_function("train")
    for deflate in (0, 6):
        found = trace(loss, params, rel_error=1e-9, deflate=deflate, max_products=600, method="hutch++")
        assert not found.converged
        for layer, estimate in found.layers.items():
            assert abs(estimate.value - exact[layer]) < 5 * estimate.stderr, layer
        big = found.layers["2.weight"]
        assert big.stderr < 0.06 * exact["2.weight"]
        assert sum(e.value for e in found.layers.values()) == pytest.approx(found.value)


def test_gauss_newton_needs_no_straight_network():
    torch.manual_seed(1)
    net, (x, y) = nn.Sequential(nn.Linear(F, 5), nn.Tanh(), nn.Linear(5, C)), data()
    net, rows = net.double(), []
    for i in range(N):  # J^T (diag p - p p^T) J of every sample, from its Jacobian
        jacobian = []
        out = net(x[i : i + 1])[0]
        for c in range(C):
            net.zero_grad()
            out[c].backward(retain_graph=True)
            jacobian.append(torch.cat([p.grad.reshape(-1) for p in net.parameters()]).clone())
        j, p = torch.stack(jacobian), torch.softmax(out.detach(), 0)
        rows.append(torch.trace(j.T @ (torch.diag(p) - torch.outer(p, p)) @ j).item())
    problem, params = as_problem(net, x, y)
    loss = problem.loss_function("train")
    one = trace(loss, params, matrix="gauss-newton", rel_error=0.01)
    other = trace(loss, params, matrix="gauss-newton", rel_error=0.03, method="hutch++")
    assert (one.method, other.method) == ("per sample", "hutch++")
    for found in (one, other):
        assert abs(found.value - np.mean(rows)) < 5 * found.stderr < 0.16 * np.mean(rows)


def test_other_losses():
    torch.manual_seed(2)
    x, _ = data()
    y = torch.randn(N, 2, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(F, 4), nn.ReLU(), nn.Linear(4, 2))
    exact = sum(diagonal_by_differences(net, x, y, nn.functional.mse_loss).values())
    problem, params = as_problem(net, x, y, "mean_square")
    found = trace(problem.loss_function("train"), params, rel_error=0.01)
    assert found.method == "per sample"
    assert abs(found.value - exact) < 5 * found.stderr

    def not_convex(outputs, targets):
        return (torch.sin(outputs) * targets).mean()

    exact = sum(diagonal_by_differences(net, x, y, not_convex).values())
    problem, params = as_problem(net, x, y, not_convex)
    found = trace(problem.loss_function("train"), params, rel_error=0.05, deflate=4, max_products=3000)
    assert found.method == "hutch++"
    assert abs(found.value - exact) < 5 * found.stderr


def test_confident_samples_do_not_look_concave():
    """With probabilities of 1 - 1e-12 the curvature by the outputs is rounding, some of it negative."""
    torch.manual_seed(5)
    net, (x, y) = nn.Linear(F, C), data()
    problem, params = as_problem(net, x, y)
    sure = {name: 30 * p for name, p in params.items()}
    labels = (x @ sure["weight"].T + sure["bias"]).argmax(1)
    problem = gengap.Problem(model=lambda: net, loss="cross_entropy", train=(x, labels), test=(x, labels))
    assert trace(problem.loss_function("train"), sure).method == "per sample"


def test_hutch_plus_plus_needs_fewer_probes_than_hutchinson():
    matrix = with_spectrum(np.concatenate([[300.0, 200.0, 100.0], np.full(297, 1.0)]))

    def loss(w):
        return 0.5 * w @ matrix @ w

    w = torch.zeros(300, dtype=torch.float64)
    plain = trace(loss, w, deflate=0, rel_error=0.02, max_products=20_000)
    better = trace(loss, w, deflate=8, rel_error=0.02)
    assert plain.method == "hutchinson"
    for found in (plain, better):
        assert abs(found.value - 897) < 5 * found.stderr
    assert better.products < 0.2 * plain.products
    assert better.share_deflated > 0.6


def test_errors_are_as_large_as_they_say():
    """Over many seeds the deviation in units of the standard error has a spread near one."""
    matrix = with_spectrum(np.concatenate([[5.0, 4.0], np.linspace(-1, 2, 58)]))
    w = torch.zeros(60, dtype=torch.float64)
    found = [trace(lambda w: 0.5 * w @ matrix @ w, w, deflate=4, rel_error=0.05, seed=s) for s in range(40)]
    deviations = [(t.value - float(torch.trace(matrix))) / t.stderr for t in found]
    assert np.std(deviations) < 1.5
    assert abs(np.mean(deviations)) < 5 * 1.2 / np.sqrt(40)
    assert np.mean([t.interval[0] <= float(torch.trace(matrix)) <= t.interval[1] for t in found]) > 0.8


def test_intervals_of_few_probes_cover_although_the_scatter_ends_them():
    """400 seeds; 8 to some 20 probes each. The t interval covers, and 1.96 standard errors would not."""
    matrix = with_spectrum(np.concatenate([[5.0, 4.0], np.linspace(-1, 2, 58)]))
    exact, operator = torch.zeros(1, dtype=torch.float64), Dense(matrix)
    for rel_error in (0.3, 0.15):
        found = []
        for seed in range(400):
            probes = Probes(operator, Subspace(operator, 1), [60], seed)
            while not probes.enough(exact, rel_error):
                probes.add()
            found.append(probes.total(exact))
        misses = np.abs([f.value - float(torch.trace(matrix)) for f in found])
        chance = np.sqrt(0.95 * 0.05 / 400)
        covered = np.mean([f.interval[0] <= float(torch.trace(matrix)) <= f.interval[1] for f in found])
        assert 0.93 - 4 * chance < covered < 0.95 + 4 * chance
        assert np.mean(misses <= 1.96 * np.array([f.stderr for f in found])) < covered
        assert 8 <= np.mean([f.n for f in found]) < 25


def test_a_loss_that_is_no_mean_over_samples_is_probed_as_a_whole():
    """Samples that weigh unequally: their curvatures do not average to that of the loss, which has a trace all the same."""
    torch.manual_seed(6)
    net, (x, y) = nn.Linear(F, C), data()
    weighed = nn.CrossEntropyLoss(weight=torch.arange(1.0, C + 1, dtype=torch.float64))
    exact = sum(diagonal_by_differences(net, x, y, weighed).values())
    problem, params = as_problem(net, x, y, weighed)
    loss = problem.loss_function("train")
    found = trace(loss, params, rel_error=0.02, deflate=5, max_products=3000)
    assert found.method == "hutch++"
    assert abs(found.value - exact) < 5 * found.stderr + 1e-9
    with pytest.raises(BadInput, match="the trace by samples needs a loss that is the mean over samples"):
        trace(loss, params, method="per sample")


def test_the_whole_space_is_exact():
    matrix = with_spectrum([3.0, 2.0, -1.0])
    found = trace(lambda w: 0.5 * w @ matrix @ w, torch.zeros(3, dtype=torch.float64), deflate=5)
    assert found.value == pytest.approx(4.0)
    assert (found.stderr, found.samples, found.products) == (0.0, 0, 3)


def test_only_some_weights_the_record_and_bad_arguments():
    torch.manual_seed(4)
    net, (x, y) = nn.Sequential(nn.Linear(F, 5), nn.ReLU(), nn.Linear(5, C)), data()
    exact = diagonal_by_differences(net, x, y)
    problem, params = as_problem(net, x, y)
    loss = problem.loss_function("train")
    found = trace(loss, params, only="2.*", rel_error=0.005)
    assert list(found.layers) == ["2.weight", "2.bias"]
    assert abs(found.value - exact["2.weight"] - exact["2.bias"]) < 5 * found.stderr + 1e-6
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert said["samples"] == N
    assert said["probes"] == found.samples
    assert set(said["layers"]["2.bias"]) >= {"value", "stdev", "n", "interval"}
    assert trace(loss, params, seed=3).value == trace(loss, params, seed=3).value
    for wrong, words in (
        ({"rel_error": -1}, "rel_error is -1"),
        ({"deflate": -1}, "deflate is -1"),
        ({"matrix": "x"}, "matrix is 'x'"),
        ({"method": "x"}, "method is 'x'"),
        ({"max_products": 5}, "max_products is 5"),
    ):
        with pytest.raises(BadInput, match=words):
            trace(loss, params, **wrong)
