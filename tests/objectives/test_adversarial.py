"""Oracles: logistic regression, where the worst input and its loss have a closed form (Goodfellow et al. 2014, sec. 5), and a
loop that makes the perturbation on a copy of the network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from objective_networks import FEATURES, B, Words, fresh, gradients, labels, mlp, normed, numbers
from torch import nn

from gengap.core.errors import BadInput
from gengap.objectives.adversarial import Adversarial
from gengap.objectives.label_smoothing import smooth


def logistic_loss(outputs, targets):
    return F.softplus(-targets * outputs.squeeze(1)).mean()


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_loss_of_logistic_regression_is_that_of_a_smaller_margin(share):
    """Moving x by eps against y makes y (w x + b) smaller by eps |w|_1, whatever x is."""
    model = fresh(lambda: nn.Linear(FEATURES, 1))
    x, y, eps = numbers(B, FEATURES), labels(classes=2).double() * 2 - 1, 0.2
    w, b = model.weight.detach()[0], model.bias.detach()
    margin = y * (x @ w + b)
    expected = (1 - share) * F.softplus(-margin).mean() + share * F.softplus(-margin + eps * w.abs().sum()).mean()
    found = Adversarial(eps, share)(model, logistic_loss, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    found.backward()
    # the move counts as a constant: the gradient has x - eps y sign(w) in the place of x
    pulls = (1 - share) * torch.sigmoid(-margin), share * torch.sigmoid(-margin + eps * w.abs().sum())
    moved = x - eps * y.unsqueeze(1) * w.sign()
    slope = -((pulls[0] * y).unsqueeze(1) * x + (pulls[1] * y).unsqueeze(1) * moved).mean(0)
    torch.testing.assert_close(model.weight.grad[0], slope, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(model.bias.grad[0], -((pulls[0] + pulls[1]) * y).mean(), rtol=1e-12, atol=1e-15)


def twin(model, x, y, eps, share):
    """Move the inputs with a copy of the network; leave both gradients in the network itself."""
    helper = copy.deepcopy(model)
    free = x.clone().requires_grad_()
    F.cross_entropy(helper(free), y).backward()
    moved = x + eps * free.grad.sign()
    value = (1 - share) * F.cross_entropy(model(x), y) + share * F.cross_entropy(model(moved), y)
    model.zero_grad()
    value.backward()
    return value.detach(), gradients(model)


@pytest.mark.parametrize("make", [mlp, normed])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_networks_agree_with_the_loop(make, share):
    x, y = numbers(B, FEATURES), labels()
    expected, slopes = twin(make(), x, y, 0.1, share)
    model = make()
    found = Adversarial(0.1, share)(model, F.cross_entropy, x, y)
    found.backward()
    torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=0)
    for name, slope in gradients(model).items():
        torch.testing.assert_close(slope, slopes[name], rtol=1e-10, atol=1e-14)


def test_making_the_move_touches_neither_gradients_nor_inputs():
    model, x, y = mlp(), numbers(B, FEATURES), labels()
    for p in model.parameters():
        p.grad = torch.full_like(p, 3)
    before = x.clone()
    value = Adversarial(0.1)(model, F.cross_entropy, x, y)
    assert all((p.grad == 3).all() for p in model.parameters())
    value.backward()
    assert x.grad is None
    assert torch.equal(x, before)
    assert not x.requires_grad


@pytest.mark.parametrize(("which", "passes"), [("clean", 1), ("both", 2)])
def test_running_statistics_follow_the_inputs_that_were_named(which, passes):
    model, other, x, y = normed(), normed(), numbers(B, FEATURES), labels()
    held = dict(model.named_buffers())
    Adversarial(0.5, running_statistics=which)(model, F.cross_entropy, x, y).backward()
    norm, expected = model[1], other[1]
    other(x)
    assert norm.num_batches_tracked == passes
    same = torch.equal(norm.running_mean, expected.running_mean) and torch.equal(norm.running_var, expected.running_var)
    assert same == (which == "clean")
    assert all(held[name] is buffer for name, buffer in model.named_buffers())


def test_micro_batches_add_up_to_the_whole():
    x, y = numbers(B, FEATURES), labels()
    whole, parts, objective = mlp(), mlp(), Adversarial(0.1)
    objective(whole, F.cross_entropy, x, y).backward()
    for a, b in zip(x.split(5), y.split(5), strict=True):
        (objective(parts, F.cross_entropy, a, b) * len(b) / B).backward()
    for name, slope in gradients(parts).items():
        torch.testing.assert_close(slope, gradients(whole)[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_only_floating_inputs_are_moved(form):
    model, words, shift = fresh(Words), labels(classes=10), numbers(B, 5)
    inputs = (words, shift) if form == "tuple" else {"words": words, "shift": shift}
    Adversarial(0.1)(model, F.cross_entropy, inputs, labels()).backward()
    (clean_words, clean_shift), (moved_words, moved_shift) = model.seen
    assert torch.equal(clean_words, words)
    assert torch.equal(moved_words, words)
    assert torch.equal(clean_shift.detach(), shift)
    torch.testing.assert_close((moved_shift - shift).abs(), torch.full_like(shift, 0.1), rtol=1e-12, atol=0)


def test_an_input_that_does_nothing_stays():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = nn.Linear(FEATURES, 4).double(), []

        def forward(self, x, unused):
            self.seen.append(unused)
            return self.layer(x)

    model, unused = First(), numbers(B, 2, seed=3)
    Adversarial(0.1)(model, F.cross_entropy, (numbers(B, FEATURES), unused), labels())
    assert torch.equal(model.seen[1], unused)


def test_moved_inputs_stay_in_their_bounds():
    seen = []
    model = mlp()
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    x = numbers(B, FEATURES).sigmoid()
    Adversarial(0.4, bounds=(0.0, 1.0))(model, F.cross_entropy, x, labels())
    free = Adversarial(0.4)
    free(model, F.cross_entropy, x, labels())
    assert torch.equal(seen[1], seen[3].clamp(0, 1))
    assert not torch.equal(seen[1], seen[3])


def test_smoothed_labels_go_into_both_terms():
    model, x, y = mlp(), numbers(B, FEATURES), labels()
    found = Adversarial(0.1)(model, smooth(0.2).mean, x, y)
    free = x.clone().requires_grad_()
    clean = F.cross_entropy(model(free), y, label_smoothing=0.2)
    (slope,) = torch.autograd.grad(clean, free)
    moved = F.cross_entropy(model(x + 0.1 * slope.sign()), y, label_smoothing=0.2)
    torch.testing.assert_close(found, (clean + moved) / 2, rtol=1e-12, atol=0)


def test_where_nothing_can_be_moved_it_says_why():
    with pytest.raises(BadInput, match="no input is a floating tensor; use the plain loss"):
        Adversarial(0.1)(nn.Embedding(10, 4), F.cross_entropy, labels(), labels())
    with torch.no_grad(), pytest.raises(BadInput, match="gradients are switched off"):
        Adversarial(0.1)(mlp(), F.cross_entropy, numbers(B, FEATURES), labels())


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"epsilon": 0}, "epsilon is 0; give how far"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"epsilon": 1, "share": 0}, "share is 0"),
        ({"epsilon": 1, "share": 1.1}, "share is 1.1"),
        ({"epsilon": 1, "bounds": (1, 0)}, "bounds are"),
        ({"epsilon": 1, "running_statistics": "none"}, "running_statistics is 'none'; choose 'clean' or 'both'"),
    ],
)
def test_values_out_of_range_are_refused(how, says):
    with pytest.raises(BadInput, match=says):
        Adversarial(**how)
