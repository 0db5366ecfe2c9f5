"""A run seen on its way. Oracles: runs with a shorter budget, which end where the longer one passes; the straight run."""

import itertools
import os
import random
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file
from training_problems import Counted, assert_same_run, assert_same_tensors, busy, problem, recipe, smooth

import gengap
from gengap.core.errors import BadInput, DamagedFile
from gengap.training.snapshots import Probe, SnapshotFolder, log_steps

STEPS = {"steps": 13}


def test_shows_what_a_shorter_run_ends_with():
    seen = []
    gengap.train(problem(busy), recipe(budget=STEPS), probe=Probe(seen.append, at=[0, 1, 4, 5, 6, 13]))
    assert [shot.step for shot in seen] == [0, 1, 4, 5, 6, 13]
    assert [shot.samples for shot in seen] == [0, 8, 32, 40, 48, 104]
    assert len({shot.run for shot in seen}) == 1
    for shot in seen[1:]:
        ended = gengap.train(problem(busy), recipe(budget={"steps": shot.step}))
        assert_same_tensors(shot.params, ended.params)
        assert_same_tensors(shot.buffers, ended.buffers)
        assert_same_tensors(shot.initial_params, ended.initial_params)
    assert_same_tensors(seen[0].params, seen[0].initial_params)


def meddle(shot):
    """What a careless probe does."""
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    for tensors in (shot.params, shot.initial_params, shot.buffers):
        for tensor in tensors.values():
            tensor.zero_()


@pytest.mark.parametrize("budget", [{"epochs": 3}, STEPS])
def test_the_run_has_the_same_bits(budget):
    plain = gengap.train(problem(busy), recipe(budget=budget))
    assert_same_run(gengap.train(problem(busy), recipe(budget=budget), probe=Probe(meddle, count=9)), plain)


def test_global_generators_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    gengap.train(problem(), recipe(), probe=meddle)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_until_converged_the_end_is_shown_too():
    budget = {"converged": {"patience": 1, "tolerance": 0.2, "max_epochs": 400}}
    seen = []
    run = gengap.train(problem(smooth), recipe(lr=1.0, budget=budget), probe=Probe(seen.append, count=4))
    assert run.outcome.reason.startswith("converged")
    assert [shot.step for shot in seen] == [0, 1, 13, run.outcome.step]
    assert_same_tensors(seen[-1].params, run.params)
    told = []
    gengap.train(problem(smooth), recipe(lr=1.0, budget=budget), probe=Probe(told.append, at=[1, 2]))
    assert [shot.step for shot in told] == [1, 2]


def test_a_divergence_is_not_shown():
    loss = Counted(lambda update, value: value * float("nan") if update == 7 else value)
    seen = []
    gengap.train(problem(loss=loss), recipe(), probe=Probe(seen.append, at=range(16)))
    assert [shot.step for shot in seen] == list(range(8))


def stopping(update_to_stop):
    def press(update, value):
        if update == update_to_stop:
            os.kill(os.getpid(), signal.SIGINT)
        return value

    return Counted(press)


@pytest.mark.parametrize("stop", [0, 3, 4, 9, 14])
@pytest.mark.parametrize("budget", [{"epochs": 3}, {"converged": {"patience": 1, "tolerance": 0.9, "max_epochs": 3}}])
def test_stopped_and_resumed_shows_nothing_twice(stop, budget, tmp_path):
    how = recipe(budget=budget)
    straight, parts = [], []
    whole = gengap.train(problem(busy, loss=Counted()), how, probe=Probe(straight.append, count=8))
    for loss in (stopping(stop), Counted(), Counted()):
        again = gengap.train(
            problem(busy, loss=loss), how, checkpoint=tmp_path / "c", probe=Probe(parts.append, count=8)
        )
    assert_same_run(again, whole)
    assert [shot.step for shot in parts] == [shot.step for shot in straight]
    for found, expected in zip(parts, straight, strict=True):
        assert_same_tensors(found.params, expected.params)


def test_a_folder_gives_back_what_it_was_shown(tmp_path):
    seen, folder = [], SnapshotFolder(tmp_path / "kept")

    def both(shot):
        seen.append(shot)
        folder(shot)

    gengap.train(problem(busy), recipe(), probe=both)
    assert len(folder) == len(seen) > 5
    for found, expected in zip(folder, seen, strict=True):
        assert (found.step, found.samples, found.run) == (expected.step, expected.samples, expected.run)
        for name in ("params", "initial_params", "buffers"):
            found_, expected_ = getattr(found, name), getattr(expected, name)
            assert_same_tensors({k: found_[k] for k in sorted(found_)}, {k: expected_[k] for k in sorted(expected_)})
        assert list(found.params) == list(expected.params)
    model = busy().double()
    model.load_state_dict(load_file(tmp_path / "kept" / f"step-{seen[-1].step:08d}.safetensors"))
    assert_same_tensors({k: p.detach() for k, p in model.named_parameters()}, seen[-1].params)


def test_a_folder_holds_one_run(tmp_path):
    folder = SnapshotFolder(tmp_path)
    gengap.train(problem(), recipe(), probe=folder)
    gengap.train(problem(), recipe(), probe=folder)
    for other in ({"seed": 1}, {"lr": 0.2}):
        with pytest.raises(BadInput, match="holds snapshots of another run; remove it, or choose another folder"):
            gengap.train(problem(), recipe(**other), probe=folder)


def test_a_folder_that_cannot_be_read(tmp_path):
    folder = SnapshotFolder(tmp_path)
    with pytest.raises(BadInput, match="holds no snapshots; train with probe=SnapshotFolder"):
        list(folder)
    gengap.train(problem(), recipe(), probe=folder)
    file = tmp_path / "step-00000001.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DamagedFile, match="is not a readable snapshot"):
        list(folder)
    gengap.train(problem(), recipe(), checkpoint=tmp_path / "c")
    (tmp_path / "c").rename(file)
    with pytest.raises(DamagedFile, match="is not a snapshot of gengap"):
        list(folder)


@given(st.integers(1, 10**6), st.integers(2, 60))
def test_steps_are_even_in_the_logarithm(total, count):
    steps = log_steps(total, count)
    assert steps[:2] == [0, 1]
    assert steps[-1] == total
    assert steps == sorted(set(steps))
    assert len(steps) <= count + 1
    ratio = total ** (1 / (count - 1))
    for before, after in itertools.pairwise(steps[1:]):
        assert after <= ratio * (before + 0.5) + 0.5 + 1e-9 * after


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        (Probe(print, at=[16]), "a probe at update 16 was asked for; give whole numbers from 0 to 15"),
        (Probe(print, at=[-1]), "a probe at update -1"),
        (Probe(print, at=[1.5]), "a probe at update 1.5"),
        (Probe(print, count=1), "1 snapshots were asked for; at least 2"),
        ("log", "probe is a str; give a function of a Snapshot, or a gengap.Probe"),
    ],
)
def test_refuses_with_a_sentence(probe, sentence):
    with pytest.raises(BadInput, match=sentence):
        gengap.train(problem(), recipe(), probe=probe)
