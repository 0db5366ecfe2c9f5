"""Training that keeps outputs where they are when inputs are disturbed."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.objectives.objective import feed_aside
from gengap.problem.counter_random import normal
from gengap.problem.losses import MeanLoss
from gengap.problem.trees import Tree, feed, leaves, map_tensors

DISTANCES = ("kl", "l2")


class Stability:
    r"""The loss, plus how far Gaussian noise on the inputs moves the outputs.

    .. math::
        J = L(x) + w\,\frac1B \sum_i D(f(x_i), f(x_i + \sigma\,n_i)), \qquad n_i \sim N(0, 1).

    "kl" is the Kullback-Leibler divergence from the softmax of the clean outputs to that of the noisy ones, in nats; a single
    output per sample is taken for the logit of two classes. "l2" is the squared Euclidean distance of the outputs. The gradient
    is taken through both. Batch norm's running averages follow the clean inputs only.

    Noise: with `indices`, what a sample gets depends on seed, epoch and sample alone. Without them, on the number of calls so
    far and the place in the batch; `calls` then belongs into a checkpoint.

    Cost of an update: twice the plain one in time and activations, and 1 to 2 times the inputs for noise.

    Args:
        sigma: standard deviation of the noise, in the scale of the inputs, > 0.
        weight: w, > 0.
        distance: "kl" for classes, "l2" for anything.
        seed: the run's seed.

    Attributes:
        calls: how often it was called without `indices`.

    Raises:
        BadInput: a value out of its range.

    Source:
        Zheng, Song, Leung & Goodfellow 2016, arXiv:1604.04326. For classes they write the cross-entropy of clean and noisy
        outputs, which is this divergence plus the entropy of the clean outputs; and the distance without its square. Tried
        against the generalisation gap in Keskar et al. 2017, arXiv:1609.04836, without success.
    """

    def __init__(self, sigma: float, weight: float, distance: Literal["kl", "l2"] = "kl", *, seed: int = 0) -> None:
        for name, value in (("sigma", sigma), ("weight", weight)):
            if not 0 < value < float("inf"):
                raise BadInput(f"{name} is {value}; give a finite number above 0")
        if distance not in DISTANCES:
            raise BadInput(f"distance is {distance!r}; choose one of: {', '.join(DISTANCES)}")
        self.sigma, self.weight, self.distance, self.seed = sigma, weight, distance, seed
        self.calls = 0

    def __call__(
        self,
        model: nn.Module,
        loss: MeanLoss,
        inputs: Tree,
        targets: Tensor,
        *,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> Tensor:
        """Give loss and penalty.

        Args:
            model: in training mode.
            loss: (outputs, targets) to the mean over samples.
            inputs: a tensor, tuple or dict; its floating tensors get noise.
            targets: of B samples.
            indices: the samples' places in the training set, integers of shape (B,), or None.
            epoch: from 0; counts where `indices` are given.

        Returns:
            A scalar, mean over samples.

        Raises:
            BadInput: no input is floating.
        """
        outputs = feed(model, inputs)
        disturbed = feed_aside(model, self._disturb(inputs, indices, epoch))
        return loss(outputs, targets) + self.weight * moved(outputs, disturbed, self.distance)

    def _disturb(self, inputs: Tree, indices: Tensor | None, epoch: int) -> Tree:
        """Add noise to every floating tensor, each with numbers of its own."""
        tensors = leaves(inputs)
        if not any(x.is_floating_point() for x in tensors):
            raise BadInput("noise cannot be added because no input is a floating tensor; use the plain loss here")
        name = "stability" if indices is not None else "stability/calls"
        rows = torch.arange(len(tensors[0])) if indices is None else indices
        which = self.calls if indices is None else epoch
        self.calls += indices is None
        order = {id(x): i for i, x in enumerate(tensors)}

        def noisy(x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x
            key = stream(self.seed, name, which, order[id(x)])
            return x.add(normal(key, rows.to(x.device), tuple(x.shape[1:]), x.dtype), alpha=self.sigma)

        return map_tensors(noisy, inputs)


def moved(outputs: Tensor, disturbed: Tensor, distance: str) -> Tensor:
    """Say how far outputs moved.

    Args:
        outputs: of clean inputs, shape (B, C), (B, C, ...) with a class axis for every position, or (B,) or (B, 1) logits.
        disturbed: of noisy ones, the same shape.
        distance: "kl" or "l2".

    Returns:
        A scalar: mean over samples and, for "kl", their positions; sum over outputs.
    """
    if distance == "l2":
        return (disturbed - outputs).square().sum() / len(outputs)
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        outputs, disturbed = (F.pad(z.reshape(-1, 1), (1, 0)) for z in (outputs, disturbed))
    clean, noisy = outputs.log_softmax(1), disturbed.log_softmax(1)
    return (clean.exp() * (clean - noisy)).sum(1).mean()
