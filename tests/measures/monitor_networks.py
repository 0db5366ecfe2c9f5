"""Networks that are trained while their gradients are watched."""

import torch
from torch import nn

ALWAYS = {"max_overhead": 1.0}


class Drawn(nn.Module):
    """A linear loss: its gradient is the mean of the inputs, whatever the weights."""

    def __init__(self, size=32):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x):
        return x @ self.theta


class Everything(nn.Module):
    """Tied, frozen, unused and embedded weights."""

    def __init__(self, sparse=False):
        super().__init__()
        self.embedding = nn.Embedding(7, 5, sparse=sparse)
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 3)
        self.tied = self.first.weight
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, x):
        h = torch.tanh(self.first(self.embedding(x))) * self.frozen
        return self.second(torch.tanh(h @ self.tied))


def data(samples=24, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(7, (samples,), generator=rng), torch.randint(3, (samples,), generator=rng)


def fresh(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def train(model, monitor, x, *, steps, passes=2):
    for _ in range(steps):
        for part in x.chunk(passes):
            (model(part).square().mean() / passes).backward()
        monitor.step(len(x))
        model.zero_grad()


def observe(monitor, model, steps, *, mean=0.3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        monitor.backward(model(mean + torch.randn(16, 32, generator=rng, dtype=torch.float64)))
        model.zero_grad()
