"""The learning rate as a function of samples seen."""

import math
from bisect import bisect_right

from gengap.core.recipe import Cosine, Recipe, Schedule, Smith2020, Step, Warmup


def factor(schedule: Schedule, epochs: float, share: float) -> float:
    """Return what a schedule multiplies the base learning rate by.

    Args:
        schedule: of a recipe.
        epochs: samples seen / training samples.
        share: samples seen / samples of the whole budget, from 0 to 1; schedules that do not end ignore it.

    Returns:
        The factor.

    Source:
        "smith2020": Smith, Elsen & De 2020, arXiv:2006.15081: constant to T/2, then halved at T/2 and after every T/20.
    """
    if isinstance(schedule, Step):
        return schedule.factor ** bisect_right(schedule.milestones, epochs)
    if isinstance(schedule, Cosine):
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
    if isinstance(schedule, Smith2020):
        # a rounding error below the border would delay a halving by one step
        halvings = 0 if share < 0.5 else min(10, math.floor((share - 0.5) * 20 + 1e-9) + 1)
        return 2.0**-halvings
    return 1.0


def warmup_factor(warmup: Warmup | None, epochs: float) -> float:
    """Return what a warm-up multiplies the scheduled learning rate by."""
    if warmup is None or epochs >= warmup.epochs:
        return 1.0
    if warmup.shape == "constant":
        return warmup.start
    return warmup.start + (1 - warmup.start) * epochs / warmup.epochs


def learning_rate(recipe: Recipe, seen: int, *, training: int, total: int | None) -> float:
    """Return the learning rate of the update that follows `seen` samples.

    Args:
        recipe: its lr, schedule and warm-up are used.
        seen: samples seen before the update.
        training: size of the training set, N.
        total: samples of the whole budget, or None until converged.

    Returns:
        The learning rate.
    """
    epochs = seen / training
    share = seen / total if total else 0.0
    return recipe.lr * factor(recipe.schedule, epochs, share) * warmup_factor(recipe.warmup, epochs)


def is_constant(recipe: Recipe) -> bool:
    """Tell whether the learning rate never changes."""
    return recipe.schedule.name == "constant" and recipe.warmup is None
