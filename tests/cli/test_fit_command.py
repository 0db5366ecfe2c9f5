"""gengap fit: what it prints and with which code it ends. Oracle: a store whose accuracies are flat up to batch 16 and then fall,
and whose best learning rate is batch / 64 up to 1/4, put in by hand."""

import json

import numpy as np
import pytest

from gengap.core.recipe import Recipe
from gengap.store.rows import RunRow
from gengap.store.store import Store

SIZES, SEEDS = [2**i for i in range(1, 9)], 3


def row(batch, lr, seed, accuracy):
    recipe = Recipe(lr=lr, batch_size=batch, budget={"epochs": 10}, seed=seed)
    history = [
        {
            "step": round(10_000 * part / batch),
            "samples": 10_000 * part,
            "train_loss": 2 - part,
            "test_loss": 2 - part,
            "test_accuracy": 10 + (accuracy - 10) * part,
        }
        for part in (0.0, 0.5, 1.0)
    ]
    cost = {"seconds": 1.0, "steps": 10_000 // batch, "samples": 10_000}
    made = {"outcome": "finished", "step": 1, "reason": "", "environment": {}, "created": "2026-01-01T00:00:00Z"}
    return RunRow(
        key=recipe.key, problem="p", recipe=recipe.model_dump(mode="json"), cost=cost, history=tuple(history), **made
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where, rng = tmp_path_factory.mktemp("fit") / "runs", np.random.default_rng(0)
    with Store(where) as store:
        store.add_problem("p", {"name": "known", "train_samples": 1_000})
        for batch in SIZES:
            best = min(batch / 64, 0.25)
            for lr in (best / 2, best, best * 2):
                for seed in range(SEEDS):
                    value = (
                        95 - np.log2(lr / best) ** 2 - 1.5 * max(0, np.log2(batch / 16)) + 0.05 * rng.standard_normal()
                    )
                    store.add_run(row(batch, lr, seed, float(value)), {})
    return where


def test_answers_come_first_then_the_table_then_what_is_open(gengap, folder):
    done = gengap("fit", folder)
    assert done.code == 0
    text = done.out
    assert text.index("Regimes: test accuracy is flat up to batch") < text.index("best lr") < text.index("could not be")
    assert "selected on the test set" in " ".join(text.split())


def test_json_is_one_document_with_the_truth_in_its_intervals(gengap, folder):
    done = gengap("fit", folder, "--json", "--selection", "test")
    found = json.loads(done.out)
    low, high = found["regimes"]["interval"]
    assert low <= 16 <= high
    low, high = found["lr_exponent"]["interval"]
    assert low <= 1 <= high
    assert found["lr_transition"]["verdict"] == "transition"


def test_a_target_can_be_named(gengap, folder):
    found = gengap("fit", folder, "--json", "--target", "train_loss=1.25").json()
    assert found["target"] == {"measure": "train_loss", "value": 1.25, "origin": "given"}
    assert found["e_min"]["interval"][0] <= 7_500 <= found["e_min"]["interval"][1]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--target", "95"], "test_accuracy=95"),
        (["--metric", "speed"], "metric is"),
        (["--selection", "luck"], "selection is"),
    ],
)
def test_what_cannot_be_is_one_sentence(gengap, folder, options, word):
    done = gengap("fit", folder, *options)
    assert done.code == 2
    assert word in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_folder_without_runs_is_refused(gengap, tmp_path):
    done = gengap("fit", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "holds no results" in done.err
