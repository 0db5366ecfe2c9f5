"""The Gaussian task of Smith & Le 2018, arXiv:1710.06451, fig. 1: labels that can be learnt, or only memorised."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.problem.dataset import DataSet

SPLITS = ("train", "test")
Labels = Callable[[Tensor, Generator], Tensor]  # inputs (N, features) -> targets (N,)


def informative(
    root: str | Path | None = None, *, train: int = 200, test: int = 10_000, features: int = 200, seed: int = 0
) -> DataSet:
    """Draw Gaussian inputs whose label is 1 where their components sum to more than 0 (fig. 1b).

    Each feature is standardised on each split (mean 0, mean square 1); labels are computed after that.

    Args:
        root: not used; nothing is read.
        train: training samples, >= 2.
        test: test samples, >= 2.
        features: components of one input, >= 1.
        seed: what everything is drawn from.

    Returns:
        Inputs of shape (N, features), targets 0 and 1; equal for equal arguments.

    Raises:
        BadInput: a size is too small.
    """
    del root
    return _draw("gaussian-informative", (train, test), features, seed, _sign_of_sum)


def random_labels(
    root: str | Path | None = None, *, train: int = 200, test: int = 10_000, features: int = 200, seed: int = 0
) -> DataSet:
    """Draw the inputs of `informative` with the same seed, and every label with a fair coin (fig. 1a).

    Args:
        root: not used; nothing is read.
        train: training samples, >= 2.
        test: test samples, >= 2; their labels are random as well.
        features: components of one input, >= 1.
        seed: what everything is drawn from.

    Returns:
        Inputs of shape (N, features), targets 0 and 1; equal for equal arguments.

    Raises:
        BadInput: a size is too small.
    """
    del root
    return _draw("gaussian-random", (train, test), features, seed, _coin)


def _draw(name: str, sizes: tuple[int, int], features: int, seed: int, label: Labels) -> DataSet:
    """Draw both splits, each from streams of its own."""
    if min(sizes) < 2 or features < 1:
        raise BadInput(
            f"{name} was asked for {sizes[0]} training samples, {sizes[1]} test samples and {features} features; "
            f"standardising needs at least 2 of each sample, and 1 feature"
        )
    splits = []
    for split, size in zip(SPLITS, sizes, strict=True):
        inputs = _standard(
            torch.randn(size, features, generator=_generator(seed, split, "inputs"), dtype=torch.float64)
        )
        splits.append((inputs, label(inputs, _generator(seed, split, "labels"))))
    return DataSet(splits[0], splits[1], 2, name)


def _standard(x: Tensor) -> Tensor:
    """Give each column mean 0 and mean square 1, in float64, then round to float32."""
    x = x - x.mean(0)
    return (x / x.square().mean(0).sqrt()).to(torch.float32)


def _sign_of_sum(inputs: Tensor, rng: Generator) -> Tensor:
    """Label what is handed out: the sum of the rounded numbers, taken in float64."""
    del rng
    return (inputs.double().sum(1) > 0).to(torch.int64)


def _coin(inputs: Tensor, rng: Generator) -> Tensor:
    """Throw a fair coin for every sample."""
    return torch.randint(2, (len(inputs),), generator=rng)


def _generator(seed: int, split: str, part: str) -> Generator:
    """Make the generator of one stream."""
    return Generator().manual_seed(stream(seed, f"gaussian/{split}/{part}"))
