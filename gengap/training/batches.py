"""The batches of an epoch, each the share of one process, augmented."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gengap.core.recipe import Recipe
from gengap.data.order import permutation
from gengap.problem.samples import Samples
from gengap.schedules.batch import epoch_sizes
from gengap.training.minibatch import Minibatch
from gengap.training.ranks import Ranks

Augment = Callable[..., Any]  # (inputs, indices, epoch, out=where to write) -> inputs


def rest_of_epoch(
    train: Samples,
    recipe: Recipe,
    *,
    epoch: int,
    position: int,
    step: int,
    current: int,
    ranks: Ranks,
    augment: Augment | None,
) -> Iterator[Minibatch]:
    """Cut what is left of an epoch into batches.

    Args:
        train: the training set.
        recipe: with its first batch size as a number.
        epoch: which, from 0.
        position: samples of it that were used already.
        step: updates made before.
        current: batch size at the start of the epoch, for a dynamic batch schedule.
        ranks: the processes that share each batch.
        augment: changes the inputs, or None.

    Yields:
        The share of this process of each batch, in turn; one of no samples where a batch has fewer than there are processes.
    """
    sizes = list(epoch_sizes(recipe, epoch, training=len(train), position=position, current=current))
    order = permutation(recipe.seed, epoch, len(train))[position : position + sum(sizes)]
    if not sizes:
        return
    parts = [shares(recipe, ranks, size) for size in sizes]
    mine, read = order, sizes
    if ranks.size > 1:
        # Where there is nothing for this process it reads one sample and drops it: no data set gives a batch of none.
        rows = [chosen(batch, part) for batch, part in zip(order.split(sizes), parts, strict=True)]
        rows = [found if len(found) else batch[:1] for found, batch in zip(rows, order.split(sizes), strict=True)]
        mine, read = torch.cat(rows), [len(found) for found in rows]
    train = train.for_epoch(recipe.seed, epoch)
    columns = zip(train.cut(mine, read), mine.split(read), sizes, parts, strict=True)
    for i, ((inputs, targets), indices, total, part) in enumerate(columns):
        if augment is not None:
            inputs = augment(inputs, indices, epoch, out=inputs)  # a copy already
        batch = Minibatch(inputs, targets, indices, epoch, step + i, total, part[0][0])
        yield batch if any(stop > start for start, stop in part) else batch.of_none()


def shares(recipe: Recipe, ranks: Ranks, total: int) -> list[tuple[int, int]]:
    """Give the parts of a batch that are this process's: one, or with several workers one of each worker's.

    Args:
        recipe: with its batch as a number.
        ranks: the processes.
        total: samples in the batch.

    Returns:
        Start and stop of each.
    """
    workers = getattr(recipe.method, "workers", 1)
    bounds = [total * k // workers for k in range(workers + 1)]
    found = []
    for low, high in pairwise(bounds):
        start, stop = ranks.share(high - low, kept_together(recipe, high - low))
        found.append((low + start, low + stop))
    return found


def kept_together(recipe: Recipe, total: int) -> int:
    """Give the number of samples that a process gets all of or none: those that batch norm takes for one batch."""
    if not recipe.ghost_batch or recipe.norm_span != "rank":
        return 1
    if recipe.quirks:
        return max(1, math.ceil(total / max(1, int(recipe.batch_size) // recipe.ghost_batch)))
    return recipe.ghost_batch


def chosen(rows: Tensor, parts: Sequence[tuple[int, int]]) -> Tensor:
    """Take parts of a batch."""
    return torch.cat([rows[start:stop] for start, stop in parts])


def whole_set(
    train: Samples, recipe: Recipe, *, epoch: int, ranks: Ranks, augment: Augment | None
) -> Iterator[Minibatch]:
    """Go through the training set once, in its stored order, as parts of one batch.

    Args:
        train: the training set.
        recipe: says how many samples go through the network at once.
        epoch: for the augmentation.
        ranks: the processes that share it.
        augment: changes the inputs, or None.

    Yields:
        Parts whose `total` is the size of the training set.
    """
    size = recipe.micro_batch if isinstance(recipe.micro_batch, int) else max(500, int(recipe.batch_size))
    start, stop = ranks.share(len(train), size)
    mine = torch.arange(start, stop) if stop > start else torch.arange(1)
    passes = math.ceil(math.ceil(len(train) / size) / ranks.size)  # as many on every process
    for (inputs, targets), indices in zip(train.batches(size, mine), mine.split(size), strict=True):
        changed = inputs if augment is None else augment(inputs, indices, epoch, out=inputs)
        batch = Minibatch(changed, targets, indices, epoch, 0, len(train), int(indices[0]))
        passes -= 1
        yield batch if stop > start else batch.of_none()
    for _ in range(passes if recipe.norm_span != "rank" else 0):
        yield batch.of_none()
