# Oracles: the same scheduler of torch made with learning rates that were multiplied by hand; the formulas of the rules.
import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from gengap.adapters.lr_scaling import LrScaling
from gengap.core.errors import BadInput

LRS, FACTOR, STEPS = (0.1, 0.03), 3.0, 24
LR_OF_ARGUMENTS = (
    "max_lr",
    "base_lr",
    "eta_min",
    "min_lr",
    "swa_lr",
)  # given to a scheduler, so multiplied by hand too


def sequential(o, **given):
    parts = [schedulers.LinearLR(o, 0.1, total_iters=5), schedulers.CosineAnnealingLR(o, 15, **given)]
    return schedulers.SequentialLR(o, parts, milestones=[5])


def chained(o):
    return schedulers.ChainedScheduler([schedulers.ConstantLR(o, 0.2, 4), schedulers.ExponentialLR(o, 0.9)], o)


EXAM = {
    "lambda": (schedulers.LambdaLR, {"lr_lambda": lambda step: 1 / (1 + step)}),
    "multiplicative": (schedulers.MultiplicativeLR, {"lr_lambda": lambda step: 0.9}),
    "step": (schedulers.StepLR, {"step_size": 5}),
    "milestones": (schedulers.MultiStepLR, {"milestones": [4, 9]}),
    "constant": (schedulers.ConstantLR, {"factor": 0.3, "total_iters": 6}),
    "linear": (schedulers.LinearLR, {"start_factor": 0.1, "total_iters": 6}),
    "exponential": (schedulers.ExponentialLR, {"gamma": 0.9}),
    "polynomial": (schedulers.PolynomialLR, {"total_iters": 20, "power": 2.0}),
    "cosine": (schedulers.CosineAnnealingLR, {"T_max": 20, "eta_min": 0.01}),
    "restarts": (schedulers.CosineAnnealingWarmRestarts, {"T_0": 7, "eta_min": 0.01}),
    "one cycle": (schedulers.OneCycleLR, {"max_lr": 0.5, "total_steps": 40}),
    "cyclic": (schedulers.CyclicLR, {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 4}),
    "plateau": (schedulers.ReduceLROnPlateau, {"patience": 2, "min_lr": 0.005}),
    "swa": (torch.optim.swa_utils.SWALR, {"swa_lr": 0.02, "anneal_epochs": 6}),
    "sequential": (sequential, {"eta_min": 0.01}),
    "chained": (chained, {}),
}


def sgd(factor=1.0):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr * factor} for lr in LRS]
    return torch.optim.SGD(groups, momentum=0.9)


def made(name, factor=1.0):
    kind, given = EXAM[name]
    optimizer = sgd(factor)
    return optimizer, kind(optimizer, **{k: v * factor if k in LR_OF_ARGUMENTS else v for k, v in given.items()})


def lrs_of(optimizer, scheduler, steps=STEPS):
    seen = []
    for _ in range(steps):
        seen += [float(g["lr"]) for g in optimizer.param_groups]
        optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []))
    return seen


@pytest.mark.parametrize("name", EXAM)
def test_a_scaled_schedule_is_the_one_made_with_scaled_learning_rates(name):
    optimizer, scheduler = made(name)
    LrScaling("linear", 10).apply([optimizer], [scheduler], 30)
    expected = lrs_of(*made(name, FACTOR))
    assert lrs_of(optimizer, scheduler) == pytest.approx(expected, rel=1e-9)
    assert len({round(lr, 9) for lr in expected}) > 2


@pytest.mark.parametrize("name", EXAM)
def test_a_resumed_schedule_is_scaled_by_what_is_missing(name):
    optimizer, scheduler = made(name)
    LrScaling("linear", 10).apply([optimizer], [scheduler], 20)
    lrs_of(optimizer, scheduler, 8)
    saved = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(scheduler.state_dict())
    resumed = made(name)
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    LrScaling("linear", 10).apply([resumed[0]], [resumed[1]], 30)  # on more devices
    change = LrScaling("linear", 10).apply([resumed[0]], [resumed[1]], 30)  # nothing is missing
    assert "was scaled before and stays" in str(change)
    assert lrs_of(*resumed, STEPS - 8) == pytest.approx(lrs_of(*made(name, FACTOR))[16:], rel=1e-9)


@pytest.mark.parametrize(("rule", "factor"), [("linear", 8.0), ("sqrt", math.sqrt(8))])
def test_the_rule_is_told(rule, factor):
    optimizer = sgd()
    change = LrScaling(rule, 256, warmup_updates=1500, warmup_start=0.25).apply([optimizer], [], 2048)
    assert change.factor == pytest.approx(factor)
    assert change.old == LRS
    assert change.new == pytest.approx([lr * factor for lr in LRS])
    assert [g["lr"] for g in optimizer.param_groups] == list(change.new)
    told = f"lr 0.1, 0.03 becomes {0.1 * factor:.4g}, {0.03 * factor:.4g}: {rule} rule, batch 2,048 for 256"
    assert str(change) == f"{told}; warm-up of 1,500 updates from 0.25 of it"


def updates_of(optimizer, scheduler, steps):
    """What a weight with gradient 1 loses in each update: the learning rate that was used."""
    used, weight = [], optimizer.param_groups[0]["params"][0]
    for _ in range(steps):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        scheduler.step()
        used.append(before - weight.item())
    return used


def warm(saved=None):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=0.1)
    scheduler = schedulers.StepLR(optimizer, 3, gamma=0.5)  # multiplies what it finds: it must not find the warm-up
    if saved:
        optimizer.load_state_dict(saved[0])
        scheduler.load_state_dict(saved[1])
    scaling = LrScaling("linear", 16, warmup_updates=6)
    for _ in range(2):  # the second call puts no second warm-up on the first
        scaling.apply([optimizer], [scheduler], 64)
    return optimizer, scheduler


def test_the_warm_up_begins_at_the_reference_and_survives_a_checkpoint():
    share = [0.25 + 0.75 * t / 6 for t in range(6)] + [1.0] * 3
    expected = [0.4 * 0.5 ** (t // 3) * share[t] for t in range(9)]
    assert updates_of(*warm(), 9) == pytest.approx(expected, rel=1e-12)
    first = warm()
    begun = updates_of(*first, 4)
    rest = updates_of(*warm([copy.deepcopy(part.state_dict()) for part in first]), 5)
    assert begun + rest == pytest.approx(expected, rel=1e-12)


def test_a_learning_rate_that_is_a_tensor_stays_that_tensor():
    lr = torch.tensor(0.1, dtype=torch.float64)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = schedulers.ExponentialLR(optimizer, 0.5)
    LrScaling("linear", 1).apply([optimizer], [scheduler], 4)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lrs_of(optimizer, scheduler, 3) == pytest.approx([0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rule": "cubic"}, "rule is 'cubic'"),
        ({"reference_batch": 0}, "reference_batch is 0"),
        ({"warmup_updates": -1}, "warmup_updates is -1"),
        ({"warmup_start": 2.0}, "warmup_start is 2.0"),
    ],
)
def test_settings_that_cannot_be_used(given, said):
    with pytest.raises(BadInput, match=said):
        LrScaling(**{"rule": "linear", "reference_batch": 8} | given)


def test_what_cannot_be_scaled_is_refused_and_nothing_is_changed():
    optimizer = sgd()
    with pytest.raises(BadInput, match="the scheduler is a object"):
        LrScaling("linear", 8).apply([optimizer], [object()], 16)
    with pytest.raises(BadInput, match="the batch is 0"):
        LrScaling("linear", 8).apply([optimizer], [], 0)
    assert [g["lr"] for g in optimizer.param_groups] == list(LRS)
