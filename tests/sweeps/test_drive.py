"""Which runs a sweep makes, and which it does not make again. Oracle: loops over the grid, an engine whose metric is a formula
with a known optimum, and for what really trains, `gengap.train` and a sweep that was never interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from formula_engine import Formula, always, parabola
from sweep_problems import blobs, normed

import gengap
from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Message, Progress
from gengap.problem.validation import hold_out
from gengap.store.store import Store
from gengap.studies.study import ProblemSpec
from gengap.studies.sweep import Sweep
from gengap.sweeps import claims
from gengap.sweeps.drive import run_sweep, together
from gengap.sweeps.lr_growth import Growth
from gengap.sweeps.plan import run_key
from gengap.sweeps.problem_sizes import Problems
from gengap.sweeps.sweep_plan import make_plan
from gengap.sweeps.ways import Engines, Means, fleets, in_jobs
from gengap.sweeps.work import Pack

RATES = [0.1, 0.2, 0.4]


def sweep(*, grid=None, **fields):
    grid = {"batch_size": [4, 9], "lr": RATES, "seed": [0, 1]} | (grid or {})
    shared = {"problem": {"name": "blobs"}, "budget": {"epochs": 1}, "validation": 4, "evaluations": 2}
    return Sweep(grid=grid, **{**shared, **fields})


def planned(problem=None, **fields):
    asked = sweep(**fields)
    return make_plan(asked, Problems(problem or blobs(), validation=asked.validation))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


def test_one_run_for_each_combination_seeds_outermost(store):
    engine = Formula(parabola(0.2))
    tally = run_sweep(planned(grid={"momentum": [0, 0.9]}), store, always(engine))
    expected = []
    for seed in (0, 1):
        for batch in (4, 9):
            for momentum in (0, 0.9):
                for lr in RATES:
                    expected.append((batch, lr, momentum, seed))
    assert engine.made == expected
    assert (tally.trained, tally.reused, tally.diverged, tally.failures) == (24, 0, 0, [])
    assert len(store.recall("sweep_keys")) == len(store.runs()) == 24


def test_runs_are_named_as_anywhere_else(store):
    run_sweep(planned(grid={"batch_size": [4], "lr": [0.2], "seed": [3]}), store, always(Formula(parabola(0.2))))
    problem = hold_out(blobs(), 4)
    recipe = gengap.Recipe(batch_size=4, lr=0.2, seed=3, budget={"epochs": 1})
    assert [row.key for row in store.runs()] == [run_key(problem, recipe)]


def test_a_grid_grows_until_the_best_is_inside(store):
    """With batch 4 the optimum is the middle of the grid; with batch 9 it lies two values above."""
    engine, said = Formula(parabola(lambda recipe: {4: 0.2, 9: 1.6}[recipe.batch_size])), []
    plan = planned()
    tally = run_sweep(plan, store, always(engine), listen=said.append)
    tried = {batch: sorted({lr for b, lr, _, _ in engine.made if b == batch}) for batch in (4, 9)}
    assert tried == {4: RATES, 9: [*RATES, 0.8, 1.6, 3.2]}
    assert [growth for _, growth in sorted(tally.growth.items())] == [Growth(0, 0), Growth(0, 3)]
    grids = store.recall("sweep_grids")
    assert [(grid["batch_size"], len(grid["lr"]), grid["above"]) for grid in grids] == [(4, 3, 0), (9, 6, 3)]
    texts = [event.text for event in said if isinstance(event, Message)]
    assert sum("at the edge of the grid in 1 of 2 cells (batch 9)" in text for text in texts) == 3


@pytest.mark.parametrize(("limit", "count"), [(0, 3), (2, 5), (4, 7)])
def test_a_grid_grows_no_further_than_its_limit(limit, count, store):
    engine = Formula(parabola(1000.0))
    run_sweep(planned(extend=limit, grid={"batch_size": [4]}), store, always(engine))
    assert sorted({lr for _, lr, _, _ in engine.made}) == [0.1 * 2**k for k in range(count)]


def test_where_all_diverges_smaller_rates_are_tried(store):
    engine = Formula(lambda recipe: None if recipe.lr > 0.04 else parabola(0.025)(recipe))
    tally = run_sweep(planned(grid={"batch_size": [4], "seed": [0]}), store, always(engine))
    assert [lr for _, lr, _, _ in engine.made] == [*RATES, 0.05, 0.025, 0.0125]
    assert tally.diverged == 4


def test_what_one_tries_more_all_try(store):
    engine = Formula(parabola(lambda recipe: {4: 0.2, 9: 0.4}[recipe.batch_size]))
    run_sweep(planned(extend={"limit": 4, "all": True}), store, always(engine))
    tried = {batch: sorted({lr for b, lr, _, _ in engine.made if b == batch}) for batch in (4, 9)}
    assert tried == {4: [*RATES, 0.8], 9: [*RATES, 0.8]}


@pytest.mark.parametrize(("rule", "factors"), [("linear", (1, 4)), ("sqrt", (1, 2))])
def test_rates_follow_the_batch(rule, factors, store):
    engine = Formula(parabola(0.2))
    plan = planned(grid={"batch_size": [4, 16], "seed": [0]}, lr_follows=rule, extend=0)
    run_sweep(plan, store, always(engine))
    for batch, factor in zip((4, 16), factors, strict=True):
        assert [lr for b, lr, _, _ in engine.made if b == batch] == pytest.approx([factor * lr for lr in RATES])


def test_nothing_is_made_twice(store):
    run_sweep(planned(), store, always(Formula(parabola(1.0))))
    before, again = store.runs(), Formula(parabola(1.0))
    tally = run_sweep(planned(), store, always(again))
    assert again.made == []
    assert (tally.trained, tally.reused) == (0, 12)  # the runs of the grid as it was asked for
    assert store.runs() == before


def test_a_larger_grid_uses_what_is_there(store):
    run_sweep(planned(), store, always(Formula(parabola(0.2))))
    more = Formula(parabola(0.2))
    plan = planned(grid={"batch_size": [4, 9, 12], "lr": [0.05, *RATES], "seed": [0, 1, 2]})
    tally = run_sweep(plan, store, always(more))
    assert (tally.trained, tally.reused) == (3 * 4 * 3 - 12, 12)
    assert not [made for made in more.made if made[0] in (4, 9) and made[1] in RATES and made[3] in (0, 1)]


def test_what_failed_is_made_again_and_what_diverged_is_not(store):
    def value(recipe):
        if recipe.lr == 0.4:
            return None
        return RuntimeError("no memory") if recipe.batch_size == 9 else parabola(0.2)(recipe)

    tally = run_sweep(planned(), store, always(Formula(value)))
    assert tally.diverged == 4
    assert len(tally.failures) == 4
    assert "batch 9, seed 0, lr 0.1: failed: no memory" in tally.failures
    again = Formula(parabola(0.2))
    tally = run_sweep(planned(), store, always(again))
    assert {(batch, lr) for batch, lr, _, _ in again.made} == {(9, 0.1), (9, 0.2)}
    assert (tally.diverged, tally.failures) == (4, [])


def test_a_driver_that_is_stopped_goes_on_where_it_was(store):
    with pytest.raises(KeyboardInterrupt):
        run_sweep(planned(), store, always(Formula(parabola(1.6), stop_after=14)))
    assert len(store.runs()) == 14  # in the middle of the second round
    rest = Formula(parabola(1.6))
    run_sweep(planned(), store, always(rest))
    whole = Formula(parabola(1.6))
    with Store(store.folder.parent / "straight") as straight:
        run_sweep(planned(), straight, always(whole))
        assert {row.key for row in straight.runs()} == {row.key for row in store.runs()}
    assert len(rest.made) == len(whole.made) - 14


def test_what_another_process_makes_is_waited_for(store, monkeypatch):
    """The other one is a second connection that holds a claim, and lets go when this driver waits."""
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    plan, ours, theirs = planned(grid={"batch_size": [4]}), Formula(parabola(0.2)), Formula(parabola(0.2))
    (cell, task), said = plan.tasks({})[0], []
    with Store(store.folder, create=False) as other:
        claim = other.claim(task.key)
        assert claim.__enter__()

        def listen(event):
            said.append(getattr(event, "text", ""))
            if "made by another process" in said[-1]:
                theirs.run([Pack(cell.problem, (task,))], lambda made: other.add_run(made.row, made.weights))
                claim.__exit__(None, None, None)

        tally = run_sweep(plan, store, always(ours), listen=listen)
    assert "1 of the runs are being made by another process; waiting for them" in said
    assert len(ours.made) == 5
    assert (tally.trained, tally.reused) == (5, 1)
    assert len(store.runs()) == 6


def test_runs_are_claimed_in_portions(store):
    engine = Formula(parabola(0.2))
    run_sweep(planned(grid={"batch_size": [4]}), store, always(engine, together=4))
    assert engine.calls == [[1, 1, 1, 1], [1, 1]]


def test_runs_are_parted_into_packs_each_once():
    """A batch size is a fleet, whatever lr, momentum and seed are; SAM, which no fleet does, is made alone."""
    plan = planned(grid={"momentum": [0, 0.9]})
    tasks = [task for _, task in plan.tasks({})]
    groups = fleets(plan.cells[0].problem, tasks, largest=5)
    assert sorted(task.key for _, part in groups for task in part) == sorted(task.key for task in tasks)
    assert [(form, len(part)) for form, part in groups] == [("fleet", 5), ("fleet", 5), ("fleet", 2)] * 2
    assert all(len({task.recipe.batch_size for task in part}) == 1 for _, part in groups)
    alone = planned(recipe={"optimizer": "sgd", "clip_norm": 1.0, "method": "sam"})
    one_each = fleets(alone.cells[0].problem, [task for _, task in alone.tasks({})])
    assert [(form, len(part)) for form, part in one_each] == [("solo", 1)] * 12
    assert [len(part) for _, part in in_jobs(plan.cells[0].problem, tasks)] == [16, 8]


def test_small_packs_are_claimed_together():
    parts = [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]
    assert together(parts, 1) == parts
    assert together(parts, 3) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


def test_a_problem_is_made_once_for_each_size():
    problems = Problems(ProblemSpec(data="digits", network="mlp"), validation=0.1)
    assert problems.of(100) is problems.of(100)
    assert problems.of(100) is not problems.of(200)
    asked_twice = Problems(ProblemSpec(data="digits", options={"train_size": 50}))
    with pytest.raises(BadInput, match="train_size is 50 in the problem and 60 in the sweep; give one of them"):
        asked_twice.of(60)


def test_progress_counts_runs_and_names_the_best(store):
    said = []
    run_sweep(planned(extend=0), store, always(Formula(parabola(0.2))), listen=said.append)
    steps = [event for event in said if isinstance(event, Progress)]
    assert {event.what for event in steps} == {"sweep"}
    assert [event.done for event in steps] == sorted(event.done for event in steps)
    assert (steps[0].done, steps[-1].done, steps[-1].total, steps[-1].unit) == (0, 12, 12, "runs")
    assert 0.5 in {event.done % 1 for event in steps}
    assert steps[-1].note == "best so far batch 4, lr 0.2: validation accuracy 90 %"
    assert "left" in steps[-2].note
    assert [event.text for event in said if isinstance(event, Message)] == ["the same for all"]


def test_training_sets_of_several_sizes(store):
    plan = planned(grid={"batch_size": [4, 12], "train_size": [8, 16], "seed": [0]}, extend=0)
    engine = Formula(parabola(0.2))
    run_sweep(plan, store, always(engine))
    sizes = {row.key: store.problem(row.problem)["train_samples"] for row in store.runs()}
    assert sorted(sizes.values()) == [8] * 3 + [16] * 6  # batch 12 of 8 samples is left out
    assert plan.notes == ("batch 12: larger than the 8 training samples, left out",)
    small, large = (Problems(blobs(), validation=4).of(size).samples("train").inputs for size in (8, 16))
    assert all((large == row).all(1).any() for row in small)


BAD = {
    "all too large": (
        {"grid": {"batch_size": [37, 40]}},
        "no batch size of the sweep is left .*larger than the 36 training",
    ),
    "train size": ({"grid": {"train_size": [37]}}, "train_size is 37 and 4 of the 40 samples of blobs are held out"),
    "no validation": ({"grid": {"train_size": [8]}, "validation": 0}, "train_size is 8, but blobs was made outside"),
    "validation": ({"validation": 40}, "validation is 40"),
    "recipe": ({"grid": {"momentum": [1.0]}}, "momentum is 1.0"),
    "rules": ({"recipe": {"optimizer": "adam", "nesterov": True}}, "momentum and nesterov belong to"),
    "network": ({"recipe": {"ghost_batch": 2}}, "ghost_batch"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_trained_is_one_sentence(name):
    fields, text = BAD[name]
    with pytest.raises(BadInput, match=text) as caught:
        planned(**fields)
    assert "\n" not in str(caught.value)


def test_without_validation_the_test_set_chooses_and_that_is_said(store):
    plan = planned(validation=0)
    assert plan.measure == "test_accuracy"
    assert "chosen on the test set" in plan.notes[0]


# what really trains


def trained_by(means, plan, store, **rest):
    with Engines(means, store.folder) as engines:
        return run_sweep(plan, store, engines.choosing(store), **rest)


def histories(store):
    """Everything of each run that is no time."""
    clocks = {"seconds"}
    return {
        row.key: (row.outcome, row.step, [{k: v for k, v in point.items() if k not in clocks} for point in row.history])
        for row in store.runs()
    }


def test_runs_are_those_of_train(store):
    plan = planned(blobs(normed), extend=0, grid={"batch_size": [4]})
    trained_by(Means("solo"), plan, store)
    problem = plan.cells[0].problem
    for row in store.runs():
        alone = gengap.train(problem, gengap.Recipe(**row.recipe), evaluations=2)
        assert row.history[-1]["validation_loss"] == alone.final.validation_loss
        assert row.history[-1]["test_accuracy"] == alone.final.test_accuracy
    assert not list(store.folder.glob("runs/*"))  # no weights were asked for, and short runs leave no checkpoint


def test_weights_are_kept_where_wanted(store):
    plan = planned(extend=0, grid={"batch_size": [4], "lr": [0.2], "seed": [0]})
    trained_by(Means("solo"), plan, store)
    (key,) = [row.key for row in store.runs()]
    assert not store.has_weights(key)
    with_weights = planned(extend=0, grid={"batch_size": [4], "lr": [0.2], "seed": [0]}, weights=True)
    assert trained_by(Means("solo"), with_weights, store).trained == 1
    assert store.has_weights(key)
    assert trained_by(Means("solo"), with_weights, store).trained == 0


def test_ctrl_c_keeps_what_is_finished(store, tmp_path):
    pressed = []

    def press(event):
        if isinstance(event, Progress) and 4 < event.done < 5 and not pressed:
            pressed.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    plan = planned(extend=0, budget={"epochs": 4})
    with pytest.raises(Interrupted):
        trained_by(Means("solo"), plan, store, listen=press)
    assert len(store.runs()) == 4
    assert len(list(store.folder.glob("runs/*/checkpoint.safetensors"))) == 1
    assert trained_by(Means("solo"), plan, store).trained == 8
    assert not list(store.folder.glob("runs/*/checkpoint.safetensors"))
    with Store(tmp_path / "straight") as straight:
        trained_by(Means("solo"), plan, straight)
        assert histories(straight) == histories(store)


def test_fleets_make_the_same_runs(store, tmp_path):
    plan = planned(extend=0)
    tally = trained_by(Means("fleet"), plan, store)
    assert tally.trained == 12
    with Store(tmp_path / "solo") as alone:
        trained_by(Means("solo"), plan, alone)
        one, other = histories(store), histories(alone)
    assert set(one) == set(other)
    for key, (outcome, step, points) in one.items():
        assert (outcome, step) == other[key][:2]
        assert points[-1]["validation_loss"] == pytest.approx(other[key][2][-1]["validation_loss"], rel=1e-4)


def test_what_is_picked_is_said_and_stored(store):
    said = []
    tally = trained_by(Means(), planned(extend=0), store, listen=said.append)
    (way,) = tally.ways
    assert way["why"] in {event.text for event in said if isinstance(event, Message)}
    assert store.recall("sweep_ways") == tally.ways


PROCESS = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from test_drive import planned, trained_by
from gengap.store.store import Store
from gengap.sweeps.ways import Means

def kill(event):
    if getattr(event, "done", 0) > 7.2:
        os.kill(os.getpid(), signal.SIGKILL)

with Store(sys.argv[1]) as store:
    trained_by(Means("solo"), planned(budget={"epochs": 2}), store, listen=kill)
"""


def test_killed_and_resumed_gives_the_same_rows(store, tmp_path):
    command = [sys.executable, "-c", PROCESS, str(store.folder)]
    killed = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = {row.key: row.created for row in store.runs()}
    assert len(before) == 7
    plan = planned(budget={"epochs": 2})
    tally = trained_by(Means("solo"), plan, store)
    after = {row.key: row.created for row in store.runs()}
    assert {key: after[key] for key in before} == before
    assert tally.trained == len(after) - 7
    with Store(tmp_path / "straight") as straight:
        trained_by(Means("solo"), plan, straight)
        assert histories(straight) == histories(store)


MEANS = {
    "name": ({"engine": "cloud"}, "engine is 'cloud'; choose one of auto, solo, fleet, pool, ray, slurm"),
    "workers": ({"engine": "solo", "workers": 2}, "workers is 2, but the engine solo has none"),
}


@pytest.mark.parametrize("name", MEANS)
def test_engines_that_are_not_there(name):
    fields, text = MEANS[name]
    with pytest.raises(BadInput, match=text):
        Means(**fields)
