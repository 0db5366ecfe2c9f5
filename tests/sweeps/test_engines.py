"""Runs made in this process and in others. Oracle: `gengap.train` of each recipe alone, to the bit; and a file in which a
loss writes down every update, wherever it is made."""

import math
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_problems import Counted, by_process, check_digits, check_failing, counted_packs, packed
from sweep_problems import blobs, from_file, normed, with_origin

import gengap
from gengap import BadInput, Interrupted
from gengap.core.errors import DamagedFile
from gengap.core.events import Message, Progress
from gengap.studies.study import ProblemSpec
from gengap.sweeps import work
from gengap.sweeps.engines import make_engine
from gengap.sweeps.engines.books import Books
from gengap.sweeps.engines.made_files import read_made, write_made
from gengap.sweeps.engines.parcel import check_same, parcel_of
from gengap.sweeps.work import make

STEPS = {"steps": 1}


@pytest.fixture(scope="module")
def engines():
    """One pool for all tests, because workers take seconds to start."""
    with make_engine("pool", workers=2) as pool:
        yield {"in-process": make_engine("in-process"), "pool": pool}


both = pytest.mark.parametrize("name", ["in-process", "pool"])


@both
def test_every_run_comes_out_once_with_the_bits_it_has_alone(engines, name):
    check_digits(engines[name])


@both
def test_a_failing_model_is_a_failed_run(engines, name, tmp_path):
    check_failing(engines[name], tmp_path / "log")


@both
def test_a_problem_is_made_from_its_spec(engines, name):
    problem, kept = from_file(), []
    recipes = [gengap.Recipe(lr=0.1, batch_size=4, seed=seed, budget=STEPS) for seed in (0, 1)]
    spec = ProblemSpec(factory="sweep_problems:from_file")
    engines[name].run(packed(problem, recipes, spec=spec, weights=False), kept.append)
    alone = [gengap.train(problem, recipe, evaluations=2).history[-1].train_loss for recipe in recipes]
    assert [made.row.history[-1]["train_loss"] for made in kept] == alone
    assert [made.weights for made in kept] == [{}, {}]


def test_a_worker_that_is_killed_loses_only_what_is_unfinished(engines, tmp_path):
    loss, kept, said = Counted(tmp_path / "log", kills=20), [], []
    engines["pool"].run(counted_packs(loss, {4: 1, 20: 1, 5: 1}), kept.append, said.append)
    found = {made.row.recipe["batch_size"]: (made.row.outcome, made.row.reason) for made in kept}
    assert len(kept) == 3
    assert found == {
        4: ("finished", ""),
        20: ("failed", "a worker process was lost (killed by SIGKILL)"),
        5: ("finished", ""),
    }
    assert loss.sizes() == {4: 1, 20: 2, 5: 1}
    assert [event.text for event in said if isinstance(event, Message)] == [
        "a worker process was lost (killed by SIGKILL); 2 unfinished runs are made again in another worker"
    ]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@both
def test_ctrl_c_keeps_what_is_finished(engines, name, tmp_path, monkeypatch):
    engine, kept = engines[name], []
    monkeypatch.setattr(engine, "checkpoint", lambda key: tmp_path / key)
    packs = counted_packs(Counted(tmp_path / "log"), {4: 1, 20: 10**6})
    pids, pressed = [worker.process.pid for worker in getattr(engine, "_crew", [])], []

    def press(event):
        if isinstance(event, Progress) and "batch 20" in event.note and not pressed:
            pressed.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"interrupted; 1 of 2 runs came out|interrupted in batch 20, seed 0 at step"):
        engine.run(packs, kept.append, press)
    assert [made.row.recipe["batch_size"] for made in kept] == [4]
    assert (tmp_path / packs[0].tasks[1].key).exists()  # the run at work wrote its state
    assert not any(alive(pid) for pid in pids)


def test_what_cannot_travel_is_refused_before_a_worker_starts():
    packs = packed(blobs(lambda: torch.nn.Linear(3, 2)), [gengap.Recipe(lr=0.1, batch_size=4, budget=STEPS)])
    pool, kept = make_engine("pool", workers=1), []
    with pytest.raises(
        BadInput, match=r"blobs cannot be sent to another process .*functions or classes of a module"
    ) as caught:
        pool.run(packs, kept.append)
    assert "\n" not in str(caught.value)
    assert pool._crew == []
    make_engine("in-process").run(packs, kept.append)
    assert [made.row.outcome for made in kept] == ["finished"]


def test_what_cannot_be_pickled_travels_by_its_factory():
    problem = with_origin(blobs(lambda: torch.nn.Linear(3, 2)))
    (pack,) = packed(problem, [gengap.Recipe(lr=0.1, batch_size=4, budget=STEPS)])
    parcel = parcel_of(pack, pickle.dumps)
    assert parcel.content == ProblemSpec(factory="sweep_problems:from_file")
    with pytest.raises(BadInput, match="is not the problem of the sweep"):  # that factory has another network
        check_same(parcel.opened(), pack)


def test_a_fleet_that_fails_fails_its_runs(monkeypatch):
    def broken(problem, recipes, **rest):
        raise TypeError("no rule\nfor this operation")

    monkeypatch.setattr(work, "train_fleet", broken)
    (pack,) = counted_packs("cross_entropy", {4: 1, 20: 1, 5: 1})
    pack = replace(pack, form="fleet")
    made = [(one.row.recipe["batch_size"], one.row.outcome, one.row.reason) for one in make(pack, pack.problem)]
    assert made == [(size, "failed", "TypeError: no rule") for size in (4, 20, 5)]


def test_a_run_is_kept_once_and_retried_alone():
    packs, kept, said = counted_packs("cross_entropy", {4: 1, 20: 1, 5: 1}), [], []
    books = Books(packs, kept.append, said.append, retries=1)
    errand = books.begin()
    first = next(make(packs[0], packs[0].problem))
    books.take(errand, first)
    books.take(errand, first)
    assert kept == [first]
    books.lost(errand, "a worker left")
    assert [[task.recipe.batch_size for task in one.pack.tasks] for one in books.waiting] == [[20], [5]]
    books.take(errand, first)
    lost = books.begin()
    books.lost(lost, "a worker left again")
    assert [(made.row.recipe["batch_size"], made.row.reason) for made in kept[1:]] == [(20, "a worker left again")]
    assert (books.done, books.open, len(books.waiting), books.at_work) == (2, True, 1, [])


def test_a_run_as_a_file(tmp_path):
    (pack,) = counted_packs("cross_entropy", {4: 3})
    (made,) = make(replace(pack, problem=blobs(normed)), blobs(normed))
    history = ({**made.row.history[0], "train_loss": math.inf, "test_accuracy": None}, *made.row.history[1:])
    made = replace(made, row=replace(made.row, history=history))
    write_made(tmp_path / "run", made)
    back = read_made(tmp_path / "run")
    assert back.row == made.row
    assert {which: list(part) for which, part in back.weights.items()} == {
        which: sorted(part) for which, part in made.weights.items()
    }
    for which, part in made.weights.items():
        assert all(np.array_equal(back.weights[which][name], array) for name, array in part.items())
    (tmp_path / "run").write_bytes(b"half of it")
    with pytest.raises(DamagedFile, match="holds no run that can be read"):
        read_made(tmp_path / "run")


ERRORS = {
    "name": (("grid",), {}, "no engine called 'grid'; choose in-process, pool, ray, slurm"),
    "workers": (("pool",), {"workers": 0}, "workers is 0; give at least 1"),
    "workers in one process": (
        ("in-process",),
        {"workers": 2},
        "'in-process' has no option 'workers'; it has checkpoint",
    ),
    "option": (("pool",), {"gpus": 1}, "'pool' has no option 'gpus'; it has workers, retries, checkpoint"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_engines_that_cannot_be_made(name):
    given, options, text = ERRORS[name]
    with pytest.raises(BadInput, match=text):
        make_engine(*given, **options)


@pytest.mark.slow
def test_another_problem_in_a_worker_is_refused():
    recipes, spec = (
        [gengap.Recipe(lr=0.1, batch_size=4, budget=STEPS)],
        ProblemSpec(factory="engine_problems:by_process"),
    )
    packs = packed(by_process(), recipes, spec=spec)
    with pytest.raises(BadInput, match="own as a worker makes it is not the problem of the sweep"):
        make_engine("pool", workers=1).run(packs, lambda made: None)


DRIVER = """
import os, sys
sys.path.insert(0, {folder!r})
from engine_problems import Counted, counted_packs
from gengap.sweeps.engines import make_engine
{guard}
    make_engine("pool", workers=1).run(counted_packs(Counted({log!r}), {{4: 10**6}}), print)
"""


def driver(tmp_path, guard):
    """A script that uses the pool, as a process."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(folder=str(Path(__file__).parent), log=str(tmp_path / "log"), guard=guard))
    return subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_workers_end_when_their_driver_is_killed(tmp_path):
    log = tmp_path / "log"
    with driver(tmp_path, 'if __name__ == "__main__":') as process:
        while not (log.exists() and log.read_text().count("\n") > 1):
            assert process.poll() is None
            time.sleep(0.1)
        worker = int(log.read_text().split()[1])
        assert worker != process.pid
        assert alive(worker)
        process.kill()
    while alive(worker):  # until the time limit of the test
        time.sleep(0.1)


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    with driver(tmp_path, "if True:") as process:
        said = process.stderr.read()
    assert process.returncode == 1
    assert (
        said
        .strip()
        .splitlines()[-1]
        .startswith(
            "gengap.core.errors.BadInput: no worker process could start (the last one ended with code 1); a script must"
        )
    )
