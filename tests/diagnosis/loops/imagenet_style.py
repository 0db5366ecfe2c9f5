"""Training in the manner of the PyTorch ImageNet example: epochs of images, SGD with a step schedule, validation, DDP.

`fault` plants one fault; everything else is what a user writes.
"""

import contextlib

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def make_model():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(24, 5),
    )


def make_data():
    rng = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(60, 3, 6, 6, generator=rng), torch.randint(5, (60,), generator=rng))


def make_loader(data, batch_size, fault):
    sampler = None
    if dist.is_initialized() and fault != "no sampler":
        sampler = DistributedSampler(data)
    shuffle = sampler is None and fault != "unshuffled"
    return DataLoader(
        data, batch_size, shuffle=shuffle, sampler=sampler, num_workers=2, drop_last=fault == "drop_last"
    ), sampler


def make_optimizer(model, lr, fault):
    modules = list(model.modules())
    spared = [p for m in modules for n, p in m.named_parameters(recurse=False) if n == "bias" or "Norm" in str(type(m))]
    decayed = [p for p in model.parameters() if all(p is not q for q in spared)]
    if fault == "decay":
        return torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    if fault == "forgotten layer":
        decayed = decayed[:-1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr, momentum=0.9)


def train(model, data, *, batch_size, accumulate=1, epochs=1, fault=None):
    if fault == "same seed":
        torch.manual_seed(0)
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    loader, sampler = make_loader(data, batch_size, fault)
    batch = batch_size * accumulate * (1 if fault == "lr without ranks" else ranks)
    optimizer = make_optimizer(model, 0.1 * (1.0 if fault == "constant lr" else batch / 256), fault)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    criterion = nn.CrossEntropyLoss(reduction="sum" if fault == "sum" else "mean")
    if fault == "frozen":
        model[0].requires_grad_(False)
    network = model
    if dist.is_initialized() and fault != "no DDP":
        network = DistributedDataParallel(model)
    for epoch in range(epochs):
        if sampler is not None and fault != "no set_epoch":
            sampler.set_epoch(epoch)
        if fault == "scheduler first":
            scheduler.step()
        train_epoch(loader, network, criterion, optimizer, accumulate, fault)
        validate(data, network, criterion, fault)
        if fault != "scheduler first":
            scheduler.step()


def train_epoch(loader, network, criterion, optimizer, accumulate, fault):
    if fault != "eval":
        network.train()
    if fault == "frozen norm":
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    batches = list(loader)
    accumulate = 1 if fault == "not accumulated" else accumulate
    for first in range(0, len(batches), accumulate):
        window = batches[first : first + accumulate]
        count = sum(len(target) for _, target in window)
        optimizer.zero_grad()
        for images, target in window:
            share = {"sum": 1.0, "ragged": 1 / len(window)}.get(fault, len(target) / count)
            loss = criterion(network(images), target) * share
            loss.backward()
        optimizer.step()


def validate(data, network, criterion, fault):
    if fault != "train mode in validation":
        network.eval()
    # validation on one process, and without DDP's synchronisation of buffers, is enough here
    network = getattr(network, "module", network)
    with torch.no_grad() if fault != "validation with gradients" else contextlib.nullcontext():
        return sum(criterion(network(images), target).item() for images, target in DataLoader(data, 8))
