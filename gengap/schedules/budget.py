"""How many updates a budget gives, and when to look at the model on the way."""

import math
from dataclasses import dataclass

from gengap.core.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe's budget in numbers.

    Attributes:
        batch_size: B, samples per update.
        per_epoch: updates per epoch, T/epoch.
        steps: updates in all; until converged: at most.
        samples: samples of the whole budget, or None until converged.
    """

    batch_size: int
    per_epoch: int
    steps: int
    samples: int | None


def plan(recipe: Recipe, training: int) -> Plan:
    """Count the updates of a recipe on a training set.

    Args:
        recipe: with any form of batch size and budget.
        training: size of the training set, N.

    Returns:
        The plan.

    Raises:
        BadInput: the batch is larger than the training set.
    """
    size = int(recipe.resolved(training).batch_size)
    per_epoch = training // size if recipe.drop_last else math.ceil(training / size)
    samples_per_epoch = per_epoch * size if recipe.drop_last else training
    budget = recipe.budget
    if budget.converged:
        return Plan(size, per_epoch, per_epoch * budget.converged.max_epochs, None)
    if budget.epochs:
        return Plan(size, per_epoch, per_epoch * budget.epochs, samples_per_epoch * budget.epochs)
    steps = budget.steps or 0
    whole, rest = divmod(steps, per_epoch)
    return Plan(size, per_epoch, steps, whole * samples_per_epoch + min(rest * size, samples_per_epoch))


def evaluation_steps(steps: int, per_epoch: int, evaluations: int) -> list[int]:
    """Choose the updates after which train and test loss are measured.

    Args:
        steps: updates in all.
        per_epoch: updates per epoch.
        evaluations: how many measurements at most, beside the one at the start.

    Returns:
        Ascending steps, the last of them `steps`: ends of epochs where there are enough of them, else evenly spaced.
    """
    unit = per_epoch if steps >= per_epoch * evaluations or steps % per_epoch == 0 else 1
    units = steps // unit
    chosen = {max(1, round(units * i / evaluations)) * unit for i in range(1, evaluations)}
    return sorted(chosen | {steps})
