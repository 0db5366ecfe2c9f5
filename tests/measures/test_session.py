# Oracles: copies of everything a user can see, taken beforehand and compared bit by bit; losses whose only fault is known.
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import gengap
from gengap.core.errors import BadInput
from gengap.measures.curvature.operators import hessian
from gengap.measures.memory import PeakMemory
from gengap.measures.session import measuring
from gengap.problem.from_model import loss_function

N = 24
RNG = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, 4, generator=RNG), torch.randint(3, (N,), generator=RNG)


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *layers, nn.Tanh(), nn.Linear(6, 3))


def of(model, x=X, y=Y):
    return lambda p: F.cross_entropy(functional_call(model, dict(p), (x,)), y)


def generators():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def settings():
    return (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cudnn.enabled,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.is_grad_enabled(),
        len(PeakMemory.active),
    )


@pytest.mark.parametrize("end", [None, ZeroDivisionError, KeyboardInterrupt], ids=str)
@pytest.mark.parametrize("passes", ["value", "gradient", "product"])
def test_nothing_of_the_users_is_another_afterwards(passes, end):
    model = network(nn.BatchNorm1d(6), nn.Dropout(0.5))
    of(model)(dict(model.named_parameters())).backward()
    model.train()
    model[0].bias.requires_grad_(False)
    params = dict(model.named_parameters())
    values = [p.detach().clone() for p in [*params.values(), *model.buffers()]]
    gradients, flags = [p.grad.clone() for p in params.values()], [p.requires_grad for p in params.values()]
    before, around = generators(), settings()

    def measure():
        with measuring(loss_function(model, "cross_entropy", (X, Y)), params, passes=passes) as session:
            session.loss.value_and_grad(session.params)
            if passes == "product":
                hessian(session)(torch.ones(session.weights))
            torch.rand(3), np.random.rand(3), random.random()
            if end:
                raise end

    if end:
        with pytest.raises(end):
            measure()
    else:
        measure()
    assert generators() == before
    assert settings() == around
    assert all(torch.equal(a, b) for a, b in zip(values, [*params.values(), *model.buffers()], strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, params.values(), strict=True))
    assert [p.requires_grad for p in params.values()] == flags
    assert all(m.training for m in model.modules())


def test_interrupted_while_it_is_checked_puts_buffers_back():
    model, calls = network(nn.BatchNorm1d(6)).train(), []

    def loss(p):
        value = of(model)(p)
        calls.append(value)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return value

    before, states = [b.clone() for b in model.buffers()], generators()
    with pytest.raises(KeyboardInterrupt), measuring(loss, dict(model.named_parameters()), passes="gradient"):
        pass
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert generators() == states
    assert settings()[-1] == 0


class Counting(nn.Module):
    """Counts its calls in a buffer, and adds the count to its outputs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + self.calls


def through(loader, batches=None):
    model = network()

    def loss(p):
        total = seen = 0.0
        for i, (x, y) in enumerate(loader):
            if i == batches:
                break
            total, seen = total + of(model, x, y)(p) * len(y), seen + len(y)
        return total / seen

    return model, loss


def shuffled(**options):
    return DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True, **options)


def own():
    return torch.Generator().manual_seed(1)


def noisy(draw):
    model = network()
    return model, lambda p: of(model)(p) * (1 + draw())


def in_training(*layers):
    model = network(*layers).train()
    return model, of(model)


def functional_dropout():
    model = network()
    return model, lambda p: F.cross_entropy(F.dropout(functional_call(model, dict(p), (X,)), 0.5), Y)


def drifting():
    model, calls = network(), []
    return model, lambda p: (calls.append(0), of(model)(p) + len(calls))[1]


RANDOM = "the loss draws random numbers (the same seed gives the same value)"
REASONS = {
    "dropout layer": (lambda: in_training(nn.Dropout(0.4)), "Dropout(p=0.4, inplace=False) is in training mode"),
    "dropout in a function": (functional_dropout, RANDOM),
    "noise of torch": (lambda: noisy(lambda: torch.rand(()).item()), RANDOM),
    "noise of numpy": (lambda: noisy(np.random.rand), RANDOM),
    "noise of python": (lambda: noisy(random.random), RANDOM),
    "part of a shuffled loader": (lambda: through(shuffled(), 2), RANDOM),
    "whole of a shuffled loader": (lambda: through(shuffled()), RANDOM),
    "part, own generator": (
        lambda: through(shuffled(generator=own()), 2),
        "a loader shuffled by a generator of its own",
    ),
    "whole, own generator": (lambda: through(shuffled(generator=own())), "they agree but for rounding"),
    "batch norm in training mode": (
        lambda: in_training(nn.BatchNorm1d(6)),
        "evaluating the loss changes running_mean of BatchNorm1d, which the next evaluation uses",
    ),
    "a buffer that counts": (lambda: (lambda m: (m, of(m)))(network(Counting()).eval()), "changes calls of Counting"),
    "a changing function": (drifting, "the loss changes from call to call"),
}


@pytest.mark.parametrize("fault", REASONS)
def test_a_loss_that_is_not_deterministic_is_refused_with_the_reason(fault):
    make, says = REASONS[fault]
    model, loss = make()
    params, before = dict(model.named_parameters()), [b.clone() for b in model.buffers()]
    states = generators()
    with pytest.raises(BadInput) as caught, measuring(loss, params, passes="gradient"):
        pass
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert generators() == states
    with measuring(loss, params, passes="gradient", check=False) as session:
        assert session.loss.value_and_grad(session.params)[0] > 0


def test_batch_norm_in_training_mode_with_buffers_of_its_own_is_no_fault():
    model = network(nn.BatchNorm1d(6)).train()

    def loss(p):
        fresh = {name: b.clone() for name, b in model.named_buffers()}
        return F.cross_entropy(functional_call(model, {**p, **fresh}, (X,)), Y)

    with measuring(loss, dict(model.named_parameters()), passes="value") as session:
        assert session.loss.value(session.params) > 0


def test_a_padded_transformer_is_one_function_with_and_without_a_gradient():
    """Without a gradient torch takes a path that sets padded positions to zero, and they count in this loss."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).double().eval()
    x = torch.randn(5, 3, 4, dtype=torch.float64, generator=own())
    padded = torch.zeros(5, 3, dtype=torch.bool)
    padded[:, 2] = True
    inputs = {"src": x, "src_key_padding_mask": padded}
    loss = loss_function(model, lambda o, y: o.square().mean() + 0 * y.sum(), (inputs, torch.zeros(5)))
    with measuring(loss, dict(model.named_parameters()), passes="value") as session:
        value = session.loss.value(session.params)
        assert value == pytest.approx(session.loss.value_and_grad(session.params)[0], rel=1e-12)
        assert value == pytest.approx(float(session.loss(session.params).detach()), rel=1e-12)


def test_frozen_weights_and_patterns_decide_what_is_measured():
    model = network()
    model[0].requires_grad_(False)
    params = dict(model.named_parameters())
    loss = loss_function(model, "cross_entropy", (X, Y))
    for options, names in (
        ({}, ["2.weight", "2.bias"]),
        ({"only": "0.*"}, ["0.weight", "0.bias"]),
        ({"only": "*.bias"}, ["0.bias", "2.bias"]),
        ({"only": ["2.bias", "0.w*"]}, ["0.weight", "2.bias"]),
        ({"only": "*"}, list(params)),
    ):
        with measuring(loss, params, passes="value", **options) as session:
            assert list(session.params) == names
            assert session.conditions().weights == session.weights == sum(params[n].numel() for n in names)
            assert session.loss.value(session.params) == pytest.approx(loss.value(params), rel=1e-12)
            assert not any(p.requires_grad for p in session.params.values())


def test_conditions_say_what_was_measured():
    model = network(nn.BatchNorm1d(6))
    loss = loss_function(model, "cross_entropy", (X, Y), samples=range(20), batch_size=7, batch_norm="recompute")
    with measuring(loss, dict(model.named_parameters()), passes="gradient", memory_limit="1 GiB") as session:
        first, second = session.conditions(), session.conditions()
    assert (first.data, first.samples, first.batch_norm, first.dtype) == ("tensors", 20, "recompute", "float32")
    assert (first.weights, first.memory_limit, first.chunk_size) == (63, 2**30, 7)
    assert first.peak_memory == second.peak_memory
    assert 0 < first.seconds < second.seconds
    assert str(first).startswith("data tensors (20 samples), batch norm recompute, float32, ")
    with measuring(lambda w: w.square().sum(), torch.ones(3).double(), passes="gradient") as session:
        plain = session.conditions()
    assert (plain.data, plain.samples, plain.batch_norm, plain.chunk_size) == ("unknown", None, "unknown", None)
    assert (plain.dtype, plain.weights) == ("float64", 3)


def test_second_derivatives_that_torch_does_not_have_are_said():
    bag = nn.Sequential(nn.EmbeddingBag(10, 4), nn.Tanh(), nn.Linear(4, 3))
    ids = torch.arange(N * 2).view(N, 2) % 10
    loss = loss_function(bag, "cross_entropy", (ids, Y))
    with (
        pytest.raises(BadInput, match="torch cannot differentiate an operation of the network or of the loss twice"),
        measuring(loss, dict(bag.named_parameters()), passes="product") as session,
    ):
        hessian(session)(torch.ones(session.weights))


ONE = {"w": torch.ones(2)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"params": {"w": torch.tensor([1.0, torch.inf])}}, "params holds a weight that is not finite"),
        ({"params": {}}, "params holds no numbers (0 tensors)"),
        ({"params": {"w": 1.0}}, "params['w'] is a float"),
        ({"params": {"w": torch.ones(2).long()}}, "params['w'] is torch.int64"),
        ({"params": [torch.ones(2)]}, "params is a list"),
        ({"loss": 3}, "loss is a int"),
        ({"loss": lambda p: 1.0}, "the loss returned float"),
        ({"loss": lambda p: p["w"]}, "the loss returned torch.float32 of shape (2,)"),
        ({"only": "v*"}, "only holds 'v*', which no weight is called; there are w"),
        ({"only": []}, "only is empty"),
        ({"memory_limit": "much"}, "memory_limit is 'much'"),
        ({"memory_limit": -1}, "memory_limit is -1"),
        ({"memory_limit": float("nan")}, "memory_limit is nan"),
        ({"memory_limit": 8}, "memory_limit is 8 B, but this measure needs at least"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refuses_with_a_sentence(change, says):
    given = {"loss": lambda p: p["w"].square().sum(), "params": ONE, "passes": "gradient", **change}
    with pytest.raises(BadInput) as caught, measuring(given.pop("loss"), given.pop("params"), **given):
        pass
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_trained_weight_has_nothing_to_measure():
    model = network().requires_grad_(False)
    loss = loss_function(model, "cross_entropy", (X, Y))
    with (
        pytest.raises(BadInput, match="no weight is left to measure: all are frozen"),
        measuring(loss, dict(model.named_parameters()), passes="value"),
    ):
        pass


@pytest.mark.parametrize("chunk", [5, None], ids=["pieces", "at once"])
def test_a_loss_that_depends_on_how_samples_are_cut_is_refused_where_they_are_cut(chunk):
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 4, generator=rng), torch.arange(20) % 3
    weight = torch.tensor([1.0, 5.0, 0.1])
    net = torch.nn.Linear(4, 3)

    def weighted(outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets, weight=weight)

    loss = gengap.loss_function(net, weighted, (x, y), batch_size=chunk)
    params = dict(net.named_parameters())
    if chunk is None:
        assert gengap.top_eigenvalues(loss, params, k=1).values[0] > 0
    else:
        with pytest.raises(BadInput, match="no mean over samples"):
            gengap.top_eigenvalues(loss, params, k=1)


def test_a_mean_that_float32_rounds_by_batch_size_is_no_sum():
    """A regression that fits to 1e-5: kernels round its residuals otherwise in batches of other sizes."""
    g = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.05)
        x = torch.randn(64, 784, generator=g)
        y = model(x) + 1e-5 * torch.randn(64, 10, generator=g)
    problem = gengap.Problem(model=lambda: model, loss="mean_square", train=(x, y), test=(x, y))
    loss = problem.loss_function("train", batch_size=5)
    params = {name: p.detach() for name, p in model.named_parameters()}
    with measuring(loss, params, passes="value"):
        pass
