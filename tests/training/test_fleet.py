"""Many equals one: each member of a fleet against the same run alone.

Oracle: `gengap.train`, which goes one run at a time through modules, autograd and `torch.optim`, and draws its dropout masks
from torch's global generator. In float64 everything agrees to 1e-10: outcome, history, weights, running statistics.
"""

import os
import signal
import time

import pytest
import torch
from fleet_cases import PROBLEMS, RULES, assert_equals_alone, busy, conv_problem, members
from torch import nn
from torch.nn import functional
from training_problems import points, problem, recipe, rectified, smooth

from gengap.core.errors import BadInput
from gengap.training import fleet_dense
from gengap.training.fleet import train_fleet
from gengap.training.fleet_loop import Fleet


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["dense", "batch norm and dropout", "convolution"])
def test_every_optimizer_on_every_network(rule, name):
    assert_equals_alone(PROBLEMS[name](), members(rule))


SCHEDULES = {
    "cosine": {"schedule": "cosine"},
    "polynomial by steps": {"schedule": "polynomial", "budget": {"steps": 13}},
    "step": {"schedule": {"name": "step", "milestones": [0.5, 1.2], "factor": 0.3}},
    "warm-up": {"warmup": {"epochs": 1.5, "start": 0.1}},
    "rule": {"lr_rule": {"name": "linear", "reference_batch": 4}, "warmup": {"epochs": 1, "start": "reference"}},
    "rule with momentum": {"lr_rule": {"name": "sqrt", "reference_batch": 4, "reference_momentum": 0.5}},
    "drop last": {"batch_size": 12, "drop_last": True},
    "ragged": {"batch_size": 12, "budget": {"epochs": 3}},
    "ends inside an epoch": {"budget": {"steps": 7}},
    "growing batch": {"batch_schedule": {"name": "step", "milestones": [1], "factor": 2}},
    "adapted regime": {"regime_adaptation": 4, "schedule": "cosine"},
    "clipped": {"clip_norm": 0.3},
    "biases not decayed": {"decay_norms": False, "weight_decay": 0.3},
    "smoothed labels": {"label_smoothing": 0.2},
    "whole set": {"batch_size": "100%", "budget": {"epochs": 8}},
    "one at a time": {"batch_size": 1, "budget": {"steps": 50}},
}


@pytest.mark.parametrize("fields", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", ["smooth", "dense"])
def test_schedules_budgets_and_what_is_done_to_gradients(fields, name):
    assert_equals_alone(PROBLEMS[name](), members(**fields), evaluations=4)


NORMED = {
    "ghosts": {"ghost_batch": 3},
    "another dropout": {"dropout": 0.6},
    "no dropout": {"dropout": 0.0},
    "biases not decayed": {"decay_norms": False, "weight_decay": 0.3},
    "ragged": {"batch_size": 12},
}


@pytest.mark.parametrize("fields", NORMED.values(), ids=NORMED)
def test_forms_of_batch_norm_and_dropout(fields):
    assert_equals_alone(problem(model=busy), members(**fields))


def regression():
    inputs, _ = points()
    return inputs, torch.sin(inputs[:, :2])


def wide():
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1))


def huber(outputs, targets):
    return functional.huber_loss(outputs[:, 0], targets.to(outputs.dtype))


def some_unlabelled(samples=40):
    inputs, targets = points(samples)
    return inputs, targets.where(torch.arange(samples) % 5 > 0, -100)


def of_two_tensors():
    inputs, targets = points()
    return {"first": inputs[:, :1], "second": inputs[:, 1:]}, targets


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, first, second):
        return self.layer(torch.cat([second, first], 1))


LOSSES = {
    "mean square": {"loss": "mean_square", "train": regression(), "test": regression()},
    "binary cross-entropy": {"loss": "binary_cross_entropy", "model": wide},
    "a function": {"loss": huber},
    "labels to be ignored": {"train": some_unlabelled()},
    "named inputs": {"model": Two, "train": of_two_tensors(), "test": of_two_tensors()},
}


@pytest.mark.parametrize("parts", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("model", [smooth, rectified])
def test_losses_and_data(parts, model):
    assert_equals_alone(problem(**{"model": model, **parts}), members())


def frozen():
    model = rectified()
    model[0].weight.requires_grad_(False)
    return model


class Tied(nn.Module):
    """One matrix in two places, and a weight that nothing depends on, which therefore is not decayed."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.again = nn.Linear(3, 3)
        self.again.weight = self.inner.weight
        self.idle = nn.Parameter(torch.ones(2))
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.again(torch.tanh(self.inner(x)))))


class TwiceDropped(nn.Module):
    """One dropout layer called twice, and layers that drop nothing."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.drop = nn.Linear(3, 6), nn.Linear(6, 2), nn.Dropout(0.4)
        self.none = nn.Dropout(0.0)

    def forward(self, x):
        return self.last(self.none(self.drop(torch.tanh(self.inner(self.drop(x))))))


@pytest.mark.parametrize("model", [frozen, Tied, TwiceDropped])
def test_odd_networks(model):
    assert_equals_alone(problem(model=model), members("adam"))


def test_the_fast_path_is_taken_and_agrees_with_the_general_one(monkeypatch):
    recipes = [how.resolved(40) for how in members()]
    learnt = problem(model=rectified)
    fleet = Fleet(learnt, recipes, torch.device("cpu"), evaluations=1, listen=lambda event: None)
    assert isinstance(fleet.gradient, fleet_dense.DenseGradient)
    monkeypatch.setattr(fleet_dense, "ENABLED", False)
    assert_equals_alone(learnt, recipes)


@pytest.mark.parametrize("name", ["dense", "batch norm", "convolution"])
def test_float32_agrees_to_rounding(name):
    assert_equals_alone(PROBLEMS[name](), members(dtype="float32"), tolerance=2e-5)


def test_a_fleet_of_one():
    assert_equals_alone(problem(model=busy), members()[:1])


def linear():
    return nn.Sequential(nn.Linear(3, 2))


def test_members_diverge_each_at_its_own_update():
    """Linear regression multiplies its error by 1 - lr h in every update: the larger lr, the sooner it overflows."""
    learnt = problem(model=linear, loss="mean_square", train=regression(), test=regression())
    recipes = [recipe(lr=lr, budget={"steps": 300}, seed=k) for k, lr in enumerate([3.0, 0.1, 30.0, 0.05, 1e4])]
    runs = assert_equals_alone(learnt, recipes, evaluations=4)
    kinds = [run.outcome.kind for run in runs]
    assert kinds == ["diverged", "finished", "diverged", "finished", "diverged"]
    assert runs[0].outcome.step > runs[2].outcome.step > runs[4].outcome.step


def test_who_stays_goes_on_with_its_own_masks_and_memory():
    """The first member overflows at once; what is left of the fleet must not move up into its place."""
    recipes = members(budget={"epochs": 9})
    recipes[0] = recipes[0].changed(lr=1e308)
    runs = assert_equals_alone(problem(model=busy), recipes, evaluations=3)
    assert [run.outcome.kind for run in runs] == ["diverged", "finished", "finished", "finished"]


def test_all_may_diverge():
    learnt = problem(model=linear, loss="mean_square", train=regression(), test=regression())
    runs = train_fleet(learnt, [recipe(lr=1e9, seed=k, budget={"steps": 100}) for k in range(3)])
    assert {run.outcome.kind for run in runs} == {"diverged"}


@pytest.mark.parametrize("name", ["smooth", "batch norm and dropout"])
def test_members_converge_each_at_its_own_epoch(name):
    rule = {"converged": {"patience": 2, "tolerance": 0.03, "max_epochs": 12}}
    runs = assert_equals_alone(PROBLEMS[name](), members(budget=rule), evaluations=3)
    assert len({run.outcome.step for run in runs}) > 1
    assert all("converged" in run.outcome.reason for run in runs)


def test_seconds_are_shared_out():
    clock = time.perf_counter()
    runs = train_fleet(problem(), members())
    spent = time.perf_counter() - clock
    costs = [run.cost for run in runs]
    assert 0 < sum(cost.seconds + cost.evaluation_seconds for cost in costs) <= spent
    assert len({cost.seconds for cost in costs}) == 1  # all were there all the time


def test_the_global_generator_is_left_alone():
    learnt = problem(model=busy)
    train_fleet(learnt, members())
    before = torch.get_rng_state()
    train_fleet(learnt, members())
    assert torch.equal(torch.get_rng_state(), before)


def test_ctrl_c_ends_it_between_two_updates():
    def interrupt(event):
        if getattr(event, "done", 0) > 3:
            os.kill(os.getpid(), signal.SIGINT)

    runs = train_fleet(problem(), members(budget={"epochs": 500}), listen=interrupt)
    assert {run.outcome.kind for run in runs} == {"interrupted"}
    assert 0 < runs[0].outcome.step < 500 * 5


def test_a_rule_that_changes_learning_rates_is_told_once():
    told = []
    train_fleet(problem(), members(lr_rule={"name": "linear", "reference_batch": 4}), listen=told.append)
    sentences = [event.text for event in told if hasattr(event, "text")]
    assert len(sentences) == 4
    assert all("linear rule" in sentence for sentence in sentences)


def test_wrong_calls_are_refused():
    with pytest.raises(BadInput, match="no recipes"):
        train_fleet(problem(), [])
    with pytest.raises(BadInput, match="recipe 1 differs from the first"):
        train_fleet(problem(), [recipe(), recipe(batch_size=4)])
    with pytest.raises(BadInput, match="recipe 0 cannot be trained in a fleet"):
        train_fleet(problem(), [recipe(method="sam")])
    with pytest.raises(BadInput, match="evaluations is 0"):
        train_fleet(problem(), [recipe()], evaluations=0)


def test_an_untrained_loss_that_is_not_finite_is_refused():
    inputs, targets = points()
    inputs[-1, 0] = float("inf")
    learnt = problem(model=rectified, train=(inputs, targets))
    with pytest.raises(BadInput, match="loss of the untrained network"):
        train_fleet(learnt, members())


def test_members_that_differ_in_nothing_are_equal_to_the_last_bit():
    runs = train_fleet(conv_problem(), [recipe(seed=3), recipe(seed=3)])
    for name, value in runs[0].params.items():
        assert torch.equal(value, runs[1].params[name])
