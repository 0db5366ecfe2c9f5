"""The time of runs with remedies. Oracle: a stand-in for training whose updates take a known time, by what they do."""

from dataclasses import replace

import pytest
from sweep_problems import blobs

from gengap.comparison.question import comparison_study
from gengap.sweeps import forecast as module
from gengap.sweeps.forecast import forecast

SAM, PLAIN = 3.0, 1.0  # seconds of an update
HOW = {"optimizer": "sgd", "lr": 0.05, "budget": {"epochs": 4}}


def study(remedies, **more):
    return comparison_study(
        blobs(),
        small=4,
        large=40,
        seeds=2,
        recipe={**HOW, **more},
        remedies=remedies,
        sharpness=None,
        interpolation=None,
    )


@pytest.fixture
def seen(monkeypatch):
    """Train, and then say that each update took the seconds above, and looking at the model none."""
    recipes, real = [], module.train

    def clocked(problem, recipe, **rest):
        recipes.append(recipe)
        run = real(problem, recipe, **rest)
        seconds = run.cost.steps * (SAM if recipe.method else PLAIN)
        return replace(run, cost=replace(run.cost, seconds=seconds, evaluation_seconds=0.0))

    monkeypatch.setattr(module, "train", clocked)
    return recipes


def test_each_remedy_is_timed_with_its_own_recipe(seen):
    rows = {row.what: row for row in forecast(study(["sam", "regime-adaptation", "linear-lr+warmup"]), blobs(), None)}
    # 40 samples, 4 epochs, 2 seeds: 10 updates an epoch at batch 4, one at batch 40
    assert {what: (row.count, row.seconds) for what, row in rows.items()} == {
        "training, batch 4": (2, 2 * 40 * PLAIN),
        "training, batch 40": (2, 2 * 4 * PLAIN),
        "training, batch 40, sam": (2, 2 * 4 * SAM),
        "training, batch 40, regime-adaptation": (2, 2 * 40 * PLAIN),
        "training, batch 40, linear-lr+warmup": (2, 2 * 4 * PLAIN),
    }
    assert sum(recipe.method is not None for recipe in seen) == 1


def test_a_growing_batch_is_timed_by_samples(seen):
    rows = {row.what: row for row in forecast(study(["grow-batch", "dynamic-batch"]), blobs(), None)}
    for name in ("grow-batch", "dynamic-batch"):
        assert rows[f"training, batch 4, {name}"].seconds == 2 * 4 * 40 / 4 * PLAIN
    assert rows["training, batch 4, grow-batch"].detail.startswith("13 steps; ")  # 10 of 4 samples, 3 of 40


def test_the_forecast_of_the_command(seen, capsys, tmp_path):
    from gengap.cli.compare import show_forecast

    show_forecast(study(["sam"]), blobs(), tmp_path / "none", device="cpu", json=False)
    said = capsys.readouterr().out
    assert "training, batch 40, sam" in said
    assert "nothing was trained" in said
