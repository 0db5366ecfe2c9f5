"""How many updates a budget gives, and when to look at the model on the way."""

import math
from dataclasses import dataclass

from gengap.core.recipe import Recipe
from gengap.core.recipe.schedules import BatchDynamic
from gengap.schedules.batch import epoch_sizes


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe's budget in numbers.

    Attributes:
        batch_size: B, samples per update; with a batch schedule: of the first.
        per_epoch: updates per epoch, T/epoch; with a batch schedule: in the first.
        steps: updates in all; until converged, or where the batch grows by what is measured: at most.
        samples: samples of the whole budget, or None where nobody knows before.
        by_steps: whether it ends after so many updates, perhaps in the middle of an epoch, and not after whole epochs.
        epoch_ends: updates made at the end of each epoch, where a batch schedule makes them uneven.
    """

    batch_size: int
    per_epoch: int
    steps: int
    samples: int | None
    by_steps: bool = False
    epoch_ends: tuple[int, ...] = ()


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
    recipe = recipe.resolved(training)
    size, budget = int(recipe.batch_size), recipe.budget
    if recipe.batch_schedule:
        return uneven_plan(recipe, training)
    per_epoch = updates(training, size, recipe)
    samples_per_epoch = per_epoch * size if recipe.drop_last else training
    if budget.converged:
        return Plan(size, per_epoch, per_epoch * budget.converged.max_epochs, None)
    if budget.epochs and recipe.regime_adaptation is None:
        return Plan(size, per_epoch, per_epoch * budget.epochs, samples_per_epoch * budget.epochs)
    steps = budget.steps or 0
    if budget.epochs and recipe.regime_adaptation and recipe.quirks:
        steps = budget.epochs * math.ceil(size / recipe.regime_adaptation) * per_epoch
    elif budget.epochs and recipe.regime_adaptation:
        steps = budget.epochs * updates(training, min(recipe.regime_adaptation, training), recipe)
    whole, rest = divmod(steps, per_epoch)
    samples = whole * samples_per_epoch + min(rest * size, samples_per_epoch)
    return Plan(size, per_epoch, steps, samples, by_steps=True)


def updates(training: int, size: int, recipe: Recipe) -> int:
    """Count the updates of an epoch."""
    return training // size if recipe.drop_last else math.ceil(training / size)


def uneven_plan(recipe: Recipe, training: int) -> Plan:
    """Count the updates of a recipe whose batch changes, by cutting its epochs as the training will."""
    budget, dynamic = recipe.budget, isinstance(recipe.batch_schedule, BatchDynamic)
    epochs = budget.epochs or (budget.converged.max_epochs if budget.converged else None)
    ends, samples, epoch = [0], 0, 0
    while epoch < epochs if epochs else ends[-1] < (budget.steps or 0):
        sizes = list(epoch_sizes(recipe, epoch, training=training))
        if budget.steps:
            sizes = sizes[: budget.steps - ends[-1]]
        ends.append(ends[-1] + len(sizes))
        samples += sum(sizes)
        epoch += 1
    known = None if budget.converged or (dynamic and budget.steps) else samples
    size = int(recipe.batch_size)
    return Plan(size, ends[1], ends[-1], known, by_steps=bool(budget.steps), epoch_ends=tuple(ends[1:]))


def updates_in(planned: Plan, recipe: Recipe, epochs: float) -> int:
    """Count the updates in a number of epochs, those of the reference batch where the regime is adapted.

    Args:
        planned: of the recipe.
        recipe: resolved.
        epochs: from the start.

    Returns:
        Updates, rounded; beyond the budget at the pace of its end.
    """
    if recipe.regime_adaptation and recipe.budget.epochs:
        return round(planned.steps * epochs / recipe.budget.epochs)
    ends = (0, *planned.epoch_ends)
    whole = min(int(epochs), len(ends) - 2) if planned.epoch_ends else 0
    pace = ends[whole + 1] - ends[whole] if planned.epoch_ends else planned.per_epoch
    return round(ends[whole] + (epochs - whole) * pace)


def evaluation_steps(planned: Plan, evaluations: int) -> list[int]:
    """Choose the updates after which train and test loss are measured.

    Args:
        planned: says how many updates there are, and which of them end an epoch.
        evaluations: how many measurements at most, beside the one at the start.

    Returns:
        Ascending steps, the last of them `steps`: ends of epochs where there are enough of them, else evenly spaced.
    """
    steps, per_epoch = planned.steps, planned.per_epoch
    if planned.epoch_ends:
        ends = planned.epoch_ends if len(planned.epoch_ends) >= evaluations else tuple(range(1, steps + 1))
        return sorted({ends[max(1, round(len(ends) * i / evaluations)) - 1] for i in range(1, evaluations + 1)})
    unit = per_epoch if steps >= per_epoch * evaluations or steps % per_epoch == 0 else 1
    units = steps // unit
    chosen = {max(1, round(units * i / evaluations)) * unit for i in range(1, evaluations)}
    return sorted(chosen | {steps})
