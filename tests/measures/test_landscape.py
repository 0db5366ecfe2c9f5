# Oracle: a naive twin that deep-copies an nn.Module for every alpha and sets each parameter by hand.
import copy
import json
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from gengap.core.errors import BadInput
from gengap.measures.landscape.paths import interpolate

RNG = torch.Generator().manual_seed(5)
INPUTS = torch.randn(40, 6, dtype=torch.float64, generator=RNG)
TARGETS = torch.randint(0, 3, (40,), generator=RNG)


def network(seed, dtype=torch.float64):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=dtype))
        model[1].running_mean.copy_(torch.randn(8, generator=rng, dtype=dtype))
        model[1].running_var.copy_(0.5 + torch.rand(8, generator=rng, dtype=dtype))
        model[1].num_batches_tracked.fill_(seed)
    return model.eval()


def cross_entropy(model):
    return lambda params: nn.functional.cross_entropy(functional_call(model, params, (INPUTS,)), TARGETS)


def naive(a, b, alpha, buffers=False):
    model = copy.deepcopy(a)
    with torch.no_grad():
        for own, p, q in zip(model.parameters(), a.parameters(), b.parameters(), strict=True):
            own.copy_((1 - alpha) * p + alpha * q)
        if buffers:
            for name in ("running_mean", "running_var"):
                p, q = getattr(a[1], name), getattr(b[1], name)
                getattr(model[1], name).copy_((1 - alpha) * p + alpha * q)
        return nn.functional.cross_entropy(model(INPUTS), TARGETS).item()


class Scored:
    """A loss with the methods of the protocol, that carries its buffers."""

    def __init__(self, model, buffers):
        self.model, self.buffers, self.seen = model, dict(buffers), []

    def __call__(self, params):
        raise AssertionError("score must be used where it exists")

    value = value_and_grad = __call__

    def score(self, params):
        self.seen.append((id(params), tuple(p.data_ptr() for p in params.values())))
        with torch.no_grad():
            out = functional_call(self.model, {**params, **self.buffers}, (INPUTS,))
        right = 100 * (out.argmax(1) == TARGETS).double().mean().item()
        return type("S", (), {"loss": nn.functional.cross_entropy(out, TARGETS).item(), "accuracy": right})()

    def describe(self):
        return {"data": "test", "samples": 40, "batch_norm": "running"}

    def with_buffers(self, buffers):
        self.buffers = {name: p.clone() for name, p in buffers.items()}
        return self


def ends():
    a, b = network(1), network(2)
    return a, b, dict(a.named_parameters()), dict(b.named_parameters())


def test_equals_the_naive_twin_at_every_default_alpha():
    a, b, pa, pb = ends()
    path = interpolate(cross_entropy(a), a=pa, b=pb)
    assert path.alphas == tuple(-1 + 0.125 * i for i in range(25))
    assert path.alphas.index(0.0) == 8
    assert path.alphas.index(1.0) == 16
    assert path.losses[0] == pytest.approx([naive(a, b, alpha) for alpha in path.alphas], rel=1e-12)
    assert path.accuracies == (None,)
    assert path.curve == "linear"


def test_the_ends_are_the_given_weights_bit_for_bit():
    pa = {"w": torch.tensor([0.1, 1e30, math.inf], dtype=torch.float32)}
    pb = {"w": torch.tensor([0.3, 1.0, 7.0], dtype=torch.float32)}
    seen = []
    interpolate(lambda p: (seen.append(p["w"].clone()), p["w"][0] * 0)[1], a=pa, b=pb, alphas=[0, 1, -0.0], check=False)
    assert [torch.equal(x, y["w"]) for x, y in zip(seen, (pa, pb, pa), strict=True)] == [True] * 3


def test_several_losses_with_accuracy_and_cost():
    a, _, pa, pb = ends()
    train, test = cross_entropy(a), Scored(a, a.named_buffers())
    path = interpolate([train, test], a=pa, b=pb, alphas=[0.0, 0.5])
    assert path.losses[0] == pytest.approx(path.losses[1], rel=1e-14)
    assert path.accuracies[0] is None
    assert all(0 <= x <= 100 for x in path.accuracies[1])
    assert path.forward_samples is None
    assert [d["data"] for d in path.descriptions] == ["unknown", "test"]
    assert interpolate([test, test], a=pa, b=pb, alphas=[0.0, 0.5, 2.0]).forward_samples == 240


def test_the_same_tensors_are_filled_at_every_point():
    a, _, pa, pb = ends()
    loss = Scored(a, a.named_buffers())
    interpolate(loss, a=pa, b=pb, alphas=[0, 0.3, 1, 2])
    assert len(set(loss.seen)) == 1
    assert not {p.data_ptr() for p in [*pa.values(), *pb.values()]} & set(loss.seen[0][1])


def test_running_statistics_follow_the_line_and_the_loss_gets_its_own_back():
    a, b, pa, pb = ends()
    loss = Scored(a, a.named_buffers())
    own = {name: p.clone() for name, p in loss.buffers.items()}
    alphas = [-0.25, 0.0, 0.25, 1.0]
    path = interpolate(
        loss, a=pa, b=pb, alphas=alphas, a_buffers=dict(a.named_buffers()), b_buffers=dict(b.named_buffers())
    )
    assert path.losses[0] == pytest.approx([naive(a, b, x, buffers=True) for x in alphas], rel=1e-12)
    assert all(torch.equal(loss.buffers[name], p) for name, p in own.items())
    fixed = interpolate(loss, a=pa, b=pb, alphas=alphas)
    assert fixed.losses[0] == pytest.approx([naive(a, b, x) for x in alphas], rel=1e-12)


def test_a_negative_variance_is_recorded_as_none():
    a, b, pa, pb = ends()
    loss = Scored(a, a.named_buffers())
    path = interpolate(
        loss, a=pa, b=pb, alphas=[0, 8], a_buffers=dict(a.named_buffers()), b_buffers=dict(b.named_buffers())
    )
    assert path.losses[0][0] is not None
    assert path.losses[0][1] is None
    assert "not finite" in str(path)
    assert json.loads(json.dumps(path.to_dict(), allow_nan=False))["losses"][0][1] is None


def test_leaves_tensors_gradients_and_random_state_alone():
    a, _, pa, pb = ends()
    before = [p.detach().clone() for p in [*pa.values(), *pb.values()]]
    state = torch.get_rng_state()
    interpolate(cross_entropy(a), a=pa, b=pb, alphas=[0, 0.5, 1])
    assert torch.equal(torch.get_rng_state(), state)
    after = [*pa.values(), *pb.values()]
    assert all(torch.equal(x, y) and x.requires_grad and x.grad is None for x, y in zip(after, before, strict=True))


def test_takes_single_tensors_and_tells_of_every_point():
    heard = []
    a, b = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([3.0, 4.0], dtype=torch.float64)
    path = interpolate(lambda w: w.square().sum(), a=a, b=b, alphas=[0, 0.5, 2], listen=heard.append)
    assert path.losses == ((1.0, 8.0, 89.0),)
    assert [(e.done, e.total, e.unit) for e in heard] == [(1, 3, "points"), (2, 3, "points"), (3, 3, "points")]
    assert "89" in str(path)


ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"b": {"v": ONE}}, "a and b are not of one network: 'v' is in only one of them"),
        ({"b": {"w": torch.ones(3)}}, r"a\['w'\] has shape \(2,\) and b\['w'\] has \(3,\)"),
        ({"alphas": []}, "alphas is empty"),
        ({"alphas": [0.0, math.inf]}, "alphas holds inf"),
        ({"losses": []}, "losses is empty"),
        ({"a_buffers": {}}, "a_buffers and b_buffers belong together"),
        ({"a_buffers": {"m": ONE}, "b_buffers": {"m": ONE}}, "a loss has no method with_buffers"),
        ({"a": {"w": torch.ones(2, dtype=torch.int64)}}, r"a\['w'\] is torch.int64"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    arguments = {"losses": lambda p: p["w"].sum(), "a": {"w": ONE}, "b": {"w": ONE}, **change}
    with pytest.raises(BadInput, match=sentence):
        interpolate(arguments.pop("losses"), **arguments)
