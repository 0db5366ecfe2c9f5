"""Three problems that every optimizer must solve: least squares, logistic regression, a small network."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional as F


class Problem:
    """A model, its data and its mean loss; `lowest` comes from an oracle, or is None."""

    def __init__(self, dtype, lowest=None):
        self.dtype, self.lowest = dtype, lowest

    def model(self):
        torch_model = self.network().to(self.dtype)
        rng = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in torch_model.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=rng, dtype=torch.float64))
        return torch_model

    def closure(self, model):
        x, y = (t.to(self.dtype) if t.is_floating_point() else t for t in (self.x, self.y))

        def closure():
            model.zero_grad()
            loss = self.loss(model(x), y)
            loss.backward()
            return loss

        return closure


class LeastSquares(Problem):
    likelihood = "gaussian"

    def __init__(self, dtype=torch.float64):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(40, 4)) * np.array([1.0, 0.7, 0.5, 1.3])
        y = x @ rng.normal(size=(4, 3)) + 0.5 + 0.1 * rng.normal(size=(40, 3))
        homogeneous = np.hstack([x, np.ones((40, 1))])
        best, *_ = np.linalg.lstsq(homogeneous, y)
        super().__init__(dtype, 0.5 * np.square(homogeneous @ best - y).sum(1).mean())
        self.x, self.y = torch.tensor(x), torch.tensor(y)

    def network(self):
        return nn.Linear(4, 3)

    def loss(self, outputs, y):
        return 0.5 * (outputs - y).square().sum(1).mean()


class Logistic(Problem):
    likelihood = "softmax"

    def __init__(self, dtype=torch.float64):
        rng = np.random.default_rng(1)
        x = rng.normal(size=(60, 4))
        y = (x @ rng.normal(size=(4, 3)) + 1.5 * rng.gumbel(size=(60, 3))).argmax(1)

        def mean_loss(flat):
            logits = x @ flat[:12].reshape(3, 4).T + flat[12:]
            return (np.log(np.exp(logits).sum(1)) - logits[np.arange(60), y]).mean()

        super().__init__(dtype, minimize(mean_loss, np.zeros(15), tol=1e-10).fun)
        self.x, self.y = torch.tensor(x), torch.tensor(y)

    def network(self):
        return nn.Linear(4, 3)

    def loss(self, outputs, y):
        return F.cross_entropy(outputs, y)


class Rings(Problem):
    """Two classes, one inside the other: no straight line tells them apart, so the hidden layer is needed."""

    likelihood = "softmax"

    def __init__(self, dtype=torch.float64):
        super().__init__(dtype)
        rng = np.random.default_rng(2)
        angle, inside = rng.uniform(0, 2 * np.pi, 60), np.arange(60) % 2
        radius = np.where(inside, 0.5, 1.5) + 0.1 * rng.normal(size=60)
        self.x = torch.tensor(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))
        self.y = torch.tensor(inside)

    def network(self):
        return nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 2))

    def loss(self, outputs, y):
        return F.cross_entropy(outputs, y)


PROBLEMS = {"least-squares": LeastSquares, "logistic": Logistic, "rings": Rings}


@dataclass(frozen=True)
class Case:
    """How an optimizer sits the exam: its arguments and its steps."""

    options: dict
    steps: int = 120
