"""gengap tune and gengap critical-batch. Oracle: what a user should read and find."""

import json

import pytest

FEW = ["--train-size", "200", "--network", "smith-le-mlp"]
TUNE = ["tune", *FEW, "--budget", "steps=10", "--seeds", "1", "--poor", "1", "--batch", "32,64", "--engine", "solo"]
BRANCH = ["critical-batch", *FEW, "--epochs", "2", "--optimizer", "sgd", "--lr", "0.01", "--batch-size", "10"]
SHORT = ["--at", "1", "--batch", "20,40", "--branch-samples", "80", "--seeds", "1"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, anywhere):
    folder = tmp_path_factory.mktemp("tuned") / "out"
    return folder, anywhere(*TUNE, "--out", folder, "--json")


def test_tuning_ends_in_a_recipe_and_a_page(tuned) -> None:
    folder, said = tuned
    assert said.code == 0
    found = said.json()
    assert found["recipe"]["batch_size"] == found["chosen"]["batch_size"]
    assert [stage["name"] for stage in found["stages"]] == ["batch and rate", "batch and momentum", "batch"]
    assert (folder / "report.html").exists()


def test_results_are_not_mixed_by_accident_but_gone_on_with(tuned, anywhere) -> None:
    folder, said = tuned
    refused = anywhere(*TUNE, "--out", folder)
    assert refused.code == 2
    assert "--resume" in refused.err
    again = anywhere(*TUNE, "--out", folder, "--json", "--resume")
    assert again.json() == said.json()


def test_a_forecast_trains_nothing(tmp_path, anywhere) -> None:
    said = anywhere(*TUNE, "--out", tmp_path / "none", "--dry-run", "--json")
    assert [row["batch_size"] for row in said.json()["work"]] == [32, 64]
    assert not (tmp_path / "none").exists()


def test_branches_are_shown_and_kept(tmp_path, anywhere) -> None:
    said = anywhere(*BRANCH, *SHORT, "--out", tmp_path / "b", "--quiet")
    assert said.code == 0
    assert "critical batch" in said.out
    found = json.loads((tmp_path / "b" / "critical-batch.json").read_text())
    assert [row["batch_size"] for row in found["points"][0]["crossing"]["sizes"]] == [10, 20, 40]


def test_a_dry_run_counts_the_branches_that_are_left_and_keeps_nothing(tmp_path, anywhere) -> None:
    words = [*BRANCH, "--at", "0.5,1", "--batch", "20,40", "--branch-samples", "80", "--seeds", "2"]
    said = anywhere(*words, "--out", tmp_path / "none", "--dry-run", "--json")
    assert said.code == 0, said.err
    found = said.json()
    assert [row["count"] for row in found["work"]] == [1, 4, 4, 4]
    assert [row["detail"].split(" of ")[0] for row in found["work"]] == ["40 steps", "8 steps", "4 steps", "2 steps"]
    assert (found["branches"], found["recipe"]["batch_size"]) == (12, 10)
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in found["work"]))
    assert list(tmp_path.iterdir()) == []
    text = anywhere(*words, "--out", tmp_path / "none", "--dry-run").out
    assert text.splitlines()[-1].startswith("12 branches of 80 samples; about ")
    assert text.strip().endswith("nothing was trained")


def test_a_recipe_file_gives_what_no_option_says(tmp_path, anywhere) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"optimizer": "sgd", "lr": 0.01, "batch_size": 10, "seed": 3, "budget": {"epochs": 2}}))
    words = ["critical-batch", *FEW, "--recipe", file, *SHORT, "--dry-run", "--json"]
    recipe = anywhere(*words, "--out", tmp_path / "x").json()["recipe"]
    assert (recipe["batch_size"], recipe["seed"]) == (10, 3)
    recipe = anywhere(*words, "--out", tmp_path / "x", "--batch-size", 5, "--seed", 4).json()["recipe"]
    assert (recipe["batch_size"], recipe["seed"]) == (5, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*TUNE[:-4], "--batch", "0,5"], "batch"),
        ([*TUNE, "--lr", "-1"], "lr"),
        ([*TUNE, "--engine", "cloud", "--dry-run"], "engine is 'cloud'"),
        ([*TUNE, "--device", "moon", "--dry-run"], "device 'moon' cannot be used"),
        ([*TUNE, "--budget", "long"], "--budget: 'long' is no budget"),
        ([*TUNE, "--budget", "steps=2,4"], "--budget is 'steps=2,4'"),
        ([*TUNE, "--batch", "10:5:x2", "--dry-run"], "'10:5:x2' is no ascending range"),
        ([*BRANCH, "--lr-rule", "cubic"], "--lr-rule is 'cubic'"),
        ([*BRANCH, "--at", "2"], "at is"),
        ([*BRANCH, "--batch", "5"], "batch_sizes is"),
        ([*BRANCH, "--batch", "5", "--dry-run"], "batch_sizes is"),
        ([*BRANCH, "--device", "moon"], "device 'moon' cannot be used"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, anywhere, words: list, said: str) -> None:
    found = anywhere(*words, "--out", tmp_path / "x", "--quiet")
    assert found.code == 2
    assert said in found.err
    assert "Traceback" not in found.err
    assert len(found.err.strip().splitlines()) == 1
