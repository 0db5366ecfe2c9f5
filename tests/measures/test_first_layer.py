# Oracle: a naive twin that copies the module, writes every weight by hand and multiplies everything anew; and a count of
# the multiplications that the first layer really makes.
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import gengap
from gengap.measures.landscape.first_layer import FirstLayer
from gengap.measures.landscape.paths import interpolate
from gengap.measures.landscape.positions import Curve
from gengap.measures.landscape.slices import slice_1d, slice_2d

WIDE, HIDDEN, SAMPLES = 150, 6, 30
RNG = torch.Generator().manual_seed(4)
X = torch.randn(SAMPLES, WIDE, dtype=torch.float64, generator=RNG)
Y = torch.randint(0, 3, (SAMPLES,), generator=RNG)


class Scaling(nn.Module):
    """Changes the samples before the first layer, in a tensor of its own or in place."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, x):
        return x.mul_(1.0) if self.in_place else x * 2


def plain(bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(WIDE, HIDDEN, bias=bias), nn.ReLU(), nn.Linear(HIDDEN, 3)).double()


NETWORKS = {
    "linear": plain,
    "no bias": lambda: plain(bias=False),
    "scaled": lambda: nn.Sequential(Scaling(in_place=False), *plain()[1:]).double(),
    "in place": lambda: nn.Sequential(Scaling(in_place=True), *plain()[1:]).double(),
    "batch norm": lambda: nn.Sequential(nn.Linear(WIDE, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, 3)).double(),
}


def problem(name):
    return gengap.Problem(model=NETWORKS[name], loss="cross_entropy", train=(X, Y), test=(X[:7], Y[:7]))


def ends(task):
    return [{n: p.detach() for n, p in task.model(s, dtype=torch.float64).named_parameters()} for s in (0, 1)]


class Wide(TorchFunctionMode):
    """Counts the multiplications by a matrix of WIDE columns."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and args[1].shape[-1] == WIDE:
            self.count += 1
        return func(*args, **(kwargs or {}))


def naive(task, a, b, alpha):
    model = task.model(0, dtype=torch.float64).eval()
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_((1 - alpha) * a[name] + alpha * b[name])
        return F.cross_entropy(model(X), Y).item()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("chunk", [10, 500])
def test_equals_the_naive_twin(name, chunk):
    task = problem(name)
    a, b = ends(task)
    path = interpolate([task.loss_function("train", batch_size=chunk), task.loss_function("test")], a=a, b=b)
    assert path.losses[0] == pytest.approx([naive(task, a, b, t) for t in path.alphas], rel=1e-11)
    assert path.accuracies[0] is not None


@pytest.mark.parametrize(("name", "blended"), [("linear", True), ("no bias", True), ("scaled", False)])
def test_the_first_layer_is_multiplied_once_for_each_end(name, blended):
    task = problem(name)
    a, b = ends(task)
    with Wide() as wide:
        interpolate(task.loss_function("train"), a=a, b=b, check=False, memory_limit="1 GiB")
    trials = 2 if task.loss_function("train").chunk_size else 0
    # Ends of the path are not blended; the forecast of memory makes two small passes.
    assert wide.count == trials + (2 + 2 if blended else 25)


def test_what_does_not_fit_is_multiplied_anew():
    task = problem("linear")
    a, b = ends(task)
    line = Curve(a, b, ("a", "b"))
    loss = task.loss_function("train", batch_size=10)
    next(iter(loss.chunks(a)))
    one_chunk = 2 * 10 * HIDDEN * 8
    for room, anew in [(0, 3), (one_chunk, 2), (3 * one_chunk, 0)]:
        mode = FirstLayer(line, [loss._samples.inputs], room)
        line.move((0.3,))
        with mode:
            loss.score(line.point)  # fills
        line.move((0.7,))
        with Wide() as wide, mode:
            score = loss.score(line.point)
        assert wide.count == anew
        assert score.loss == pytest.approx(naive(task, a, b, 0.7), rel=1e-12)


def test_changes_of_the_samples_in_place_are_seen():
    task = problem("linear")
    a, b = ends(task)
    line, loss = Curve(a, b, ("a", "b")), task.loss_function("train")
    own = X.clone()
    loss._samples.inputs = own
    mode = FirstLayer(line, [own], 1 << 20)
    line.move((0.5,))
    with mode:
        before = loss.score(line.point).loss
        own.mul_(3)
        after = loss.score(line.point).loss
    twin = task.model(0, dtype=torch.float64)
    with torch.no_grad():
        for n, p in twin.named_parameters():
            p.copy_(line.point[n])
        assert after == pytest.approx(F.cross_entropy(twin(3 * X), Y).item(), rel=1e-12)
        assert before == pytest.approx(F.cross_entropy(twin(X), Y).item(), rel=1e-12)


def test_a_plain_function_is_left_alone():
    """It may give other samples each time at the same address."""
    a, b = torch.ones(4, WIDE, dtype=torch.float64), torch.zeros(4, WIDE, dtype=torch.float64)
    with Wide() as wide:
        interpolate(lambda w: F.linear(X, w).sum(), a=a, b=b, check=False)
    assert wide.count == 25


def test_slices_are_blended_too():
    task = problem("batch norm")
    a, _ = ends(task)
    loss = task.loss_function("train", batch_norm="batch")
    for vectors in ("zero", "whole"):
        found = slice_2d(loss, a, x=[-1, 0.5, 1], y=[-1, 0.25, 1], vectors=vectors)
        first, second = found.axes.directions
        for j, y in enumerate(found.grid.y):
            for i, x in enumerate(found.grid.x):
                moved = {n: p + x * first.get(n, 0 * p) + y * second.get(n, 0 * p) for n, p in a.items()}
                hidden = F.linear(X, moved["0.weight"], moved["0.bias"])
                hidden = F.batch_norm(hidden, None, None, moved["1.weight"], moved["1.bias"], training=True)
                outputs = F.linear(hidden, moved["2.weight"], moved["2.bias"])
                exact = F.cross_entropy(outputs, Y).item()
                assert found.grid.losses[0][j][i] == pytest.approx(exact, rel=1e-10)


def test_float32_differs_by_rounding_only():
    task = problem("linear")
    a, b = ({n: p.float() for n, p in end.items()} for end in ends(task))
    path = interpolate(task.loss_function("train"), a=a, b=b)
    exact = [naive(task, *ends(task), t) for t in path.alphas]
    assert path.losses[0] == pytest.approx(exact, rel=1e-5)


def test_a_bias_that_moves_alone():
    task = problem("linear")
    a, _ = ends(task)
    found = slice_1d(task.loss_function("train"), a, positions=[-1, 0.5, 1, 2, 3], vectors="whole", only="*.bias")
    (d,) = found.axes.directions
    assert set(d) == {"1.bias", "3.bias"}
    moved = [{n: p + t * d.get(n, 0 * p) for n, p in a.items()} for t in found.positions]
    assert found.losses[0] == pytest.approx([naive(task, end, end, 0) for end in moved], rel=1e-11)
