"""Oracle: lists written out by hand, TOML read by tomllib, and loops over the grid written as loops."""

import tomllib

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.studies.grid import budgets, expand
from gengap.studies.sweep import Sweep, read_sweep

TEXT = """
title = "Where is the optimum?"
validation = 100
metric = "loss"
extend = 2
lr_follows = "linear"
budget = "epochs=3"

[problem]
data = "digits"
network = "mlp"

[recipe]
optimizer = "sgd"

[grid]
batch_size = "8:32:x2"
lr = "0.1:0.4:x2"
momentum = "0,0.9"
train_size = [100, 500]
seed = "0:1:+1"
"""

RANGES = {
    "8:64:x2": [8, 16, 32, 64],
    "8:100:x2": [8, 16, 32, 64],
    "1:10:+3": [1, 4, 7, 10],
    "5:5:x2": [5],
    "0.01:0.09:x3": [0.01, 0.03, 0.09],
    "0.1:0.4:+0.1": [0.1, 0.2, 0.3, 0.4],
    "0.01:3:x2": [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56],
    "0,0.5,0.9": [0, 0.5, 0.9],
    "1:4:x2, 10, 10%": [1, 2, 4, 10, "10%"],
    "sgd,adam": ["sgd", "adam"],
    "[1, null]": [1, None],
    "true,false": [True, False],
}


@pytest.mark.parametrize("text", RANGES)
def test_values_written_short(text):
    found = expand(text)
    assert found == RANGES[text]
    assert [type(value) for value in found] == [type(value) for value in RANGES[text]]


def test_lists_stay_as_they_are():
    assert expand([3, "8:64:x2"]) == [3, "8:64:x2"]
    assert expand(7) == [7]


@pytest.mark.parametrize("text", ["8:4:x2", "8:64:x1", "0:8:x2", "1:5:+0", "1:1001:+1"])
def test_ranges_that_do_not_ascend(text):
    with pytest.raises(ValueError, match="no ascending range of at most 1,000 values"):
        expand(text)


@pytest.mark.parametrize("text", ["8:64", "8:64:2", "a:b:x2", "8:64:x2:3", "8:inf:x2"])
def test_ranges_in_another_form(text):
    with pytest.raises(ValueError, match="is no range; write LOW:HIGH:xFACTOR or LOW:HIGH:"):
        expand(text)


def test_ranges_and_arrays_are_lists_of_plain_numbers():
    found = Sweep(**minimal(batch_size=range(8, 33, 8), seed=np.arange(2), lr=np.array([0.1, 0.5]))).grid
    assert found == {"batch_size": [8, 16, 24, 32], "seed": [0, 1], "lr": [0.1, 0.5]}
    assert {type(value) for values in found.values() for value in values} == {int, float}


def test_budgets():
    assert budgets("epochs=30") == [{"epochs": 30}]
    assert budgets("steps=10000") == [{"steps": 10_000}]
    assert budgets("converged") == [{"converged": {}}]
    assert budgets("epochs=50:200:x2") == [{"epochs": 50}, {"epochs": 100}, {"epochs": 200}]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(TEXT)
    return path


def test_a_file_says_all_of_it(file):
    sweep = read_sweep(file)
    assert sweep.grid == {
        "seed": [0, 1],
        "batch_size": [8, 16, 32],
        "lr": [0.1, 0.2, 0.4],
        "momentum": [0, 0.9],
        "train_size": [100, 500],
    }
    assert (sweep.validation, sweep.metric, sweep.extend.limit, sweep.extend.all) == (100, "loss", 2, False)
    assert (sweep.lr_follows.name, sweep.lr_follows.reference_batch) == ("linear", 8)
    assert (sweep.evaluations, sweep.weights, sweep.budget.epochs) == (20, False, 3)


def test_cells_and_recipes_are_those_of_loops(file):
    sweep = read_sweep(file)
    expected = []
    for batch in (8, 16, 32):
        for momentum in (0, 0.9):
            for size in (100, 500):
                expected.append({"batch_size": batch, "momentum": momentum, "train_size": size})
    assert sweep.cells() == expected
    recipe = sweep.recipe_of(expected[-1], lr=0.4, seed=1)
    assert (recipe.batch_size, recipe.momentum, recipe.lr, recipe.seed) == (32, 0.9, 0.4, 1)
    assert (recipe.optimizer, recipe.budget.epochs) == ("sgd", 3)


def test_written_back_resolved(file):
    sweep = read_sweep(file)
    written = tomllib.loads(sweep.to_toml())
    assert written["grid"]["batch_size"] == [8, 16, 32]
    assert written["budget"] == {"epochs": 3}
    assert written["extend"] == {"limit": 2, "all": False}
    assert Sweep(**written) == sweep


def test_five_seeds_where_none_are_named():
    assert Sweep(**minimal()).seeds == [0, 1, 2, 3, 4]


def test_a_larger_grid_names_its_rates_alike():
    """A rate's text is part of a run's name: 0.03 * 3 and 0.01 * 9 must be one number."""
    small, large = (Sweep(**minimal(lr=lr)).grid["lr"] for lr in ("0.03:0.9:x3", "0.01:3:x3"))
    assert set(small) <= set(large)
    assert large == [0.01, 0.03, 0.09, 0.27, 0.81, 2.43]


def test_whole_numbers_where_only_those_make_sense():
    assert Sweep(**minimal(batch_size="2:9:x1.5")).grid["batch_size"] == [
        2,
        3,
        4,
        7,
    ]  # 4.5 and 6.75 round to even, to 7
    assert Sweep(**minimal(batch_size="2:3:x1.5,8.5,10%")).grid["batch_size"] == [2, 3, 8.5, "10%"]  # named: as it is


def test_budgets_in_the_grid():
    sweep = Sweep(**minimal(budget="epochs=2:8:x2") | {"budget": None})
    assert [sweep.recipe_of(cell, lr=0.1, seed=0).budget.epochs for cell in sweep.cells()] == [2, 4, 8]


def minimal(**grid):
    return {"problem": {"data": "digits"}, "budget": "epochs=1", "grid": {"batch_size": [8], "lr": [0.1]} | grid}


BAD = {
    "no field": (minimal(lrr=1), "grid has no field 'lrr'; it takes train_size and optimizer, lr"),
    "twice": (minimal(batch_size=[8, 8]), r"grid.batch_size needs at least one value, each once; got \[8, 8\]"),
    "no value": (minimal(momentum=[]), r"grid.momentum needs at least one value"),
    "range": (minimal(batch_size="64:8:x2"), "grid.batch_size: '64:8:x2' is no ascending range"),
    "rate": (minimal(lr="0,1"), "grid.lr: a learning rate is 0; give numbers above 0"),
    "in both": (minimal() | {"recipe": {"lr": 1}}, "lr is in recipe and in grid"),
    "no batch": (minimal() | {"grid": {"lr": 1}}, "batch_size is missing; give its values in grid"),
    "no budget": (minimal() | {"budget": None}, "a sweep needs one budget, or several in grid"),
    "two budgets": (minimal(budget="epochs=1,2"), "a sweep needs one budget, or several in grid"),
    "budgets": (minimal() | {"budget": "epochs=1,2"}, "budget names several numbers; put them into the grid"),
    "no budget at all": (minimal() | {"budget": "long"}, "'long' is no budget; write epochs=30"),
    "budget inside": (minimal() | {"recipe": {"budget": {"epochs": 1}}}, "budget stands beside recipe"),
    "metric": (minimal() | {"metric": "speed"}, "metric is 'speed'"),
    "grid": (minimal() | {"grid": 3}, "grid is no table"),
    "rule": (minimal() | {"lr_follows": "cubic"}, "'cubic'"),
    "unknown": (minimal() | {"seeds": 3}, "a sweep has no field 'seeds'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_one_sentence(name):
    fields, text = BAD[name]
    with pytest.raises(BadInput, match=text) as caught:
        Sweep(**fields)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_used(tmp_path, file):
    with pytest.raises(BadInput, match=r"cannot read the sweep .*: No such file"):
        read_sweep(tmp_path / "absent.toml")
    file.write_text("grid = [")
    with pytest.raises(BadInput, match="is not valid TOML"):
        read_sweep(file)
    file.write_text(TEXT.replace('"0,0.9"', "[1.5]"))
    with pytest.raises(BadInput, match=r"sweep\.toml: momentum is 1\.5"):
        read_sweep(file)
