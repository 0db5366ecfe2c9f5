"""Tiny problems that the command line finds by name."""

import math
import os
import signal
import time

import torch
from torch import nn
from torch.nn import functional

import gengap


def points(samples, seed):
    rng = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    return torch.randn(samples, 3, generator=rng) + (2 * targets - 1)[:, None], targets


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def normed():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 2))


def blobs(model=net, loss="cross_entropy", **changed):
    data = {"train": points(40, 0), "test": points(30, 1), **changed}
    return gengap.Problem(model=model, loss=loss, name="blobs", **data)


class Watched:
    """Cross-entropy that can be slow, and can lose its mind with large batches."""

    def __init__(self, bad=False):
        self.bad = bad

    def __call__(self, outputs, targets):
        loss = functional.cross_entropy(outputs, targets)
        if outputs.requires_grad:
            time.sleep(float(os.environ.get("CLI_SECONDS", "0")))
            if self.bad and len(targets) == 40:
                return loss * math.inf
        return loss


def slow():
    return blobs(normed, Watched())


def explodes():
    return blobs(loss=Watched(bad=True))


def one_class_too_many():
    x, y = points(40, 0)
    return blobs(train=(x, y + 1))


def wrong_shape():
    x, y = points(40, 0)
    return blobs(train=(x[:, :2], y))


def not_a_problem():
    return {"train": points(40, 0)}


class Picky:
    """Cross-entropy that refuses batches of 9."""

    def __call__(self, outputs, targets):
        if outputs.requires_grad and len(targets) == 9:
            raise RuntimeError("not with 9")
        return functional.cross_entropy(outputs, targets)


def fails():
    return blobs(loss=Picky())


class Presses:
    """Cross-entropy that presses Ctrl-C once, at the second update with a batch of 9."""

    armed = False
    updates = 0

    def __call__(self, outputs, targets):
        if outputs.requires_grad and len(targets) == 9:
            self.updates += 1
            if self.updates == 2 and type(self).armed:
                type(self).armed = False
                os.kill(os.getpid(), signal.SIGINT)
        return functional.cross_entropy(outputs, targets)


def presses():
    return blobs(loss=Presses())
