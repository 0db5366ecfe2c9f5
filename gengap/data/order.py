"""Which sample when. Batch size has no part in it: batches are cut from the permutation of the epoch."""

import torch
from torch import Generator, Tensor

from gengap.core.errors import BadInput
from gengap.core.seeds import stream


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """Give the order of the samples in one epoch; it depends on nothing but the arguments.

    Args:
        seed: the run's seed.
        epoch: which epoch, from 0.
        n: training samples, >= 1.

    Returns:
        Every index 0 .. n - 1 once; int64 of shape (n,), on the CPU.

    Raises:
        BadInput: `epoch` is negative or `n` not positive.
    """
    if epoch < 0 or n < 1:
        raise BadInput(f"there is no order for epoch {epoch} of {n} samples; epochs count from 0, samples from 1")
    return torch.randperm(n, generator=Generator().manual_seed(stream(seed, "order", epoch)))


def subset(seed: int, n: int, size: int) -> Tensor:
    """Choose samples to measure on: fixed by the arguments, without repetition, and a smaller one is part of a larger.

    Args:
        seed: the seed that fixes the choice.
        n: samples to choose from, >= 1.
        size: how many, 1 to n.

    Returns:
        The chosen indices in ascending order; int64 of shape (size,), on the CPU.

    Raises:
        BadInput: `size` is not in 1 .. n.
    """
    if not 1 <= size <= n:
        raise BadInput(f"cannot choose {size} of {n} samples; choose 1 to {n}")
    return torch.randperm(n, generator=Generator().manual_seed(stream(seed, "subset")))[:size].sort().values
