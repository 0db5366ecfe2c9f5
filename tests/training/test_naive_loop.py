"""What a training computes. Oracle: a plain loop over torch.optim and torch's losses, with schedules by hand; it shares
only the order of samples, which tests/data checks by itself, and the initial weights."""

import math

import pytest
import torch
from torch.nn import functional
from torch.optim import SGD, Adagrad, Adam
from training_problems import normed, points, problem, recipe, rectified, smooth

import gengap
from gengap.data.order import permutation

PLAIN = {"foreach": False, "fused": False}
RULES = {
    "sgd": ({}, lambda p: SGD(p, 0.1, **PLAIN)),
    "decay": ({"weight_decay": 0.05}, lambda p: SGD(p, 0.1, weight_decay=0.05, **PLAIN)),
    "momentum": ({"momentum": 0.9}, lambda p: SGD(p, 0.1, momentum=0.9, **PLAIN)),
    "nesterov": (
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
        lambda p: SGD(p, 0.1, momentum=0.8, nesterov=True, weight_decay=0.02, **PLAIN),
    ),
    "adam": (
        {"optimizer": "adam", "lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.05},
        lambda p: Adam(p, 0.01, (0.8, 0.99), 1e-3, 0.05, **PLAIN),
    ),
    "adagrad": (
        {"optimizer": "adagrad", "weight_decay": 0.05, "eps": 1e-2},
        lambda p: Adagrad(p, 0.1, 0.0, 0.05, 0.0, 1e-2, **PLAIN),
    ),
}


def naive(net, run, optimizer, *, epochs=3, size=8, micro=None, drop=False, rate=None, samples=40):
    """Train `net` from the run's initial weights; return it and one (batch loss, train, test, ...) row per epoch."""
    net.double().train().load_state_dict(run.initial_params, strict=False)
    (x, y), rule, rows, seen = points(samples), optimizer(net.parameters()), [], 0
    for epoch in range(epochs):
        order, total, used = permutation(run.recipe.seed, epoch, samples), 0.0, 0
        for start in range(0, samples, size):
            chosen = order[start : start + size]
            if drop and len(chosen) < size:
                continue
            for group in rule.param_groups:
                group["lr"] = rate(seen / samples) if rate else group["lr"]
            rule.zero_grad()
            for piece in chosen.split(micro or size):
                loss = functional.cross_entropy(net(x[piece]), y[piece], reduction="sum") / len(chosen)
                loss.backward()
                total += loss.item() * len(chosen)
            rule.step()
            seen, used = seen + len(chosen), used + len(chosen)
        rows.append((seen, total / used, *scores(net, x, y), *scores(net, *points(20, seed=1))))
    return net, rows


def scores(net, x, y):
    """Mean loss and percent right, in evaluation mode."""
    net.eval()
    with torch.no_grad():
        outputs = net(x)
    net.train()
    return functional.cross_entropy(outputs, y).item(), 100 * (outputs.argmax(1) == y).double().mean().item()


def assert_same(run, net, rows):
    torch.testing.assert_close(dict(run.params), dict(net.named_parameters()), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(dict(run.buffers), dict(net.named_buffers()), rtol=1e-11, atol=1e-13)
    found = [
        (p.samples, p.batch_loss, p.train_loss, p.train_accuracy, p.test_loss, p.test_accuracy) for p in run.history[1:]
    ]
    for ours, theirs in zip(found, rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-11)


@pytest.mark.parametrize("net", [smooth, rectified, normed])
@pytest.mark.parametrize("rule", RULES)
def test_equals_a_plain_loop(rule, net):
    fields, optimizer = RULES[rule]
    run = gengap.train(problem(net), recipe(**fields, seed=3), evaluations=3)
    assert run.outcome.kind == "finished"
    assert_same(run, *naive(net(), run, optimizer))


@pytest.mark.parametrize("net", [smooth, rectified, normed])
@pytest.mark.parametrize("drop", [False, True], ids=["kept", "dropped"])
def test_the_last_batch_of_an_epoch_may_be_smaller(net, drop):
    fields, optimizer = RULES["momentum"]
    run = gengap.train(problem(net), recipe(**fields, batch_size=12, drop_last=drop), evaluations=3)
    assert run.cost.samples == (108 if drop else 120)
    assert_same(run, *naive(net(), run, optimizer, size=12, drop=drop))


def test_share_of_the_training_set():
    run = gengap.train(problem(), recipe(batch_size="10%"), evaluations=3)
    assert (run.recipe.batch_size, run.cost.steps) == (4, 30)
    assert_same(run, *naive(smooth(), run, RULES["sgd"][1], size=4))


RATES = {
    "cosine": (
        {"schedule": {"name": "cosine", "final": 0.1}},
        lambda e: 0.1 * (0.55 + 0.45 * math.cos(math.pi * e / 3)),
    ),
    "step": (
        {"schedule": {"name": "step", "milestones": [1, 2.2], "factor": 0.5}},
        lambda e: 0.1 / 2 ** ((e >= 1) + (e >= 2.2)),
    ),
    "warm-up": ({"warmup": {"epochs": 1.5, "start": 0.2}}, lambda e: 0.1 * min(1, 0.2 + 0.8 * e / 1.5)),
    "low start": ({"warmup": {"epochs": 1.1, "start": 0.3, "shape": "constant"}}, lambda e: 0.03 if e < 1.1 else 0.1),
    "smith2020": (
        {"schedule": "smith2020"},
        lambda e: 0.1 if e < 1.5 else 0.1 / 2 ** (1 + int((e - 1.5) / 0.15 + 1e-9)),
    ),
    "both": (
        {"schedule": "cosine", "warmup": {"epochs": 1}},
        lambda e: 0.05 * (1 + math.cos(math.pi * e / 3)) * min(1, e),
    ),
}


@pytest.mark.parametrize("net", [smooth, rectified])
@pytest.mark.parametrize("name", RATES)
def test_schedules_are_functions_of_samples_seen(name, net):
    fields, rate = RATES[name]
    run = gengap.train(problem(net), recipe(momentum=0.9, **fields), evaluations=3)
    assert_same(run, *naive(net(), run, RULES["momentum"][1], rate=rate))
    expected = [rate(0), *(rate((40 * (i + 1) - 8) / 40) for i in range(3))]
    assert [p.lr for p in run.history] == pytest.approx(expected, rel=1e-12)


def test_pieces_give_the_gradient_of_the_whole():
    whole = gengap.train(problem(), recipe(batch_size=12, momentum=0.9), evaluations=3)
    for size in (1, 5, 12):
        pieces = gengap.train(problem(), recipe(batch_size=12, momentum=0.9, micro_batch=size), evaluations=3)
        torch.testing.assert_close(dict(pieces.params), dict(whole.params), rtol=1e-12, atol=1e-14)
        assert_same(pieces, *naive(smooth(), pieces, RULES["momentum"][1], size=12, micro=size))


def test_with_batch_norm_pieces_are_ghost_batches():
    fields = {"batch_size": 16, "momentum": 0.9}
    whole, ghosts = (gengap.train(problem(normed), recipe(**fields, micro_batch=m), evaluations=3) for m in (None, 4))
    assert_same(ghosts, *naive(normed(), ghosts, RULES["momentum"][1], size=16, micro=4))
    assert abs(whole.final.train_loss - ghosts.final.train_loss) > 1e-3
    assert ghosts.buffers["1.num_batches_tracked"] == 30


def test_a_budget_of_steps_ends_inside_an_epoch():
    long = gengap.train(problem(), recipe(budget={"steps": 8}), evaluations=8)
    assert (long.outcome.kind, long.cost.steps, long.cost.samples) == ("finished", 8, 64)
    assert [p.step for p in long.history] == list(range(9))
    net, _ = naive(smooth(), long, lambda p: SGD(p, 0.1), epochs=1)
    torch.testing.assert_close(long.history[5].train_loss, scores(net, *points())[0], rtol=1e-12, atol=0)


def test_bfloat16_stays_near_float32():
    exact = gengap.train(problem(), recipe(dtype="float32"))
    rough = gengap.train(problem(), recipe(dtype="bf16"))
    assert rough.outcome.kind == "finished"
    assert all(p.dtype == torch.float32 for p in rough.params.values())
    assert rough.final.train_loss == pytest.approx(exact.final.train_loss, rel=0.02)
    assert any(not torch.equal(rough.params[name], exact.params[name]) for name in exact.params)


def test_the_first_point_is_the_untrained_network():
    run = gengap.train(problem(), recipe(seed=5))
    net = smooth().double()
    net.load_state_dict(run.initial_params)
    start = run.history[0]
    assert (start.step, start.samples, start.epoch, start.lr, start.batch_loss) == (0, 0, 0.0, 0.1, None)
    assert (start.train_loss, start.train_accuracy) == pytest.approx(scores(net, *points()), rel=1e-12)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 7, 15, 100])
@pytest.mark.parametrize("budget", [{"epochs": 3}, {"steps": 13}, {"steps": 15}, {"steps": 27}])
def test_no_more_evaluations_than_asked(budget, evaluations):
    run = gengap.train(problem(), recipe(budget=budget), evaluations=evaluations)
    steps = [p.step for p in run.history]
    assert len(steps) <= evaluations + 1
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, run.cost.steps)
