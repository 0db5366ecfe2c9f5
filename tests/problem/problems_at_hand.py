"""Small networks and data sets that several tests of problems need."""

import torch
from torch import nn
from torch.utils.data import Dataset

N, F, C = 37, 6, 4


def data(seed=0, n=N):
    """Inputs (n, F) in float32 and labels (n,) in C classes."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, F, generator=rng) * torch.linspace(0.5, 3.0, F) + 1
    return x, torch.randint(C, (n,), generator=rng)


class Pairs(Dataset):
    """A map-style data set of (input, target) pairs, in the form that `make` gives an input."""

    def __init__(self, inputs, targets, make=lambda x: x):
        self.inputs, self.targets, self.make = inputs, targets, make

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return self.make(self.inputs[i]), self.targets[i]


def plain():
    return nn.Sequential(nn.Linear(F, 5), nn.Tanh(), nn.Linear(5, C))


def normed():
    """Two batch norms, one behind the other, and dropout."""
    return nn.Sequential(
        nn.Linear(F, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
        nn.BatchNorm1d(5),
        nn.Linear(5, C),
    )
