"""LARS, LAMB, RMSprop warm-up, momentum correction and decay groups.

Oracles: the published rules as numpy loops over whole vectors; torch's SGD for what they become in a limit; closed forms.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gengap.core.errors import BadInput
from gengap.optim.groups import no_decay_groups
from gengap.optim.lamb import Lamb
from gengap.optim.lars import Lars
from gengap.optim.momentum_correction import correct_momentum
from gengap.optim.rmsprop_warmup import RmspropWarmup, sgd_share

STEPS = 12
RNG = np.random.default_rng(0)
MATRIX, VECTOR = RNG.normal(size=(3, 2)), RNG.normal(size=4)
PULL = RNG.uniform(0.3, 3.0, size=10)  # curvatures of a quadratic, one for every weight


def norm(x):
    return math.sqrt(sum(float(v) ** 2 for v in np.ravel(x)))


def lars(w, g, memory, t, *, lr, momentum=0.9, weight_decay=0.0, trust=1e-3, eps=0.0, nesterov=False, adapt_1d=False):
    local = trust * norm(w) / (norm(g) + weight_decay * norm(w) + eps) if w.ndim > 1 or adapt_1d else 1.0
    u = lr * local * (g + weight_decay * w)
    memory["v"] = momentum * memory.get("v", 0) + u
    return w - (u + momentum * memory["v"] if nesterov else memory["v"])


def lamb(
    w,
    g,
    memory,
    t,
    *,
    lr,
    betas=(0.9, 0.999),
    eps=1e-6,
    weight_decay=0.0,
    bias_correction=True,
    trust_bounds=None,
    adapt_1d=False,
):
    m = memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * g
    v = memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * g * g
    if bias_correction:
        m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    r = m / (np.sqrt(v) + eps) + weight_decay * w
    ratio = norm(w) / norm(r) if w.ndim > 1 or adapt_1d else 1.0
    if trust_bounds and (w.ndim > 1 or adapt_1d):
        ratio = min(max(ratio, trust_bounds[0]), trust_bounds[1])
    return w - lr * ratio * r


def warmup(w, g, memory, t, *, lr, share, lr_rms=3e-4, momentum=0.9, alpha=0.99, eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * w
    s = memory["s"] = alpha * memory.get("s", 0) + (1 - alpha) * g * g
    a_rms = (1 - share) * lr_rms / lr
    memory["d"] = momentum * memory.get("d", 0) - (share + a_rms / (np.sqrt(s) + eps)) * g
    return w + lr * memory["d"]


def slope(w, offset):
    """Gradient of 1/2 sum pull (w - 0.3)^2 in one tensor."""
    return PULL[offset : offset + w.size].reshape(w.shape) * (w - 0.3)


def twin(rule, options, rates):
    tensors, memories = [MATRIX, VECTOR], [{}, {}]
    for t, lr in enumerate(rates, 1):
        slopes = [slope(tensors[0], 0), slope(tensors[1], 6)]
        tensors = [rule(w, g, m, t, lr=lr, **options) for w, g, m in zip(tensors, slopes, memories, strict=True)]
    return tensors


def ours(kind, options, rates, share=None):
    weights = [nn.Parameter(torch.tensor(w)) for w in (MATRIX, VECTOR)]
    optimizer = kind(weights, lr=rates[0], **options)
    for lr in rates:
        for group in optimizer.param_groups:
            group["lr"] = lr
            if share is not None:
                group["alpha_sgd"] = share
        for w, offset in zip(weights, (0, 6), strict=True):
            w.grad = torch.tensor(slope(w.detach().numpy(), offset))
        optimizer.step()
    return [w.detach().numpy() for w in weights]


LARS = [
    {},
    {"momentum": 0.0},
    {"weight_decay": 0.2},
    {"trust": 0.05},
    {"eps": 0.5, "trust": 0.05},
    {"nesterov": True},
    {"adapt_1d": True, "weight_decay": 0.2},
]
LAMB = [
    {},
    {"betas": (0.5, 0.9)},
    {"eps": 0.1},
    {"weight_decay": 0.2},
    {"bias_correction": False},
    {"trust_bounds": (0.2, 0.37)},
    {"trust_bounds": (2.0, 9.0)},
    {"adapt_1d": True},
]
WARMUP = [
    {"share": 0.3},
    {"share": 0.0},
    {"share": 0.3, "lr_rms": 1e-2},
    {"share": 0.3, "momentum": 0.5},
    {"share": 0.3, "alpha": 0.8},
    {"share": 0.3, "eps": 0.1},
    {"share": 0.3, "weight_decay": 0.2},
]
EXAM = [(Lars, lars, o) for o in LARS] + [(Lamb, lamb, o) for o in LAMB] + [(RmspropWarmup, warmup, o) for o in WARMUP]


@pytest.mark.parametrize("changing", [False, True], ids=["constant rate", "changing rate"])
@pytest.mark.parametrize(("kind", "rule", "options"), EXAM)
def test_follows_the_published_rule(kind, rule, options, changing):
    rates = [0.05 * (0.9**t if changing else 1) for t in range(STEPS)]
    arguments = {key: value for key, value in options.items() if key != "share"}
    found = ours(kind, arguments, rates, options.get("share"))
    for a, b in zip(found, twin(rule, options, rates), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_every_option_is_another_path():
    ends = [np.concatenate([np.ravel(w) for w in twin(rule, o, [0.05] * STEPS)]) for _, rule, o in EXAM]
    apart = [np.abs(a - b).max() for i, a in enumerate(ends) for b in ends[:i]]
    assert min(apart) > 1e-6


def test_a_tensor_of_zeros_moves():
    for kind in (Lars, Lamb):
        w = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
        w.grad = torch.ones_like(w)
        kind([w], lr=0.5).step()
        assert (w < 0).all()
        torch.testing.assert_close(w.detach(), torch.full_like(w, -0.5).detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [Lars, Lamb, RmspropWarmup])
def test_sparse_gradients_are_refused(kind):
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(BadInput, match="sparse"):
        kind(table.parameters(), lr=0.1).step()


def test_lars_steps_are_a_share_of_the_length_at_any_scale_of_the_loss():
    for scale in (1e-6, 1.0, 1e6):
        w = nn.Parameter(torch.tensor(MATRIX))
        w.grad = scale * torch.tensor(RNG.normal(size=(3, 2)))
        Lars([w], lr=2.0, trust=0.01).step()
        assert norm(w.detach().numpy() - MATRIX) == pytest.approx(0.02 * norm(MATRIX), rel=1e-12)


def test_warmup_ends_as_sgd():
    rates = [0.1 * 0.8**t for t in range(STEPS)]
    found = ours(RmspropWarmup, {"momentum": 0.9, "weight_decay": 0.1}, rates, 1.0)
    for a, b in zip(found, ours(torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}, rates), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_share_of_sgd():
    assert sgd_share(10) == 0.5
    assert sgd_share(12.5) == 1.0
    assert sgd_share(90) == 1.0
    assert sgd_share(11.25) == 0.75
    assert sgd_share(5) == pytest.approx(0.5 * math.exp(-2))
    assert sgd_share(3, center=3, period=1) == 0.5
    h = 1e-6
    assert (sgd_share(10) - sgd_share(10 - h)) / h == pytest.approx(1 / 5, rel=1e-5)  # smooth where the pieces meet
    assert (sgd_share(10 + h) - sgd_share(10)) / h == pytest.approx(1 / 5, rel=1e-5)


def test_progress_is_set_in_all_groups_and_saved():
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = RmspropWarmup([{"params": [w]} for w in weights], lr=0.1)
    assert optimizer.param_groups[0]["alpha_sgd"] == sgd_share(0)
    optimizer.set_progress(7.0)
    again = RmspropWarmup([{"params": [w]} for w in weights], lr=0.1)
    again.load_state_dict(optimizer.state_dict())
    assert [group["alpha_sgd"] for group in again.param_groups] == [sgd_share(7.0)] * 2


@pytest.mark.parametrize(
    "bad", [{"epochs": -1}, {"epochs": math.nan}, {"epochs": 1, "period": 0}, {"epochs": 1, "center": math.inf}]
)
def test_wrong_progress_is_refused(bad):
    with pytest.raises(BadInput):
        sgd_share(**bad)


def vector_run(kind, options, rates, correct):
    """Run on vectors, where LARS is momentum with the rate inside the velocity."""
    w = nn.Parameter(torch.tensor(VECTOR))
    optimizer = kind([w], lr=rates[0], momentum=0.9, **options)
    for old, new in zip([rates[0], *rates], rates, strict=False):
        if correct:
            correct_momentum(optimizer, old, new)
        optimizer.param_groups[0]["lr"] = new
        w.grad = torch.tensor(slope(w.detach().numpy(), 6))
        optimizer.step()
    return w.detach()


RATES = [0.01, 0.02, 0.03, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]


@pytest.mark.parametrize("nesterov", [False, True])
def test_corrected_momentum_is_that_of_the_other_form(nesterov):
    outside = vector_run(torch.optim.SGD, {"nesterov": nesterov}, RATES, correct=False)
    inside = vector_run(Lars, {"nesterov": nesterov}, RATES, correct=True)
    torch.testing.assert_close(inside, outside, rtol=1e-12, atol=1e-14)
    assert (vector_run(Lars, {"nesterov": nesterov}, RATES, correct=False) - outside).abs().max() > 1e-3


def test_correction_leaves_the_other_form_as_it_is():
    plain = vector_run(torch.optim.SGD, {}, RATES, correct=False)
    assert torch.equal(vector_run(torch.optim.SGD, {}, RATES, correct=True), plain)


def test_correction_from_rate_zero_and_of_what_the_caller_names():
    w = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    w.grad = torch.ones(2)
    optimizer.step()
    correct_momentum(optimizer, 0.0, 0.1, inside=True)
    assert (optimizer.state[w]["momentum_buffer"] == 1).all()
    correct_momentum(optimizer, 0.1, 0.05, inside=True)
    assert (optimizer.state[w]["momentum_buffer"] == 0.5).all()
    with pytest.raises(BadInput, match="new_lr"):
        correct_momentum(optimizer, 0.1, -1)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.ln, self.rms = nn.LayerNorm((2, 3)), nn.RMSNorm((2, 3))
        self.embed, self.out = nn.Embedding(4, 3), nn.Linear(3, 4)
        self.out.weight = self.embed.weight  # tied
        self.scale, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(2, 2))
        self.frozen = nn.Linear(2, 2).requires_grad_(requires_grad=False)


def test_groups_leave_biases_and_norm_layers_out_of_decay():
    model = Mixed()
    decayed, spared = no_decay_groups(model, 0.1, lr=0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"conv.weight", "embed.weight"}
    assert {names[id(p)] for p in spared["params"]} == {
        "conv.bias", "bn.weight", "bn.bias", "ln.weight", "ln.bias", "rms.weight", "out.bias", "scale", "bias",
    }  # fmt: skip
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    optimizer = torch.optim.SGD([decayed, spared], lr=1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def test_groups_that_would_be_empty_are_left_out():
    assert len(no_decay_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1
    with pytest.raises(BadInput, match="no weights"):
        no_decay_groups(nn.ReLU(), 0.1)
    with pytest.raises(BadInput, match="weight_decay"):
        no_decay_groups(nn.Linear(2, 2), -0.1)
