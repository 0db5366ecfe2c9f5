"""The batch size as a function of samples seen."""

import math
from bisect import bisect_right
from collections.abc import Iterator

from gengap.core.recipe import Recipe
from gengap.core.recipe.schedules import BatchDynamic, BatchGrowth, BatchStep, BatchSwitch


def batch_size_at(recipe: Recipe, epochs: float, *, training: int, current: int | None = None) -> int:
    """Return the size of the batch of an update.

    Args:
        recipe: with its first batch size as a number.
        epochs: samples seen before the update / training samples.
        training: size of the training set, N: the largest batch.
        current: size at the start of the epoch, for a dynamic schedule, which goes by what it measured.

    Returns:
        B, from 1 to N.

    Source:
        "step": Smith et al. 2018, arXiv:1711.00489. "geometric": Friedlander & Schmidt 2012, arXiv:1104.2373.
        "dynamic": Byrd, Chin, Nocedal & Wu 2012, Sample size selection in optimization methods for machine learning.
    """
    first, schedule = int(recipe.batch_size), recipe.batch_schedule
    limit = (
        training if schedule is None or isinstance(schedule, BatchSwitch) else min(schedule.limit or training, training)
    )
    match schedule:
        case BatchStep():
            size: float = first * schedule.factor ** bisect_right(schedule.milestones, epochs)
        case BatchSwitch():
            size = (first, *schedule.sizes)[bisect_right(schedule.milestones, epochs)]
        case BatchGrowth():
            grown = math.log(first) + epochs * math.log(schedule.growth)
            size = math.exp(min(grown, math.log(limit) + 1))  # no overflow beyond the limit
        case BatchDynamic():
            size = first if current is None else current
        case _:
            size = first
    return max(1, min(round(size), max(limit, min(first, training))))


def wanted_size(schedule: BatchDynamic, current: int, *, trace: float, squared_norm: float, training: int) -> int:
    """Return the batch that a dynamic schedule goes on with.

    Args:
        schedule: of a recipe.
        current: B of the epoch before.
        trace: estimate of tr(Sigma), the summed variance of the gradients of single samples.
        squared_norm: estimate of |G|^2; where it is not above 0 noise hides the gradient, and the batch grows all it may.
        training: N.

    Returns:
        tr(Sigma) / (theta^2 |G|^2), not below `current`, not above `growth` times it nor the limit.

    Source:
        Byrd, Chin, Nocedal & Wu 2012, eqs. 3.3 and 3.12.
    """
    most = min(schedule.growth * current, schedule.limit or training, training)
    wanted = trace / (schedule.theta**2 * squared_norm) if squared_norm > 0 else math.inf
    return max(current, math.floor(min(most, max(wanted, 0.0))))


def epoch_sizes(
    recipe: Recipe, epoch: int, *, training: int, position: int = 0, current: int | None = None
) -> Iterator[int]:
    """Cut the rest of an epoch into batches.

    Args:
        recipe: with its first batch size as a number.
        epoch: which, from 0.
        training: N.
        position: samples of the epoch that were used already.
        current: see `batch_size_at`.

    Yields:
        Sizes that fill the epoch; the last may be smaller, or is left out with `drop_last`.
    """
    while position < training:
        size = batch_size_at(recipe, epoch + position / training, training=training, current=current)
        if training - position < size:
            if recipe.drop_last:
                return
            size = training - position
        yield size
        position += size
