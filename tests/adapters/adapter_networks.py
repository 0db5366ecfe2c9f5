"""The same network, samples and plain loop for all adapters."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gengap.measures.noise.monitor import NoiseScaleMonitor

BATCH, PASSES, LR = 4, 3, 0.05
SAMPLES, EPOCHS = 66, 4  # 17 passes an epoch, the last of 2 samples; 6 updates, the last of 2 passes


def network(norm=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Linear(5, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.Tanh(), nn.Linear(6, 3)]
        return nn.Sequential(*parts).double()


def samples(number=SAMPLES):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(number, 5, generator=rng, dtype=torch.float64), torch.randint(3, (number,), generator=rng)


def loader(number=SAMPLES, batch=BATCH, dtype=torch.float64):
    x, y = samples(number)
    return DataLoader(TensorDataset(x.to(dtype), y), batch_size=batch)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).tolist()


def rows(monitor):
    return [[o.step, o.samples, o.squared_gradient_norm, o.trace_covariance, o.B_small] for o in monitor.history]


def plain_loop(*, clip=0.0, epochs=EPOCHS, weights_of=lambda sizes: [1 / PASSES] * len(sizes), own=None):
    """Train by hand; a step is PASSES passes of each rank, of which `own` has the batches of an epoch."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    monitor = NoiseScaleMonitor(model, max_overhead=1.0)
    own = own or [list(loader())]
    for first in [first for _ in range(epochs) for first in range(0, len(own[0]), PASSES)]:
        parts = [part for rank in own for part in rank[first : first + PASSES]]
        sizes = [len(targets) for _, targets in parts]
        weights = [w / len(own) for w in weights_of(sizes)]
        for (inputs, targets), w in zip(parts, weights, strict=True):
            (w * F.cross_entropy(model(inputs), targets)).backward()
        monitor.step(sizes, weights=weights)
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    return rows(monitor), flat(model)
