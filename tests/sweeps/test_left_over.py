"""Oracle: the batches a loop over the samples makes, counted by hand, and torch's own refusal of one sample."""

import pytest
import torch
from torch import nn

from gengap import BadInput, Problem, Recipe
from gengap.sweeps.plan import check_left_over

BASE = {"lr": 0.1, "budget": {"epochs": 1}}


def made(samples, layer):
    split = (torch.randn(samples, 4), torch.arange(samples) % 2)
    return Problem(
        model=lambda: nn.Sequential(nn.Linear(4, 3), layer, nn.Linear(3, 2)),
        loss="cross_entropy",
        train=split,
        test=split,
    )


@pytest.mark.parametrize(
    ("samples", "fields", "leaves_one"),
    [
        (21, {"batch_size": 10}, True),
        (21, {"batch_size": 10, "drop_last": True}, False),
        (20, {"batch_size": 10}, False),
        (20, {"batch_size": 10, "micro_batch": 3}, True),
        (20, {"batch_size": 10, "micro_batch": 5}, False),
        (25, {"batch_size": 10, "micro_batch": 4}, True),
        (20, {"batch_size": 1}, True),
        (20, {"batch_size": 10, "ghost_batch": 3}, True),
        (20, {"batch_size": 10, "ghost_batch": 5}, False),
        (20, {"batch_size": 10, "ghost_batch": 4}, False),
    ],
)
def test_one_sample_left_for_batch_norm(samples, fields, leaves_one):
    recipe = Recipe(**BASE, **fields)
    if leaves_one:
        with pytest.raises(BadInput, match="which batch norm cannot normalise"):
            check_left_over(made(samples, nn.BatchNorm1d(3)), recipe)
    else:
        check_left_over(made(samples, nn.BatchNorm1d(3)), recipe)
    check_left_over(made(samples, nn.ReLU()), recipe)


def test_images_may_stand_alone():
    split = (torch.randn(11, 1, 4, 4), torch.arange(11) % 2)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    problem = Problem(model=lambda: net, loss="cross_entropy", train=split, test=split)
    check_left_over(problem, Recipe(**BASE, batch_size=10))
