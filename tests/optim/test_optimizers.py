"""Oracle: the published update rules written in numpy, float64, 20 steps on a quadratic with a turned valley."""

import numpy as np
import pytest
import torch

from gengap.core.recipe import Recipe
from gengap.optim.build import build, set_lr

CURVATURE = np.array([[3.0, 0.7, 0.0], [0.7, 1.0, -0.3], [0.0, -0.3, 0.2]])
CENTRE = np.array([1.0, -2.0, 0.5])
START = np.array([-1.5, 0.3, 2.0])
STEPS = 20


def sgd(w, g, memory, t, *, lr, momentum=0.0, nesterov=False):
    """Polyak's heavy ball: v = mu v + g; Nesterov's form steps along g + mu v."""
    memory["v"] = momentum * memory.get("v", 0.0) + g
    return w - lr * (g + momentum * memory["v"] if nesterov else memory["v"])


def adam(w, g, memory, t, *, lr, betas=(0.9, 0.999), eps=1e-8):
    """Kingma & Ba 2015, algorithm 1."""
    memory["m"] = betas[0] * memory.get("m", 0.0) + (1 - betas[0]) * g
    memory["v"] = betas[1] * memory.get("v", 0.0) + (1 - betas[1]) * g**2
    m, v = memory["m"] / (1 - betas[0] ** t), memory["v"] / (1 - betas[1] ** t)
    return w - lr * m / (np.sqrt(v) + eps)


def adagrad(w, g, memory, t, *, lr, eps=1e-10):
    """Duchi et al. 2011, diagonal."""
    memory["s"] = memory.get("s", 0.0) + g**2
    return w - lr * g / (np.sqrt(memory["s"]) + eps)


RULES = {"sgd": sgd, "adam": adam, "adagrad": adagrad}

EXAM = [
    {"optimizer": "sgd", "lr": 0.05},
    {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.1},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.5},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"optimizer": "adam", "lr": 0.1},
    {"optimizer": "adam", "lr": 0.1, "weight_decay": 0.1},
    {"optimizer": "adam", "lr": 0.1, "betas": (0.5, 0.999)},
    {"optimizer": "adam", "lr": 0.1, "betas": (0.9, 0.9)},
    {"optimizer": "adam", "lr": 0.1, "eps": 0.1},
    {"optimizer": "adam", "lr": 0.1, "eps": 1e-2, "betas": (0.8, 0.95), "weight_decay": 0.01},
    {"optimizer": "adagrad", "lr": 0.3},
    {"optimizer": "adagrad", "lr": 0.3, "weight_decay": 0.1},
    {"optimizer": "adagrad", "lr": 0.3, "eps": 0.1},
]


def name(fields):
    return " ".join(f"{key}={value}" for key, value in fields.items())


def twin(fields, rates=None):
    """Run the numpy rule; L2 is part of the gradient."""
    fields = dict(fields)
    rule, decay, lr = RULES[fields.pop("optimizer")], fields.pop("weight_decay", 0.0), fields.pop("lr")
    w, memory, path = START, {}, []
    for t in range(1, STEPS + 1):
        g = CURVATURE @ (w - CENTRE) + decay * w
        w = rule(w, g, memory, t, lr=lr if rates is None else rates[t - 1], **fields)
        path.append(w)
    return np.array(path)


def ours(fields, rates=None):
    recipe = Recipe(**fields, batch_size=1, budget={"epochs": 1})
    # two tensors, so that a rule that mixes them would show
    weights = [torch.nn.Parameter(torch.tensor(part)) for part in (START[:2], START[2:])]
    optimizer = build(recipe, iter(weights))
    path = []
    for t in range(STEPS):
        if rates is not None:
            set_lr(optimizer, rates[t])
        away = torch.cat(list(weights)) - torch.tensor(CENTRE)
        optimizer.zero_grad()
        (0.5 * away @ torch.tensor(CURVATURE) @ away).backward()
        optimizer.step()
        path.append(torch.cat(list(weights)).detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize("fields", EXAM, ids=name)
def test_exam(fields):
    np.testing.assert_allclose(ours(fields), twin(fields), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fields", EXAM, ids=name)
def test_rates_that_change_on_the_way(fields):
    rates = [fields["lr"] * 0.9**t for t in range(STEPS)]
    np.testing.assert_allclose(ours(fields, rates), twin(fields, rates), rtol=1e-10, atol=1e-12)
    assert np.abs(twin(fields, rates) - twin(fields)).max() > 1e-3


def test_every_case_of_the_exam_is_another_path():
    """Each argument changes the result by far more than the exam allows, so none can be left out."""
    ends = np.array([twin(fields)[-1] for fields in EXAM])
    apart = np.abs(ends[:, None] - ends[None]).max(2) + np.eye(len(ends))
    assert apart.min() > 1e-4


@pytest.mark.parametrize(("optimizer", "eps"), [("adam", 1e-8), ("adagrad", 1e-10)])
def test_eps_that_is_not_given(optimizer, eps):
    recipe = Recipe(optimizer=optimizer, lr=1, batch_size=1, budget={"epochs": 1})
    made = build(recipe, [torch.nn.Parameter(torch.zeros(1))])
    assert made.defaults["eps"] == eps
    assert made.defaults.get("lr_decay", 0) == 0
    assert not made.defaults.get("amsgrad", False)
