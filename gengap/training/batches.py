"""The batches of an epoch, each the share of one process, augmented."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gengap.core.recipe import Recipe
from gengap.data.order import permutation
from gengap.problem.samples import Samples
from gengap.schedules.batch import epoch_sizes
from gengap.training.minibatch import Minibatch
from gengap.training.ranks import Ranks

Augment = Callable[[Any, Tensor, int], Any]  # (inputs, indices, epoch) -> inputs


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
    parts = [ranks.share(size) for size in sizes]
    lengths = [stop - start for start, stop in parts]
    mine = (
        order
        if ranks.size == 1
        else torch.cat([rows[start:stop] for rows, (start, stop) in zip(order.split(sizes), parts, strict=True)])
    )
    if not sizes:
        return
    columns = zip(train.cut(mine, lengths), mine.split(lengths), sizes, parts, strict=True)
    for i, ((inputs, targets), indices, total, (offset, _)) in enumerate(columns):
        if augment is not None:
            inputs = augment(inputs, indices, epoch)
        yield Minibatch(inputs, targets, indices, epoch, step + i, total, offset)


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
    start, stop = ranks.share(len(train))
    mine = torch.arange(start, stop)
    size = recipe.micro_batch if isinstance(recipe.micro_batch, int) else max(500, int(recipe.batch_size))
    for (inputs, targets), indices in zip(train.batches(size, mine), mine.split(size), strict=True):
        changed = inputs if augment is None else augment(inputs, indices, epoch)
        yield Minibatch(changed, targets, indices, epoch, 0, len(train), int(indices[0]))
