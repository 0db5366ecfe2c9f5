"""Networks, recipes and the comparison for the tests of fleets. Oracle: each run alone, by `gengap.train` and `torch.optim`."""

import math

import pytest
import torch
from torch import nn
from training_problems import points, problem, recipe, rectified, smooth

import gengap
from gengap.training.fleet import train_fleet

NUMBERS = ("step", "samples", "epoch", "lr", "batch_loss", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def normed():
    """A bias before batch norm has no gradient but rounding, of which adaptive rules make steps of any sign: none here."""
    return nn.Sequential(nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def busy():
    layers = normed()
    return nn.Sequential(*layers[:3], nn.Dropout(0.3), layers[3])


def conv():
    """A convolution, batch norm, a pooling and a linear output."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 2, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 2)
    )


def images(samples, seed):
    inputs, targets = points(samples, features=16, seed=seed)
    return inputs.reshape(samples, 1, 4, 4), targets


def conv_problem(model=conv):
    return problem(model=model, train=images(42, 0), test=images(20, 1))


PROBLEMS = {
    "smooth": lambda: problem(model=smooth),
    "dense": lambda: problem(model=rectified),
    "batch norm": lambda: problem(model=normed),
    "batch norm and dropout": lambda: problem(model=busy),
    "convolution": conv_problem,
}

RULES = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "nesterov": {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3},
    "adamw": {"optimizer": "adamw", "lr": 0.02},
    "adagrad": {"optimizer": "adagrad", "lr": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.01, "momentum": 0.5},
}


def members(rule=None, **fields):
    """Four recipes of a fleet: no two with the same rates, the last two with the same seed."""
    base = {"budget": {"epochs": 2}, **RULES[rule or "momentum"], **fields}
    momentum = base.get("momentum", 0.0)
    return [
        recipe(
            **base
            | {
                "lr": base["lr"] * (1 + k / 2),
                "seed": min(k, 2),
                "weight_decay": base.get("weight_decay", 0.02) * k,
                "momentum": momentum * (1 - k / 5),
            }
        )
        for k in range(4)
    ]


def close(found, expected, tolerance):
    """Compare tensors by name, nan being equal to nan."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=name)


def assert_equal_runs(found, expected, tolerance=1e-10):
    assert found.recipe == expected.recipe
    assert (found.outcome.kind, found.outcome.step) == (expected.outcome.kind, expected.outcome.step)
    assert (found.cost.steps, found.cost.samples) == (expected.cost.steps, expected.cost.samples)
    assert len(found.history) == len(expected.history)
    for point, other in zip(found.history, expected.history, strict=True):
        for name in NUMBERS:
            a, b = getattr(point, name), getattr(other, name)
            assert a == b or a == pytest.approx(b, rel=tolerance, abs=tolerance, nan_ok=True), (name, a, b)
    close(found.initial_params, expected.initial_params, 0.0)
    if expected.outcome.kind == "diverged":
        return  # what is left of its weights is of no use
    close(found.params, expected.params, tolerance)
    close(found.buffers, expected.buffers, tolerance)


def assert_equals_alone(learnt, recipes, *, evaluations=3, tolerance=1e-10):
    """Train in a fleet and alone, and compare everything; give the runs of the fleet."""
    together = train_fleet(learnt, recipes, evaluations=evaluations)
    for how, run in zip(recipes, together, strict=True):
        alone = gengap.train(learnt, how, evaluations=evaluations)
        assert_equal_runs(run, alone, tolerance)
    finals = [run.final.train_loss for run in together if math.isfinite(run.final.train_loss)]
    assert len(set(finals)) == len(finals)  # members that do not differ would prove nothing
    return together
