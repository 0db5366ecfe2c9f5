"""Sound loops of forms that are easily taken for faults."""

from copy import deepcopy

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, TensorDataset

from gengap.nets.norms import GhostBatchNorm1d


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Dropout(0.3))
        self.last = nn.Linear(10, 4)

    def forward(self, x):
        return self.last(checkpoint(self.first, x, use_reentrant=False))


def make_checkpointed():
    return Checkpointed()


def make_model():
    return nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.ReLU(), nn.Dropout(0.3), nn.Linear(10, 4))


def make_ghost_model():
    return nn.Sequential(nn.Linear(6, 10), GhostBatchNorm1d(10, ghost_size=2), nn.ReLU(), nn.Linear(10, 4))


def make_large_model():
    return nn.Sequential(nn.Linear(6, 500), nn.ReLU(), nn.Linear(500, 4))


class Augmented(Dataset):
    """Noise on every sample, from the global generator."""

    def __init__(self):
        rng = torch.Generator().manual_seed(3)
        self.inputs, self.targets = torch.randn(40, 6, generator=rng), torch.randint(4, (40,), generator=rng)

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return self.inputs[i] + torch.randn(6), self.targets[i]


def make_data():
    plain = Augmented()
    return TensorDataset(plain.inputs, plain.targets)


def summed(model, window):
    """Backward passes of one update."""
    count = sum(len(y) for _, y in window)
    for x, y in window:
        (nn.functional.cross_entropy(model(x), y, reduction="sum") / count).backward()


def windows(loader, accumulate):
    """Looking one batch ahead, as accelerate does, to know which is the last."""
    window, batches = [], iter(loader)
    ahead = next(batches, None)
    while ahead is not None:
        batch, ahead = ahead, next(batches, None)
        window.append(batch)
        if len(window) == accumulate or ahead is None:
            yield window
            window = []


def looking_ahead(model, data, *, batch_size, accumulate=1, epochs=1):
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    for _ in range(epochs):
        for window in windows(DataLoader(data, batch_size, shuffle=True, num_workers=2), accumulate):
            optimizer.zero_grad()
            summed(model, window)
            optimizer.step()


def in_chunks(model, data, *, batch_size, accumulate=1, epochs=1):
    """The loader gives the whole batch, which is cut."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model)
    for _ in range(epochs):
        for x, y in DataLoader(data, batch_size * accumulate, shuffle=True):
            summed(compiled, list(zip(x.split(batch_size), y.split(batch_size), strict=True)))
            nn.utils.clip_grad_value_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()


def averaging(model, data, *, batch_size, accumulate=1, epochs=1):
    """Two optimizers, a mean of weights that is evaluated, and a chain of schedulers."""
    average = deepcopy(model)
    body, head = list(model.parameters())[:-2], list(model.parameters())[-2:]
    optimizers = [torch.optim.SGD(body, lr=0.1), torch.optim.Adam(head, lr=0.1)]
    schedules = [
        lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=1), lr_scheduler.CosineAnnealingLR(o, 5)], [1]
        )
        for o in optimizers
    ]
    for _ in range(epochs):
        model.train()
        for window in windows(DataLoader(data, batch_size, shuffle=True), accumulate):
            summed(model, window)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            with torch.no_grad():
                for mean, p in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(p, 0.1)
        model.eval()
        with torch.no_grad():
            for x, _ in DataLoader(data, 8):
                average(x), model(x)


def one_cycle(model, data, *, batch_size, accumulate=1, epochs=1):
    """One epoch-long list of batches, and updates that begin with zero_grad."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(data, batch_size, shuffle=True)
    updates = epochs * -(-len(loader) // accumulate)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=updates + 1)
    for _ in range(epochs):
        for window in windows(loader, accumulate):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                summed(model, window)
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
            schedule.step()
