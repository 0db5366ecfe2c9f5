"""Which runs make a fleet. Oracle: a table of recipes and networks, and for odd networks what they do in a fleet by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from training_problems import Rows, busy, points, problem, recipe, smooth

import gengap
from gengap.training.fleet import fleet_key

SAME = [{"lr": 0.7}, {"momentum": 0.3}, {"weight_decay": 0.1}, {"seed": 5}, {"lr": 0.2, "momentum": 0.9, "seed": 2}]
OTHER = [
    {"batch_size": 4},
    {"budget": {"epochs": 4}},
    {"budget": {"steps": 15}},
    {"optimizer": "adam"},
    {"momentum": 0.5, "nesterov": True},
    {"dtype": "float32"},
    {"schedule": "cosine"},
    {"warmup": {"epochs": 1}},
    {"lr_rule": {"name": "linear", "reference_batch": 4}},
    {"clip_norm": 1.0},
    {"drop_last": True},
    {"label_smoothing": 0.1},
    {"batch_schedule": {"name": "step", "milestones": [1]}},
]
NONE = [
    {"optimizer": "lars"},
    {"optimizer": "lamb"},
    {"optimizer": "kfac"},
    {"optimizer": "lbfgs"},
    {"optimizer": "adaqn"},
    {"method": "sam"},
    {"micro_batch": 4},
    {"dtype": "bf16"},
    {"adversarial": {"epsilon": 0.1}},
    {"gradient_noise": {"name": "isotropic", "temperature": 1e-3}},
    {"batch_schedule": {"name": "dynamic"}},
    {"quirks": "bigbatch"},
    {"memory_format": "channels_last"},
]


@pytest.mark.parametrize("fields", SAME, ids=str)
def test_rates_and_seeds_may_differ(fields):
    learnt = problem()
    assert fleet_key(learnt, recipe()) == fleet_key(learnt, recipe(**fields)) != None  # noqa: E711 - all three at once


@pytest.mark.parametrize("fields", OTHER, ids=str)
def test_the_rest_makes_another_fleet(fields):
    learnt = problem()
    key = fleet_key(learnt, recipe(**fields))
    assert key is not None
    assert key != fleet_key(learnt, recipe())


@pytest.mark.parametrize("fields", NONE, ids=str)
def test_what_asks_for_more_is_in_none(fields):
    assert fleet_key(problem(), recipe(**fields)) is None


def test_momentum_makes_a_fleet_where_it_shapes_the_warm_up():
    rule = {"name": "linear", "reference_batch": 4, "reference_momentum": 0.5}
    shaped = {"lr_rule": rule, "warmup": {"epochs": 1, "start": "reference"}}
    learnt = problem()
    assert fleet_key(learnt, recipe(**shaped)) != fleet_key(learnt, recipe(**shaped, momentum=0.9))
    assert fleet_key(learnt, recipe(lr_rule=rule)) == fleet_key(learnt, recipe(lr_rule=rule, momentum=0.9))


def test_a_share_of_the_training_set_is_a_number():
    learnt = problem()
    assert fleet_key(learnt, recipe(batch_size="20%")) == fleet_key(learnt, recipe(batch_size=8))


def test_other_data_make_another_fleet():
    assert fleet_key(problem(), recipe()) != fleet_key(problem(train=points(seed=5)), recipe())


def test_streamed_data_are_for_no_fleet():
    streamed = problem(train=Rows(*points()), memory_limit=0)
    assert fleet_key(streamed, recipe()) is None


def test_dropout_is_for_fleets_on_the_cpu():
    """Asked only: no GPU is touched."""
    assert fleet_key(problem(model=busy), recipe(), device="cuda") is None
    assert fleet_key(problem(), recipe(), device="cuda") == fleet_key(problem(), recipe())


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


class Remembering(nn.Module):
    """A tensor of its own random numbers that torch does not know of: a fleet would use one network's for all."""

    def __init__(self):
        super().__init__()
        self.layer, self.scales = nn.Linear(3, 2), torch.rand(2).double()

    def forward(self, x):
        return self.layer(x) * self.scales


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return functional.dropout(self.layer(x), 0.5, self.training)


class Counting(nn.Module):
    """The third call is another function than the first."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 2), 0

    def forward(self, x):
        self.calls += self.training
        return self.layer(x) * self.calls


def cumulative():
    """Batch norm whose weight of the newest batch is a number read from a buffer."""
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 2))


def alpha():
    return nn.Sequential(nn.Linear(3, 6), nn.AlphaDropout(0.3), nn.Linear(6, 2))


@pytest.mark.parametrize("model", [Branching, Remembering, Dropping, Counting, cumulative, alpha])
def test_networks_that_are_another_function_in_a_fleet_are_found(model):
    learnt = problem(model=model)
    assert gengap.train(learnt, recipe(budget={"steps": 2})).outcome.kind == "finished"
    assert fleet_key(learnt, recipe()) is None


def test_a_loss_that_looks_at_values_is_found():
    def loss(outputs, targets):
        value = functional.cross_entropy(outputs, targets)
        return value if value > 0.1 else value * 0

    assert fleet_key(problem(loss=loss), recipe()) is None


def test_a_network_is_tried_once():
    made = []

    def counted():
        made.append(1)
        return smooth()

    learnt = problem(model=counted)
    fleet_key(learnt, recipe())
    tried = len(made)
    for k in range(20):
        fleet_key(learnt, recipe(seed=k, lr=0.1 + k, optimizer="adam"))
    assert len(made) == tried
