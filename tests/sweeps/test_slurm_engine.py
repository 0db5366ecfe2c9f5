"""Runs made by jobs, through submitit's local executor. Oracle: `gengap.train` of each recipe alone, to the bit; and a file in
which a loss writes down every update, wherever it is made."""

import json
import os
import signal

import pytest
from engine_problems import Counted, by_process, check_digits, check_failing, counted_packs, packed

import gengap
from gengap import BadInput, Interrupted
from gengap.core.events import Message
from gengap.studies.study import ProblemSpec
from gengap.sweeps.engines import make_engine
from gengap.sweeps.engines.made_files import write_made
from gengap.sweeps.work import make

pytest.importorskip("submitit")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning"),
]


@pytest.fixture
def local(tmp_path, monkeypatch):
    """An engine with jobs on this machine, which find the test's modules."""
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    return make_engine("slurm", folder=tmp_path / "jobs", cluster="local", workers=2)


def test_every_run_comes_out_once_with_the_bits_it_has_alone(local, tmp_path):
    check_digits(local)
    assert len(list((tmp_path / "jobs" / "logs").glob("*_log.out"))) == 2
    assert list((tmp_path / "jobs" / "runs").iterdir()) == []


def test_a_failing_model_is_a_failed_run(local, tmp_path):
    check_failing(local, tmp_path / "log")


def test_a_killed_job_loses_only_what_is_unfinished(local, tmp_path):
    loss, kept, said = Counted(tmp_path / "log", kills=20), [], []
    local.run(counted_packs(loss, {4: 1, 20: 1, 5: 1}), kept.append, said.append)
    found = {made.row.recipe["batch_size"]: (made.row.outcome, made.row.reason[:18]) for made in kept}
    assert len(kept) == 3
    assert found == {4: ("finished", ""), 20: ("failed", "a job was lost (jo"), 5: ("finished", "")}
    assert loss.sizes() == {4: 1, 20: 2, 5: 1}
    assert [event.warning for event in said if isinstance(event, Message)] == [True]


def test_ctrl_c_cancels_jobs_and_keeps_what_is_finished(local, tmp_path):
    kept = []

    def press(made):
        kept.append(made.row.recipe["batch_size"])
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="interrupted; 1 of 2 runs came out and are kept"):
        local.run(counted_packs(Counted(tmp_path / "log"), {4: 1, 20: 10**6}), press)
    assert kept == [4]
    assert json.loads((tmp_path / "jobs" / "jobs.json").read_text()) == {}


def test_what_an_earlier_driver_left_is_taken_up(local, tmp_path):
    loss = Counted(tmp_path / "log", fails=20)
    (pack,) = counted_packs(loss, {4: 1, 20: 1})
    for made in make(pack, pack.problem):
        write_made(local.folder.path_of(made.row.key), made)
    assert loss.sizes() == {4: 1, 20: 1}
    kept = []
    local.run([pack], kept.append)
    assert [(made.row.recipe["batch_size"], made.row.outcome) for made in kept] == [(4, "finished"), (20, "failed")]
    assert loss.sizes() == {4: 1, 20: 2}  # what failed is made again


def test_what_is_wrong_for_all_runs_ends_the_sweep(local):
    spec = ProblemSpec(factory="engine_problems:by_process")
    packs = packed(by_process(), [gengap.Recipe(lr=0.1, batch_size=4, budget={"steps": 1})], spec=spec)
    with pytest.raises(BadInput, match="own as a worker makes it is not the problem of the sweep"):
        local.run(packs, lambda made: None)


def test_engines_that_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="there is no Slurm here"):
        make_engine("slurm", folder=tmp_path)
    with pytest.raises(BadInput, match="the engine 'slurm' needs the option 'folder'"):
        make_engine("slurm")
    with pytest.raises(BadInput, match="submitit does not take these parameters"):
        make_engine("slurm", folder=tmp_path, cluster="local", parameters={"queue": "gpu"})
