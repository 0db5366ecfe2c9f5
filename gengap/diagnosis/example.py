"""A loop without faults, in the form that the doctor examines: `gengap doctor --train gengap.diagnosis.example:train`.

Copy it, or give your own loop the same three functions.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

from gengap.optim.groups import no_decay_groups

LR, REFERENCE = 0.1, 256  # learning rate at a batch of so many samples; linear in the batch


def make_model() -> nn.Module:
    """Make a fresh network."""
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def make_data() -> Dataset[tuple[Tensor, ...]]:
    """Make the training data."""
    rng = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(200, 8, generator=rng), torch.randint(3, (200,), generator=rng))


def train(
    model: nn.Module, data: Dataset[tuple[Tensor, ...]], *, batch_size: int, accumulate: int = 1, epochs: int = 1
) -> None:
    """Train in place; `batch_size` is of one backward pass of one process, `accumulate` the passes of one update."""
    parallel = dist.is_initialized()
    ranks = dist.get_world_size() if parallel else 1
    sampler: DistributedSampler[tuple[Tensor, ...]] | None = DistributedSampler(data) if parallel else None
    loader = DataLoader(data, batch_size, shuffle=sampler is None, sampler=sampler)
    lr = LR * batch_size * accumulate * ranks / REFERENCE
    optimizer = torch.optim.SGD(no_decay_groups(model, 5e-4), lr=lr, momentum=0.9)
    updates = epochs * -(-len(loader) // accumulate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    wrapped = DistributedDataParallel(model) if parallel else model
    for epoch in range(epochs):
        if sampler:
            sampler.set_epoch(epoch)
        wrapped.train()
        window: list[tuple[Tensor, Tensor]] = []
        for number, batch in enumerate(loader, start=1):
            window.append(batch)
            if len(window) < accumulate and number < len(loader):
                continue
            samples = sum(len(targets) for _, targets in window)
            for inputs, targets in window:
                (F.cross_entropy(wrapped(inputs), targets, reduction="sum") / samples).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            window = []
