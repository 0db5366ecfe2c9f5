"""Tiny problems for the tests of training: two blobs of points, and networks that need each part of a training state."""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

import gengap


def points(samples=40, features=3, seed=0):
    """Two overlapping clouds, classes 0 and 1 in turn."""
    rng = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    return torch.randn(samples, features, generator=rng, dtype=torch.float64) + (2 * targets - 1)[:, None], targets


def smooth():
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))


def rectified():
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))


def normed():
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def busy():
    """Running statistics and random masks."""
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2))


class Counted:
    """Cross-entropy that calls `act` at chosen training updates: it sees them by their gradient."""

    def __init__(self, act=lambda update, loss: loss):
        self.updates, self.act = 0, act

    def __call__(self, outputs, targets):
        loss = functional.cross_entropy(outputs, targets)
        if not outputs.requires_grad:
            return loss
        self.updates += 1
        return self.act(self.updates - 1, loss)


class Rows(Dataset):
    """A map-style data set; it counts what is read."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets, self.read = inputs, targets, 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.read += 1
        return self.inputs[index], int(self.targets[index])


def problem(model=smooth, loss="cross_entropy", **changed):
    train, test = points(), points(samples=20, seed=1)
    return gengap.Problem(**{"model": model, "loss": loss, "train": train, "test": test, "name": "blobs", **changed})


def recipe(**fields):
    return gengap.Recipe(**{"lr": 0.1, "batch_size": 8, "budget": {"epochs": 3}, "dtype": "float64", **fields})


def assert_same_tensors(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        same = (found[name] == expected[name]) | (found[name].isnan() & expected[name].isnan())
        assert found[name].dtype == expected[name].dtype
        assert same.all(), name


def timeless(history):
    """Points without their time."""
    return [{name: value for name, value in point.to_dict().items() if name != "seconds"} for point in history]


def assert_same_run(found, expected):
    """Equal to the last bit, but for the time."""
    assert found.outcome == expected.outcome
    assert timeless(found.history) == timeless(expected.history)
    assert_same_tensors(found.params, expected.params)
    assert_same_tensors(found.initial_params, expected.initial_params)
    assert_same_tensors(found.buffers, expected.buffers)
    assert (found.cost.steps, found.cost.samples) == (expected.cost.steps, expected.cost.samples)
