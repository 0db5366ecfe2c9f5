"""The batches of an epoch for all members of a fleet: each in its own order, gathered by one indexed read."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from gengap.data.order import permutation
from gengap.problem.problem import Problem
from gengap.problem.samples import GATHER, InMemory
from gengap.problem.trees import Tree, map_tensors
from gengap.training.fleet_stack import FleetBatch


def held(problem: Problem, which: str) -> InMemory:
    """Give a split that is in memory, as those of a fleet are."""
    samples = problem.samples(which)
    assert isinstance(samples, InMemory)
    return samples


def fleet_batches(
    train: InMemory, seeds: Sequence[int], sizes: Sequence[int], *, epoch: int, position: int
) -> Iterator[FleetBatch]:
    """Cut what is left of an epoch into batches.

    Args:
        train: the training set, on its device.
        seeds: of the K members.
        sizes: samples B of each batch to come.
        epoch: which, from 0.
        position: samples of it that were used already.

    Yields:
        One batch for each size, of shape (K, B, ...): the samples that each member would see alone.
    """
    device = train.targets.device
    known = {seed: permutation(seed, epoch, len(train)) for seed in set(seeds)}
    orders = torch.stack([known[seed] for seed in seeds]).to(device)
    for size, count in blocks(sizes, members=len(seeds)):
        rows = orders[:, position : position + size * count].unflatten(1, (count, size)).transpose(0, 1)
        gather = partial(gathered, rows=rows)
        inputs, targets = map_tensors(gather, train.inputs), gather(train.targets)
        for i in range(count):
            yield FleetBatch(at(inputs, i), targets[i])
        position += size * count


def blocks(sizes: Sequence[int], members: int) -> Iterator[tuple[int, int]]:
    """Put batches of one size together that are gathered at once; yield size and number."""
    for size, alike in groupby(sizes):
        left, most = len(list(alike)), max(1, GATHER // (size * members))
        while left:
            yield size, min(left, most)
            left -= min(left, most)


def gathered(samples: Tensor, rows: Tensor) -> Tensor:
    """Read samples at indices of any shape; several times as fast as indexing with them."""
    return samples.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *samples.shape[1:])


def at(tree: Tree, i: int) -> Tree:
    """Take one batch of a block."""
    return map_tensors(lambda x: x[i], tree)
