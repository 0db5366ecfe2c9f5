"""One small network of each kind, with data, and the gradients of single samples made in the plainest way."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from gengap.problem.problem import Problem
from gengap.problem.trees import arguments, map_tensors

C = 3


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(4, 3), nn.Linear(2, 3, bias=False), nn.Linear(3, C)

    def forward(self, left, right):
        return self.out(torch.tanh(self.left(left) * self.right(right)))


class Words(nn.Module):
    """An embedding with a padding row, read by a linear layer over positions; words repeat within a sample."""

    def __init__(self):
        super().__init__()
        self.table, self.mix, self.out = nn.Embedding(5, 4, padding_idx=1), nn.Linear(4, 3), nn.Linear(3, C)

    def forward(self, x):
        return self.out(torch.relu(self.mix(self.table(x))).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, C)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.norm, self.out = (
            nn.MultiheadAttention(4, 2, batch_first=True),
            nn.LayerNorm(4),
            nn.Linear(4, C),
        )

    def forward(self, x):
        return self.out(self.norm(x + self.heads(x, x, x, need_weights=False)[0]).mean(1))


class Tied(nn.Module):
    """A weight that is used twice under two names, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.again, self.out = (
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, C),
        )
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(self.again(torch.tanh(self.again(torch.tanh(self.second(torch.relu(self.first(x))))))))


class Own(nn.Module):
    """Parameters that no layer of torch holds, one of them unused."""

    def __init__(self):
        super().__init__()
        self.scale, self.unused = nn.Parameter(torch.linspace(0.5, 1.5, 4)), nn.Parameter(torch.ones(2))
        self.out = nn.Linear(4, C)

    def forward(self, x):
        return self.out(torch.tanh(x * self.scale))


class Outer(torch.autograd.Function):
    """A layer that torch's function modes cannot see into."""

    @staticmethod
    def forward(x, w):
        return x @ w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


class Hidden(nn.Module):
    """A weight used in the open by a linear layer, and again where no one sees it."""

    def __init__(self):
        super().__init__()
        self.both, self.out = nn.Linear(4, 4), nn.Linear(4, C)

    def forward(self, x):
        return self.out(torch.tanh(Outer.apply(torch.tanh(self.both(x)), self.both.weight)))


class HiddenAtTimes(Hidden):
    """The same for some samples only."""

    def forward(self, x):
        h = torch.tanh(self.both(x))
        seldom = Outer.apply(h * (x[:, :1] > 50), self.both.weight)
        return self.out(h + seldom)


class TimeFirst(nn.Module):
    """A linear layer over positions whose first axis is time, not samples."""

    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Linear(3, 4), nn.Linear(4, C)

    def forward(self, x):
        return self.out(torch.tanh(self.mix(x.transpose(0, 1))).mean(0))


def frozen():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, C))
    model[0].bias.requires_grad_(False)
    return model


def normed():
    model = nn.Sequential(nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, C))
    model.append(nn.BatchNorm1d(C))
    with torch.no_grad():
        for norm in (model[1], model[5]):
            norm.running_mean += torch.linspace(-0.3, 0.4, norm.num_features)
            norm.running_var *= torch.linspace(0.5, 2.0, norm.num_features)
    return model


def image(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers), nn.Tanh(), nn.Flatten(), nn.LazyLinear(C))


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, C))


@dataclass(frozen=True)
class Kind:
    """A network, the shape of one sample's input(s), and the weights whose gradients must be written out."""

    model: Any
    shape: Any = (4,)
    integers: int = 0
    written: tuple[str, ...] = ()


def conv(kind, *args, **kwargs):
    """A convolution and a linear layer as wide as it makes necessary."""

    def make():
        layer = kind(*args, **kwargs)
        spots = {nn.Conv1d: (9,), nn.Conv2d: (5, 6), nn.Conv3d: (3, 4, 3)}[kind]
        wide = layer(torch.zeros(1, args[0], *spots)).numel()
        return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(wide, C))

    return make


KINDS = {
    "mlp": Kind(mlp),
    "linear over positions": Kind(
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, C)), (6, 3)
    ),
    "linear over a grid": Kind(
        lambda: nn.Sequential(nn.Linear(9, 9), nn.Tanh(), nn.Flatten(), nn.Linear(36, C)), (2, 2, 9)
    ),
    "two inputs": Kind(TwoInputs, ((4,), (2,))),
    "dict inputs": Kind(TwoInputs, {"right": (2,), "left": (4,)}),
    "embedding": Kind(Words, (6,), integers=5),
    "conv1d": Kind(conv(nn.Conv1d, 4, 6, 3, stride=2, padding=1, groups=2), (4, 9)),
    "conv1d same": Kind(conv(nn.Conv1d, 2, 3, 4, padding="same", dilation=2), (2, 9)),
    "conv2d": Kind(conv(nn.Conv2d, 2, 4, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(1, 2)), (2, 5, 6)),
    "conv2d groups": Kind(conv(nn.Conv2d, 4, 8, 3, groups=4, bias=False, padding="valid"), (4, 5, 6)),
    "conv2d reflect": Kind(conv(nn.Conv2d, 2, 3, 3, padding=1, padding_mode="reflect"), (2, 5, 6)),
    "conv3d": Kind(conv(nn.Conv3d, 2, 3, 2, padding=(1, 0, 1)), (2, 3, 4, 3)),
    "batch norm": Kind(normed, (2, 3, 3)),
    "layer norm": Kind(
        lambda: nn.Sequential(nn.LayerNorm((2, 4)), nn.Flatten(), nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, C)),
        (2, 4),
    ),
    "layer norm over positions": Kind(
        lambda: nn.Sequential(nn.LayerNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(20, C)), (5, 4)
    ),
    "group norm": Kind(lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(36, C)), (4, 9)),
    "frozen": Kind(frozen),
    "lstm": Kind(Recurrent, (5, 3), written=("rnn.*",)),
    "attention": Kind(Attention, (5, 4), written=("heads.*",)),
    "tied": Kind(Tied, written=("first.weight", "again.*")),
    "own parameters": Kind(Own, written=("scale", "unused")),
    "hidden use": Kind(Hidden, written=("both.weight", "both.bias")),
    "time first": Kind(TimeFirst, (7, 3), written=("mix.weight", "mix.bias")),
}


def inputs_of(kind, n, rng):
    def draw(shape):
        if kind.integers:
            return torch.randint(kind.integers, (n, *shape), generator=rng)
        return torch.randn(n, *shape, generator=rng, dtype=torch.float64)

    if isinstance(kind.shape, dict):
        return {name: draw(shape) for name, shape in kind.shape.items()}
    return tuple(map(draw, kind.shape)) if isinstance(kind.shape[0], tuple) else draw(kind.shape)


@dataclass(frozen=True)
class Case:
    problem: Problem
    model: nn.Module
    params: dict[str, Tensor]
    inputs: Any
    targets: Tensor


def case(name, n=11, seed=0, loss="cross_entropy"):
    """A problem of a kind in float64, of n samples."""
    kind, rng = KINDS[name], torch.Generator().manual_seed(seed)
    inputs, targets = inputs_of(kind, n, rng), torch.randint(C, (n,), generator=rng)
    problem = Problem(model=kind.model, loss=loss, train=(inputs, targets), test=(inputs, targets))
    model = problem.model(seed=seed + 1, dtype=torch.float64).eval()
    return Case(problem, model, {k: p.detach() for k, p in model.named_parameters()}, inputs, targets)


def single_gradients(c, names=None):
    """The gradients of single samples by one backward pass each, shape (N, P), in the order of `names`."""
    names = names or [k for k, p in c.model.named_parameters() if p.requires_grad]
    own = {k: p.clone().requires_grad_(k in names) for k, p in c.params.items()}
    rows = []
    for i in range(len(c.targets)):
        args, kwargs = arguments(map_tensors(lambda x, i=i: x[i : i + 1], c.inputs))
        value = F.cross_entropy(functional_call(c.model, own, args, kwargs), c.targets[i : i + 1])
        found = torch.autograd.grad(value, [own[k] for k in names], allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows).numpy()
