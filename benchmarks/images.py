"""Data of the shape of MNIST and CIFAR-10: random, so that a benchmark needs no file; speed does not depend on it."""

import torch

import gengap


def random_problem(network: str, shape: tuple[int, ...], samples: int) -> gengap.Problem:
    """Give a network of the catalogue on random images in [0, 1] of ten classes."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(samples, *shape, generator=generator)
    targets = torch.randint(10, (samples,), generator=generator)
    return gengap.Problem(
        model=network, loss="cross_entropy", train=(inputs, targets), test=(inputs[:100], targets[:100])
    )
