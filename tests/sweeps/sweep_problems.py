"""Tiny problems and studies for the tests of sweeps; importable by name, as a study file or another process needs it."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import gengap
from gengap.problem.problem import Origin
from gengap.studies.study import Study

LOG = "SWEEP_LOG"  # file to which every training writes a line


def points(samples, seed):
    rng = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    return torch.randn(samples, 3, generator=rng) + (2 * targets - 1)[:, None], targets


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def normed():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 2))


def blobs(model=net, loss="cross_entropy"):
    return gengap.Problem(model=model, loss=loss, train=points(40, 0), test=points(30, 1), name="blobs")


def from_file():
    """What a study file names."""
    return blobs()


def none_at_all():
    return 3


def slow():
    """A problem that writes down every update, so that several processes can be followed."""
    return blobs(loss=Slow())


class Slow:
    def __call__(self, outputs, targets):
        if outputs.requires_grad:
            with Path(os.environ[LOG]).open("a") as log:
                log.write(f"{os.getpid()} {len(targets)}\n")
            time.sleep(float(os.environ.get("SWEEP_SECONDS", "0")))
        return functional.cross_entropy(outputs, targets)


def study(*, factory="sweep_problems:from_file", grid=None, recipe=None, **fields):
    grid = grid or {"batch_size": [4, 40], "seed": [0, 1]}
    shared = {"lr": 0.2, "budget": {"epochs": 2}} | (recipe or {})
    return Study(**{
        "title": "blobs",
        "problem": {"factory": factory},
        "recipe": {name: value for name, value in shared.items() if name not in grid},
        "grid": grid,
        "evaluations": 2,
        **fields,
    })


def kill_in_run(number):
    """A listener that kills this process in the middle of one run."""

    def listen(event):
        if getattr(event, "what", "").startswith(f"run {number} of") and event.done > 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


def with_origin(problem):
    return problem.with_origin(Origin(factory="sweep_problems:from_file"))
