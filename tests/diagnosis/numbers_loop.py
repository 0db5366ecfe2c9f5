"""Least squares on five numbers in float64, with accumulation that can be wrong in two ways."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_model():
    return nn.Linear(5, 1, bias=False).double()


def make_data():
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(19, n, generator=rng, dtype=torch.float64) for n in (5, 1))
    return TensorDataset(x, y)


def train(model, data, *, batch_size, accumulate=1, epochs=1, divide=True, steps=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(data, batch_size, shuffle=True)
    for _ in range(epochs):
        for number, (x, y) in enumerate(loader, start=1):
            loss = nn.functional.mse_loss(model(x), y)
            (loss / accumulate if divide else loss).backward()
            if number % accumulate == 0 or number == len(loader):
                optimizer.step()
                optimizer.zero_grad()


def coupled(model, data, *, batch_size, accumulate=1, epochs=1):
    """The target of a sample is half the mean of its batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for x, y in DataLoader(data, batch_size, shuffle=True):
            out = model(x)
            ((out - 0.5 * out.mean()) ** 2 * (1 + y**2)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()


def noisy(model, data, *, batch_size):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in DataLoader(data, batch_size):
            nn.functional.mse_loss(model(x + torch.randn_like(x)), y).backward()
            optimizer.step()
            optimizer.zero_grad()


def endless(model, data, *, batch_size):
    print("begin")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    while True:
        try:
            noisy(model, data, batch_size=batch_size)
        except Exception:  # what a careless loop does
            optimizer.zero_grad()


def wrong_signature(model, *, batch_size):
    return model


def idle(model, data, *, batch_size):
    return model


def broken(model, data, *, batch_size):
    raise RuntimeError("out of coffee")


def with_closure(model, data, *, batch_size):
    optimizer = torch.optim.LBFGS(model.parameters())
    x, y = next(iter(DataLoader(data, batch_size)))
    optimizer.step(lambda: nn.functional.mse_loss(model(x), y))


def make_wide_model():
    return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 1)).double()


def make_model_of_two():
    return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 2)).double()
