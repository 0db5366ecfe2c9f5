"""Networks and batches that the objectives are tried on, in float64."""

import torch
from torch import nn

B, FEATURES, CLASSES = 12, 6, 4


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n=B, classes=CLASSES):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(1))


def fresh(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double().train()


def mlp():
    return fresh(lambda: nn.Sequential(nn.Linear(FEATURES, 9), nn.Tanh(), nn.Linear(9, CLASSES)))


def normed():
    return fresh(lambda: nn.Sequential(nn.Linear(FEATURES, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, CLASSES)))


class Words(nn.Module):
    """Takes word numbers and a shift of their embeddings, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.embed, self.out, self.seen = nn.Embedding(10, 5), nn.Linear(5, CLASSES), []

    def forward(self, words, shift):
        self.seen.append((words, shift))
        return self.out(torch.tanh(self.embed(words) + shift))


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}
