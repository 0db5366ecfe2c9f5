"""One small problem and one run of it, for every test of measuring a checkpoint."""

import torch
from torch import nn

import gengap


def points(n, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=rng)
    return x, (x[:, :2].sum(1) > 0).long()


def net():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def normed():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def problem(model=net, loss="cross_entropy", n=60):
    return gengap.Problem(model=model, loss=loss, train=points(n, 0), test=points(40, 1), name="blobs")


def trained(made, seed=0):
    recipe = gengap.Recipe(optimizer="sgd", lr=0.2, batch_size=10, budget={"epochs": 3}, seed=seed)
    return gengap.train(made, recipe, evaluations=1)
