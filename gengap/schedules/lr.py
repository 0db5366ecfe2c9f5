"""The learning rate as a function of samples seen."""

import math
from bisect import bisect_right

from gengap.core.recipe import Recipe, Schedule, Step, Warmup
from gengap.core.recipe.schedules import Cosine, LrRule, Piecewise, Polynomial, SlowStart, Smith2020

# Akiba, Suzuki & Fukuda 2017, arXiv:1711.04325: epochs of 90 at which a piece begins, and what it multiplies by
SLOW_START = ((0, 0.5), (40, 0.075), (70, 0.01), (85, 0.001))


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
        "slow-start": Akiba, Suzuki & Fukuda 2017, arXiv:1711.04325. "polynomial" with power 2: You, Gitman & Ginsburg 2017,
        arXiv:1708.03888.
    """
    left = 1 - min(share, 1.0)
    match schedule:
        case Step():
            return float(schedule.factor ** bisect_right(schedule.milestones, epochs))
        case Piecewise():
            return (1.0, *schedule.factors)[bisect_right(schedule.milestones, epochs)]
        case Cosine():
            return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * (1 - left))) / 2
        case Polynomial():
            return schedule.final + (1 - schedule.final) * math.pow(left, schedule.power)
        case Smith2020():
            # a rounding error below the border would delay a halving by one step
            halvings = 0 if share < 0.5 else min(10, math.floor((share - 0.5) * 20 + 1e-9) + 1)
            return 2.0**-halvings
        case SlowStart():
            return SLOW_START[bisect_right([start for start, _ in SLOW_START], share * 90 + 1e-9) - 1][1]
        case _:
            return 1.0


def warmup_factor(warmup: Warmup | None, epochs: float, start: float | None = None) -> float:
    """Return what a warm-up multiplies the scheduled learning rate by.

    Args:
        warmup: of a recipe, or None.
        epochs: samples seen / training samples.
        start: factor at the start, where the warm-up begins at the "reference".

    Returns:
        The factor.
    """
    if warmup is None or epochs >= warmup.epochs:
        return 1.0
    first = start if start is not None else float(warmup.start)
    return first if warmup.shape == "constant" else first + (1 - first) * epochs / warmup.epochs


def rule_factor(rule: LrRule | None, batch: int, momentum: float = 0.0) -> float:
    """Return what a scaling rule multiplies the learning rate of the reference batch by.

    Args:
        rule: of a recipe, or None: 1.
        batch: B.
        momentum: m of the run.

    Returns:
        B / reference, or its root, times (1 - m) / (1 - reference momentum) where that is given.

    Source:
        "linear": Goyal et al. 2017, arXiv:1706.02677. "sqrt": Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, eq. 7.
        With momentum: Smith & Le 2018, arXiv:1710.06451, appendix C: lr / (1 - m) is what counts.
    """
    if rule is None:
        return 1.0
    ratio = batch / rule.reference_batch
    scale = ratio if rule.name == "linear" else math.sqrt(ratio)
    return scale if rule.reference_momentum is None else scale * (1 - momentum) / (1 - rule.reference_momentum)


def scaled_lr(recipe: Recipe) -> float:
    """Return the base learning rate of a recipe with its batch size as a number, its scaling rule applied."""
    return recipe.lr * rule_factor(recipe.lr_rule, int(recipe.batch_size), recipe.momentum)


def epochs_of(recipe: Recipe, seen: int, *, training: int, total: int | None) -> float:
    """Return the epochs that a recipe's milestones are given in, of the reference batch where the regime is adapted."""
    if recipe.regime_adaptation and recipe.budget.epochs and total:
        # of the budget, as ragged batches make a stretched epoch other than B / reference; whole numbers first, to be exact
        return seen * recipe.budget.epochs / total
    return seen / training


def learning_rate(recipe: Recipe, seen: int, *, training: int, total: int | None) -> float:
    """Return the learning rate of the update that follows `seen` samples.

    Args:
        recipe: its lr, lr_rule, schedule, warm-up and regime adaptation are used; the batch size is a number.
        seen: samples seen before the update.
        training: size of the training set, N.
        total: samples of the whole budget, or None until converged.

    Returns:
        The learning rate. A `batch_schedule` does not change it: the scaling rule looks at the first batch.
    """
    share = seen / total if total else 0.0
    epochs = epochs_of(recipe, seen, training=training, total=total)
    base = scaled_lr(recipe)
    start = recipe.lr / base if recipe.warmup and recipe.warmup.start == "reference" else None
    return base * factor(recipe.schedule, epochs, share) * warmup_factor(recipe.warmup, epochs, start)


def is_constant(recipe: Recipe) -> bool:
    """Tell whether the learning rate never changes."""
    return recipe.schedule.name == "constant" and recipe.warmup is None


def told(recipe: Recipe) -> str:
    """Say what a scaling rule makes of the learning rate, or nothing where there is none."""
    rule = recipe.lr_rule
    if rule is None:
        return ""
    momentum = (
        "" if rule.reference_momentum is None else f", momentum {recipe.momentum:g} for {rule.reference_momentum:g}"
    )
    return (
        f"lr {recipe.lr:g} becomes {scaled_lr(recipe):.4g}: {rule.name} rule, batch {recipe.batch_size:,} for "
        f"{rule.reference_batch:,}{momentum}"
    )
