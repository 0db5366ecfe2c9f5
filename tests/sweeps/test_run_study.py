"""What a study trains, and what it does not train again. Oracle: single calls of `gengap.train`, counted calls, and a log
that each process writes."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sweep_problems import Slow, blobs, net, normed, points, study
from torch.nn import functional

import gengap
from gengap import BadInput, Interrupted, Recipe
from gengap.core.events import Message, Progress
from gengap.store.store import Store
from gengap.sweeps import measuring, work
from gengap.sweeps.forecast import forecast
from gengap.sweeps.local import run_study
from gengap.sweeps.plan import facts, make_problem, missing, run_key, spec_of, tasks

SHARP = {"radius": 1e-2, "samples": 24}
PATH = {"low": 0.0, "high": 1.0, "points": 3}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def trained(monkeypatch):
    """The recipes that were really trained."""
    found, real = [], work.train

    def train(problem, recipe, **rest):
        found.append((recipe.batch_size, recipe.seed))
        return real(problem, recipe, **rest)

    monkeypatch.setattr(work, "train", train)
    return found


def counts(tally):
    return tally.trained, tally.reused, len(tally.problems)


def test_every_cell_is_one_run(store, trained):
    problem, plan = blobs(), study()
    tally = run_study(plan, problem, store)
    assert counts(tally) == (4, 0, 0)
    assert trained == [(4, 0), (40, 0), (4, 1), (40, 1)]
    rows = store.runs()
    assert [row.key for row in rows] == [task.key for task in tasks(plan, problem)] == store.recall("keys")
    assert store.problem(problem.fingerprint) == facts(problem)
    for row in rows:
        recipe = Recipe(**row.recipe)
        alone = gengap.train(problem, recipe, evaluations=2)
        assert row.key == run_key(problem, recipe)
        assert (row.outcome, row.step, row.problem) == ("finished", alone.cost.steps, problem.fingerprint)
        for which, part in (("final", alone.params), ("initial", alone.initial_params), ("buffers", alone.buffers)):
            kept = store.weights(row.key, which)
            assert list(kept) == sorted(part)
            assert all(np.array_equal(kept[name], part[name].numpy()) for name in part)
        assert [p["train_loss"] for p in row.history] == [p.train_loss for p in alone.history]
        assert row.environment["threads"] == torch.get_num_threads()
        assert not store.checkpoint(row.key).exists()


def test_nothing_is_done_twice(store, monkeypatch):
    plan = study(measures={"sharpness": SHARP, "interpolation": PATH})
    run_study(plan, blobs(), store)
    before = store.runs()

    def refuse(*args, **kwargs):
        raise AssertionError("it was done again")

    monkeypatch.setattr(work, "train", refuse)
    for name in ("sharpness", "distance", "interpolate"):
        monkeypatch.setattr(measuring, name, refuse)
    assert counts(run_study(plan, blobs(), store)) == (0, 4, 0)
    assert store.runs() == before


def test_more_seeds_train_only_those(store, trained):
    run_study(study(), blobs(), store)
    trained.clear()
    tally = run_study(study(grid={"batch_size": [4, 40], "seed": [0, 1, 2]}), blobs(), store)
    assert trained == [(4, 2), (40, 2)]
    assert counts(tally) == (2, 4, 0)
    assert len(store.recall("keys")) == 6


def test_another_problem_trains_anew(store, trained):
    run_study(study(), blobs(), store)
    trained.clear()
    run_study(study(), blobs(normed), store)
    assert len(trained) == 4
    assert len(store.runs()) == 8


def test_equal_cells_are_one_run(store, trained):
    run_study(study(grid={"batch_size": [4, "10%"], "seed": [0]}), blobs(), store)
    assert trained == [(4, 0)]


def test_a_divergence_is_kept_and_the_others_go_on(store, trained):
    plan, said = study(recipe={"momentum": 0.9}, grid={"lr": [0.2, 1e30], "batch_size": [4, 40]}), []
    steep = blobs(loss=lambda outputs, targets: (outputs**2).sum(1).mean())
    tally = run_study(plan, steep, store, listen=said.append)
    rows = {(row.recipe["lr"], row.recipe["batch_size"]): row for row in store.runs()}
    assert {where for where, row in rows.items() if row.outcome == "diverged"} >= {(1e30, 4)}
    assert rows[0.2, 40].outcome == "finished"
    bad = rows[1e30, 4]
    assert bad.step > 0
    assert "try a smaller lr" in bad.reason
    assert len(bad.history) >= 1
    assert store.measure(bad.key, "distance", {}) is None
    assert tally.problems == [event.text for event in said if isinstance(event, Message) and event.warning]
    assert f"batch 4, seed 0: diverged at step {bad.step}: {bad.reason}" in tally.problems
    trained.clear()
    again = run_study(plan, steep, store)
    assert not trained
    assert again.problems == tally.problems


class Falls:
    """Fails with large batches, until it is mended."""

    broken = True

    def __call__(self, outputs, targets):
        if self.broken and outputs.requires_grad and len(targets) == 40:
            raise RuntimeError("not enough\nmemory")
        return functional.cross_entropy(outputs, targets)


def test_a_failure_is_kept_and_tried_again(store, trained):
    loss = Falls()
    tally = run_study(study(), blobs(loss=loss), store)
    assert counts(tally) == (4, 0, 2)
    assert [(r.outcome, r.reason, r.step, r.history) for r in store.runs() if r.recipe["batch_size"] == 40] == [
        ("failed", "RuntimeError: not enough", 0, ())
    ] * 2
    assert len(missing(tasks(study(), blobs(loss=loss)), store)) == 2
    loss.broken = False
    trained.clear()
    assert counts(run_study(study(), blobs(loss=loss), store)) == (2, 2, 0)
    assert trained == [(40, 0), (40, 1)]
    assert {row.outcome for row in store.runs()} == {"finished"}


def test_ctrl_c_keeps_what_is_finished(store, trained):
    pressed = []

    def press(event):
        if isinstance(event, Progress) and event.what.startswith("run 3 of 4") and event.done > 0 and not pressed:
            pressed.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    long = study(recipe={"budget": {"epochs": 4}})
    with pytest.raises(Interrupted, match=r"interrupted in batch 4, seed 1 at step \d+") as caught:
        run_study(long, blobs(normed), store, listen=press)
    assert caught.value.exit_code == 130
    assert [(r.recipe["batch_size"], r.recipe["seed"]) for r in store.runs()] == [(4, 0), (40, 0)]
    assert len(list(store.folder.glob("runs/*/checkpoint.safetensors"))) == 1
    trained.clear()
    run_study(long, blobs(normed), store)
    assert trained == [(4, 1), (40, 1)]
    assert not list(store.folder.glob("runs/*/checkpoint.safetensors"))
    with Store(store.folder.parent / "straight") as other:
        run_study(long, blobs(normed), other)
        for row in other.runs():
            kept, expected = (s.weights(row.key, "final") for s in (store, other))
            assert all(np.array_equal(kept[name], expected[name]) for name in expected)


PROCESS = """
import sys
import torch
torch.set_num_threads(1)
from sweep_problems import kill_in_run, slow, study
from gengap.core.events import silent
from gengap.store.store import Store
from gengap.sweeps.local import run_study

plan = study(grid={"batch_size": [20, 40], "seed": [0, 1, 2]})
listen = kill_in_run(sys.argv[2]) if len(sys.argv) > 2 else silent
with Store(sys.argv[1]) as store:
    tally = run_study(plan, slow(), store, listen=listen)
print(tally.trained, tally.reused)
"""


def start(tmp_path, *arguments, seconds="0"):
    env = {**os.environ, "SWEEP_LOG": str(tmp_path / "log"), "SWEEP_SECONDS": seconds}
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "store"), *arguments]
    return subprocess.Popen(command, cwd=Path(__file__).parent, env=env, text=True, stdout=-1, stderr=-1)


def updates(tmp_path):
    """Lines of the log by process and batch size."""
    return [tuple(map(int, line.split())) for line in (tmp_path / "log").read_text().splitlines()]


REHEARSAL = 8  # samples of the one backward pass that `Problem.check` makes


def test_killed_and_resumed(tmp_path, monkeypatch):
    first = start(tmp_path, "4")
    _, error = first.communicate(timeout=240)
    assert first.returncode == -signal.SIGKILL, error
    with Store(tmp_path / "store", create=False) as store:
        assert len(store.runs()) == 3
        created = {row.key: row.created for row in store.runs()}
        (tmp_path / "log").write_text("")
        monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
        plan = study(grid={"batch_size": [20, 40], "seed": [0, 1, 2]})
        assert counts(run_study(plan, blobs(loss=Slow()), store)) == (3, 3, 0)
        rows = {row.key: row for row in store.runs()}
    assert len(rows) == 6
    assert all(rows[key].created == when for key, when in created.items())
    assert sorted(size for _, size in updates(tmp_path) if size != REHEARSAL) == [20] * 4 + [40] * 4


def test_two_processes_share_the_work(tmp_path):
    both = [start(tmp_path, seconds="0.1") for _ in range(2)]
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trained = [tuple(map(int, out.split())) for out, _ in said]
    assert sum(made for made, _ in trained) == 6
    assert all(made + reused == 6 for made, reused in trained)
    assert sorted(size for _, size in updates(tmp_path) if size != REHEARSAL) == [20] * 12 + [40] * 6
    with Store(tmp_path / "store", create=False) as store:
        assert len(store.runs()) == 6
        assert all(store.measure(row.key, "distance", {}) for row in store.runs())


@pytest.mark.parametrize(("model", "mode"), [(net, "none"), (normed, "batch")])
def test_sharpness_is_taken_once_and_says_on_what(model, mode, store):
    plan = study(measures={"sharpness": SHARP}, grid={"batch_size": [4, 40], "seed": [0]})
    problem = blobs(model)
    run_study(plan, problem, store)
    for row in store.runs():
        record = store.measure(row.key, "sharpness", plan.measures.sharpness.settings)
        assert (record["samples"], record["batch_norm"], record["search"]) == (24, mode, "robust")
        assert record["percent"] >= 0
        params = {name: torch.from_numpy(x) for name, x in store.weights(row.key, "final").items()}
        start = {name: torch.from_numpy(x) for name, x in store.weights(row.key, "initial").items()}
        moved = math.sqrt(sum((params[name] - start[name]).double().square().sum().item() for name in params))
        assert store.measure(row.key, "distance", {})["from_init"] == pytest.approx(moved, rel=1e-6)


def test_another_radius_is_another_measure(store):
    for radius in (1e-3, 1e-2):
        run_study(study(measures={"sharpness": {"radius": radius}}), blobs(), store)
    row = store.runs()[0]
    small, large = (store.measure(row.key, "sharpness", gengap.SharpnessSpec(radius=r).settings) for r in (1e-3, 1e-2))
    assert small["percent"] < large["percent"]
    assert small["samples"] == 40


def test_the_path_begins_and_ends_at_the_runs(store):
    plan = study(measures={"interpolation": {**PATH, "pairs": 2}})
    run_study(plan, blobs(), store)
    finals = {(r.recipe["batch_size"], r.recipe["seed"]): r for r in store.runs()}
    for seed in (0, 1):
        small, large = finals[4, seed], finals[40, seed]
        record = store.measure(f"{small.key}+{large.key}", "interpolation", plan.measures.interpolation.settings)
        assert record["alphas"] == [0.0, 0.5, 1.0]
        for i, split in enumerate(("train", "test")):
            ends = [run.history[-1] for run in (small, large)]
            assert record["losses"][i][::2] == pytest.approx([end[f"{split}_loss"] for end in ends], rel=1e-6)
            assert record["accuracies"][i][::2] == [end[f"{split}_accuracy"] for end in ends]


def test_a_path_needs_both_runs(store):
    loss = Falls()
    run_study(study(measures={"interpolation": PATH}), blobs(loss=loss), store)
    assert store._db.execute("SELECT count(*) FROM measures WHERE name = 'interpolation'").fetchone() == (0,)


def test_forecast(store):
    plan = study(measures={"sharpness": SHARP, "interpolation": PATH})
    problem = blobs(normed)
    rows = {row.what: row for row in forecast(plan, problem, store)}
    assert {what: row.count for what, row in rows.items()} == {
        "training, batch 4": 2,
        "training, batch 40": 2,
        "sharpness": 4,
        "interpolation": 1,
    }
    assert all(0 < row.seconds < 60 for row in rows.values())
    assert rows["training, batch 4"].detail.startswith("20 steps of ")
    assert store.runs() == []
    assert not (store.folder / "runs").exists()
    run_study(study(grid={"batch_size": [4, 40], "seed": [0]}), problem, store)
    left = {row.what: row.count for row in forecast(plan, problem, store)}
    assert (left["training, batch 4"], left["training, batch 40"]) == (1, 1)
    run_study(plan, problem, store)
    assert sum(row.count for row in forecast(plan, problem, store)) == 0


def test_ctrl_c_ends_a_forecast(monkeypatch):
    from gengap.sweeps import forecast as module

    real = module.train

    calls = []

    def pressed(problem, recipe, **rest):
        def press(event):
            if not calls:
                calls.append(event)
                os.kill(os.getpid(), signal.SIGINT)

        return real(problem, recipe, **rest, listen=press)

    monkeypatch.setattr(module, "train", pressed)
    with pytest.raises(Interrupted, match="interrupted while timing"):
        forecast(study(), blobs(), None)


ERRORS = {
    "python": ({"name": "mine"}, r"the problem 'mine' was made in a Python program; .*factory = "),
    "number": ({"factory": "sweep_problems:none_at_all"}, "returned a int; it must return a gengap.Problem"),
    "no function": ({"factory": "sweep_problems:absent"}, "has no function 'absent'"),
    "no module": ({"factory": "no_such_module:f"}, "cannot import 'no_such_module'"),
    "no colon": ({"factory": "sweep_problems"}, "write it as package.module:function"),
    "data": ({"data": "mnits"}, "no data set called 'mnits'; known are: digits"),
    "network": ({"data": "digits", "network": "resnet"}, "no network called 'resnet'"),
    "loss": ({"data": "digits", "loss": "hinge"}, "no loss called 'hinge'"),
    "option": ({"data": "digits", "options": {"size": 3}}, "has no option 'size'; it has train_size"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_problems_that_cannot_be_made(name):
    fields, text = ERRORS[name]
    with pytest.raises(BadInput, match=text) as caught:
        make_problem(study(problem=fields).problem)
    assert "\n" not in str(caught.value)


def test_a_problem_is_made_again_from_its_spec():
    for problem in (
        gengap.load("digits", network="mlp", train_size=50),
        gengap.load("gaussian-random", train=20, test=30, features=5),
        make_problem(study().problem),
    ):
        again = make_problem(spec_of(problem))
        assert again.fingerprint == problem.fingerprint
        assert spec_of(again) == spec_of(problem)
    assert spec_of(blobs()).name == "blobs"


def test_a_batch_larger_than_the_training_set(store):
    with pytest.raises(BadInput, match="batch_size is 41, but there are only 40 training samples"):
        run_study(study(grid={"batch_size": [4, 41]}), blobs(), store)
    assert store.runs() == []


def test_labels_are_looked_at_before_training(store, trained):
    x, y = points(40, 0)
    wrong = gengap.Problem(model=net, loss="cross_entropy", train=(x, y + 1), test=(x, y), name="wrong")
    with pytest.raises(BadInput, match="has 2 outputs, but a label of the train split is 2"):
        run_study(study(), wrong, store)
    assert not trained
