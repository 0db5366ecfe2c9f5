"""`gengap.sweep`. Oracle: sums over the runs written as loops, and single calls of `gengap.train`."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))

from sweep_problems import blobs, from_file

import gengap
from gengap.core.errors import BadInput
from gengap.exploration.sweep import SweepResult, stored_sweep, sweep
from gengap.problem.validation import hold_out
from gengap.sweeps import work
from gengap.sweeps.plan import run_key

GRID = {"batch_size": [4, 9], "lr": [0.1, 0.2, 0.4], "momentum": [0, 0.9]}
HOW = {"seeds": 2, "validation": 4, "extend": 0, "evaluations": 2, "engine": "solo"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return sweep(blobs(), GRID, "epochs=2", out=tmp_path_factory.mktemp("sweep") / "out", **HOW)


def average(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def test_the_runs_are_those_of_train(found):
    problem = hold_out(blobs(), 4)
    assert len(found.runs) == 2 * 3 * 2 * 2
    for run in (found.runs[0], found.runs[-1]):
        fields = {name: run[name] for name in ("batch_size", "lr", "momentum", "seed")}
        alone = gengap.train(problem, gengap.Recipe(**fields, budget={"epochs": 2}), evaluations=2)
        assert run["test_accuracy"] == alone.final.test_accuracy
        assert run["validation_loss"] == alone.final.validation_loss
        assert run["train_size"] == 36


def test_the_best_rate_of_each_cell_is_chosen_on_validation(found):
    assert found.document["selection"] == "validation"
    assert [(cell["batch_size"], cell["momentum"]) for cell in found.cells] == [(4, 0), (9, 0), (4, 0.9), (9, 0.9)]
    for cell in found.cells:
        means = {}
        for lr in GRID["lr"]:
            own = [
                run["validation_accuracy"]
                for run in found.runs
                if (run["batch_size"], run["momentum"], run["lr"]) == (cell["batch_size"], cell["momentum"], lr)
            ]
            assert len(own) == 2
            means[lr] = average(own)
        assert means[cell["best_lr"]] == max(means.values())
        assert (cell["runs"], cell["diverged"]) == (6, 0)


def test_it_prints_and_converts(found):
    assert found.sentence.startswith("Batch ")
    assert str(found).startswith(found.sentence[:20])
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.failures == []
    assert [len(grid["lr"]) for grid in found.document["grids"]] == [3, 3, 3, 3]


def test_it_is_read_back_from_its_folder(found):
    again = stored_sweep(found.folder)
    assert again.to_dict() == found.to_dict()
    with pytest.raises(BadInput, match="holds no sweep"):
        stored_sweep(found.folder.parent)


def test_a_folder_is_used_again(found, monkeypatch):
    monkeypatch.setattr(work, "train", lambda *_, **__: pytest.fail("it was trained again"))
    again = sweep(blobs(), GRID, "epochs=2", out=found.folder, **HOW)
    assert again.cells == found.cells


@pytest.mark.parametrize(
    ("changed", "what"),
    [({"recipe": {"nesterov": True}}, "other recipe fields"), ({"validation": 6}, "another validation")],
)
def test_a_folder_of_another_sweep_is_refused(changed, what, found):
    grid = {**GRID, "momentum": [0.9]}
    with pytest.raises(BadInput, match=f"holds a sweep with {what}"):
        sweep(blobs(), grid, "epochs=2", out=found.folder, **HOW | changed)


def test_the_fits_are_those_of_the_document(found):
    assert found.fit().to_dict()["metric"] == found.document["metric"] == "test_accuracy"
    assert "regimes" in found.document["fits"]


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = sweep(blobs(), {"batch_size": 4, "lr": [0.1, 0.2]}, {"steps": 3}, **HOW)
    assert made.folder is None
    assert len(made.runs) == 4
    assert list(tmp_path.iterdir()) == []


def test_other_fields_of_a_recipe_part_cells():
    grid = {"batch_size": [4], "lr": [0.1, 0.2], "weight_decay": [0, 0.1]}
    made = sweep(blobs(), grid, "steps=3", **HOW)
    assert isinstance(made, SweepResult)
    assert [cell["optimizer"] for cell in made.cells] == ["sgd, weight_decay 0.0", "sgd, weight_decay 0.1"]
    assert [cell["runs"] for cell in made.cells] == [4, 4]


def test_a_whole_recipe_gives_what_the_sweep_does_not_set():
    recipe = gengap.Recipe(
        optimizer="sgd", lr=9.0, momentum=0.5, weight_decay=0.01, batch_size=7, budget={"epochs": 99}
    )
    made = sweep(blobs(), {"batch_size": [4], "lr": [0.1]}, "steps=2", recipe=recipe, **HOW)
    assert made.document["sweep"]["recipe"] == {"momentum": 0.5, "weight_decay": 0.01}
    assert {run["steps"] for run in made.runs} == {2}


def test_training_sets_of_several_sizes():
    made = sweep(blobs(), {"batch_size": [4], "lr": [0.1], "train_size": [8, 16]}, "steps=2", **HOW)
    assert [(cell["train_size"], cell["runs"]) for cell in made.cells] == [(8, 2), (16, 2)]
    assert made.document["problem"]["train_samples"] == [8, 16]


def test_a_problem_of_the_catalogue_is_cut_as_it_is_loaded():
    problem = gengap.load("digits", network="mlp", train_size=60)
    made = sweep(problem, {"batch_size": [6], "lr": [0.1]}, "steps=1", **HOW | {"validation": 0.1, "seeds": 1})
    loaded = gengap.load("digits", network="mlp", train_size=60, validation=0.1)
    recipe = gengap.Recipe(batch_size=6, lr=0.1, budget={"steps": 1})
    assert [run["key"] for run in made.runs] == [run_key(loaded, recipe)]


def test_validation_samples_of_its_own_are_kept():
    own = hold_out(from_file(), 5)
    made = sweep(own, {"batch_size": [4], "lr": [0.1]}, "steps=1", **HOW | {"seeds": 1})
    assert made.document["problem"]["validation_samples"] == 5


BAD = {
    "no grid": ({"grid": "foo"}, "grid is .foo.; give a dict of fields"),
    "grid": ({"grid": {"colour": [1]}}, "grid has no field 'colour'"),
    "budget": ({"budget": "short"}, "'short' is no budget"),
    "engine": ({"engine": "cloud"}, "engine is 'cloud'"),
    "setting": ({"colour": 1}, "a sweep has no field 'colour'"),
    "seeds": ({"seeds": []}, "grid.seed needs at least one value"),
    "metric": ({"metric": "speed"}, "metric is 'speed'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_one_sentence(name):
    changed, text = BAD[name]
    given = {"grid": {"batch_size": [4], "lr": [0.1]}, "budget": "steps=1", **HOW, **changed}
    with pytest.raises(BadInput, match=text) as caught:
        sweep(blobs(), given.pop("grid"), given.pop("budget"), **given)
    assert "\n" not in str(caught.value)


def test_where_all_diverged_that_is_the_result():
    """Weight decay 1 at a rate of 1e20 multiplies weights by -1e20 in each step, which float32 cannot hold."""
    grid = {"batch_size": [4, 9], "lr": [1e20, 2e20]}
    found = sweep(blobs(), grid, "epochs=8", **HOW | {"extend": 0, "recipe": {"weight_decay": 1.0}})
    assert [run["outcome"] for run in found.runs] == ["diverged"] * len(found.runs)
    assert all((cell["best_lr"], cell["diverged"]) == (None, cell["runs"]) for cell in found.cells)
    assert found.sentence == f"None of the {len(found.runs)} runs can be compared: {len(found.runs)} diverged."
    assert "Every run of batch 4 and 9 diverged or failed; try lower learning rates." in " ".join(str(found).split())
