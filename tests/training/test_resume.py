"""Stopped and resumed is as never stopped, bit for bit. Oracle: the straight run."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from training_problems import (
    Counted,
    Rows,
    assert_same_run,
    busy,
    points,
    problem,
    recipe,
    rectified,
    smooth,
)

import gengap
from gengap import BadInput, OutOfSpace
from gengap.core.errors import DamagedFile
from gengap.core.events import Message
from gengap.training import checkpoint as checkpoints

ADAM = {"optimizer": "adam", "lr": 0.01}
CASES = {
    "adam, cosine": (busy, {**ADAM, "schedule": "cosine", "warmup": {"epochs": 1}}),
    "momentum, ragged": (busy, {"batch_size": 12, "momentum": 0.9}),
    "adagrad, dropped": (busy, {"optimizer": "adagrad", "batch_size": 12, "drop_last": True}),
    "pieces": (busy, {"micro_batch": 4, "nesterov": True, "momentum": 0.8, "weight_decay": 0.1}),
    "steps": (busy, {"budget": {"steps": 13}, "momentum": 0.9}),
    "whole epochs of steps": (smooth, {"budget": {"steps": 10}}),
    "converged": (smooth, {"lr": 1.0, "budget": {"converged": {"patience": 1, "tolerance": 0.1, "max_epochs": 4}}}),
    "bf16": (busy, {"dtype": "bf16", **ADAM}),
}


def press_at(k):
    """A loss that presses Ctrl-C in update k, once."""

    def press(update, loss):
        if update == k:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    return Counted(press)


@pytest.mark.parametrize("evaluations", [4, 100])
@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere(case, evaluations, tmp_path):
    net, fields = CASES[case]
    straight = gengap.train(problem(net, loss=Counted()), recipe(**fields), evaluations=evaluations)
    pieces = 2 if "micro_batch" in fields else 1
    steps = straight.cost.steps
    for k in range(steps) if evaluations == 4 else (0, 4, steps - 1):
        file = tmp_path / f"{k}.safetensors"
        stopped = gengap.train(
            problem(net, loss=press_at(k * pieces)), recipe(**fields), evaluations=evaluations, checkpoint=file
        )
        assert (stopped.outcome.kind, stopped.cost.steps) == ("interrupted", k + 1)
        resumed = gengap.train(problem(net, loss=Counted()), recipe(**fields), evaluations=evaluations, checkpoint=file)
        assert_same_run(resumed, straight)


@pytest.mark.parametrize("net", [rectified, smooth])
def test_stopped_at_every_step_of_one_run(net, tmp_path):
    straight = gengap.train(problem(net), recipe(momentum=0.9, budget={"steps": 13}), evaluations=13)
    pressed = []

    def press(event):
        if not isinstance(event, Message) and not pressed:
            pressed.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    runs = []
    while not runs or runs[-1].outcome.kind == "interrupted":
        pressed.clear()
        runs.append(
            gengap.train(
                problem(net),
                recipe(momentum=0.9, budget={"steps": 13}),
                evaluations=13,
                checkpoint=tmp_path / "c",
                listen=press,
            )
        )
    assert 13 < len(runs) < 20
    assert_same_run(runs[-1], straight)


def test_streamed_stopped_at_the_end_of_an_epoch(tmp_path):
    rows = {"train": Rows(*points()), "test": Rows(*points(20, seed=1)), "memory_limit": 1}
    straight = gengap.train(problem(busy, loss=Counted(), **rows), recipe())
    for k in (3, 4, 5, 14):
        file = tmp_path / str(k)
        gengap.train(problem(busy, loss=press_at(k), **rows), recipe(), checkpoint=file)
        assert_same_run(gengap.train(problem(busy, loss=Counted(), **rows), recipe(), checkpoint=file), straight)


def test_images_with_channels_last(tmp_path):
    def net():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        )

    rng = torch.Generator().manual_seed(0)
    data = torch.randn(40, 3, 5, 5, generator=rng), torch.arange(40) % 2
    for fields in ({"momentum": 0.9}, ADAM, {"optimizer": "adagrad"}):
        how = recipe(memory_format="channels_last", dtype="float32", **fields)
        straight = gengap.train(problem(net, loss=Counted(), train=data, test=data), how)
        file = tmp_path / how.key
        gengap.train(problem(net, loss=press_at(6), train=data, test=data), how, checkpoint=file)
        resumed = gengap.train(problem(net, loss=Counted(), train=data, test=data), how, checkpoint=file)
        assert_same_run(resumed, straight)


def test_a_finished_run_is_given_back(tmp_path):
    first = gengap.train(problem(busy), recipe(), checkpoint=tmp_path / "c")
    loss = Counted()
    again = gengap.train(problem(busy), recipe(), checkpoint=tmp_path / "c")
    assert_same_run(again, first)
    assert again.cost == first.cost
    assert loss.updates == 0


def test_a_divergence_is_given_back(tmp_path):
    def problem_():
        return problem(loss=Counted(lambda update, loss: loss * float("nan") if update == 7 else loss))

    first = gengap.train(problem_(), recipe(), checkpoint=tmp_path / "c")
    p = problem_()
    assert_same_run(gengap.train(p, recipe(), checkpoint=tmp_path / "c"), first)
    assert first.outcome.step == 7
    assert p.loss.mean.updates == 0


def test_resuming_says_so(tmp_path):
    said = []
    gengap.train(problem(loss=press_at(6)), recipe(), checkpoint=tmp_path / "c", listen=said.append)
    assert not [event for event in said if isinstance(event, Message)]
    gengap.train(problem(loss=Counted()), recipe(), checkpoint=tmp_path / "c", listen=said.append)
    assert [event.text for event in said if isinstance(event, Message)] == [f"resumed from {tmp_path / 'c'} at step 7"]


KILLED = """
import os, signal, sys
import gengap, torch
from training_problems import Counted, busy, problem, recipe

def die(update, loss):
    if update == 74:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss

torch.set_num_threads(1)
how = recipe(optimizer="adam", lr=0.01, budget={"epochs": 20}, schedule="cosine")
gengap.train(problem(busy, loss=Counted(die)), how, checkpoint=sys.argv[1], checkpoint_every=0, evaluations=9)
"""


def test_killed_in_the_middle(tmp_path):
    file = tmp_path / "c.safetensors"
    found = subprocess.run(
        [sys.executable, "-c", KILLED, str(file)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == -signal.SIGKILL, found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]
    how = recipe(**ADAM, budget={"epochs": 20}, schedule="cosine")
    straight = gengap.train(problem(busy, loss=Counted()), how, evaluations=9)
    p, said = problem(busy, loss=Counted()), []
    resumed = gengap.train(p, how, evaluations=9, checkpoint=file, listen=said.append)
    assert_same_run(resumed, straight)
    started = int(re.search(r"at step (\d+)", next(e.text for e in said if isinstance(e, Message)))[1])
    assert 74 - 32 <= started <= 74
    assert p.loss.mean.updates == 100 - started


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    file = tmp_path / "c"
    gengap.train(problem(), recipe(), checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(BadInput, match="belongs to another recipe; remove it, or name another checkpoint file"):
        gengap.train(problem(), recipe(seed=1), checkpoint=file)
    for other in (problem(rectified), problem(loss=Counted()), problem(train=points(seed=3))):
        with pytest.raises(BadInput, match=r"belongs to another problem \(network, loss or data\)"):
            gengap.train(other, recipe(), checkpoint=file)
    assert file.read_bytes() == before


def test_a_share_is_the_same_recipe_as_its_number(tmp_path):
    gengap.train(problem(), recipe(batch_size="20%"), checkpoint=tmp_path / "c")
    gengap.train(problem(), recipe(batch_size=8), checkpoint=tmp_path / "c")


DAMAGE = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[:-100],
    "cut in the header": lambda whole: whole[:60],
    "text": lambda whole: b"hello\n" * 100,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint(kind, tmp_path):
    file = tmp_path / "c"
    gengap.train(problem(), recipe(), checkpoint=file)
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    with pytest.raises(DamagedFile, match=f"{file} is not a readable checkpoint .*; remove it to start the run anew"):
        gengap.train(problem(), recipe(), checkpoint=file)


def test_another_file_or_a_folder_is_no_checkpoint(tmp_path):
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(DamagedFile, match=r"is not a checkpoint of gengap"):
        gengap.train(problem(), recipe(), checkpoint=tmp_path / "weights.safetensors")
    with pytest.raises(DamagedFile, match="is not a readable checkpoint"):
        gengap.train(problem(), recipe(), checkpoint=tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    loss = Counted()
    with pytest.raises(BadInput, match=r"cannot write to .*; choose a folder"):
        gengap.train(problem(loss=loss), recipe(), checkpoint=tmp_path / "file" / "c")
    assert loss.updates == 0


def of_the_library(*args, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def of_the_system(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("full", [of_the_library, of_the_system, half_written])
def test_a_full_disk_leaves_the_checkpoint_before(full, tmp_path, monkeypatch):
    file = tmp_path / "c"
    straight = gengap.train(problem(busy, loss=Counted()), recipe())
    gengap.train(problem(busy, loss=press_at(6)), recipe(), checkpoint=file)
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(OutOfSpace, match=r"the disk is full: .* was not written; free some space"):
            gengap.train(problem(busy, loss=Counted()), recipe(), checkpoint=file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert_same_run(gengap.train(problem(busy, loss=Counted()), recipe(), checkpoint=file), straight)
