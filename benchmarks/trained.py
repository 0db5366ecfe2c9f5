"""A trained F1 for the benchmarks of measures: on MNIST where it is at hand (GENGAP_DATA), else on the digits."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import gengap

EPOCHS = 5


@dataclass(frozen=True, slots=True)
class Trained:
    """A network at a minimum.

    Attributes:
        name: network, data and samples in words.
        problem: what was learnt.
        run: how.
        samples: indices of the training samples to measure on.
    """

    name: str
    problem: gengap.Problem
    run: gengap.Run
    samples: Tensor

    def loss(self) -> Any:
        """Give the loss on the samples, batch norm with its running averages."""
        return self.problem.loss_function("train", buffers=self.run.buffers, samples=self.samples)

    @property
    def arrays(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the samples."""
        inputs, targets = self.problem.train
        return inputs[self.samples], targets[self.samples]

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Give the network in evaluation mode."""
        model = self.problem.model(seed=0)
        model.load_state_dict({**self.run.params, **self.run.buffers})
        return model.eval().to(dtype)


def trained(samples: int, *, quick: bool) -> Trained:
    """Train F1 (a small perceptron where it only has to run) with Adam at batch 256."""
    real = bool(os.environ.get("GENGAP_DATA")) and not quick
    problem = gengap.load("mnist", network="keskar-f1") if real else gengap.load("digits", network="mlp")
    if not real and not quick:
        print("  GENGAP_DATA is not set: measured on the digits instead of MNIST")
    recipe = gengap.Recipe(optimizer="adam", lr=1e-3, batch_size=256, budget={"epochs": EPOCHS}, seed=0)
    count = min(samples, len(problem.train[1]), 100 if quick else samples)
    name = f"{problem.name}, {count:,} samples"
    return Trained(name, problem, gengap.train(problem, recipe, evaluations=1), torch.arange(count))
