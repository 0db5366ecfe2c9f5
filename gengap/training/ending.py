"""When a run ends: its budget is used, its loss no longer falls, or is not finite."""

import math

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.recipe.budget import Converged
from gengap.schedules.budget import Plan
from gengap.training.run import Outcome, Point


def check_start(start: Point) -> None:
    """Refuse to train a network whose loss is not finite to begin with.

    Args:
        start: the untrained network.

    Raises:
        BadInput: a loss is not finite.
    """
    if not (math.isfinite(start.train_loss) and math.isfinite(start.test_loss)):
        raise BadInput(
            f"the loss of the untrained network is {start.train_loss} on the training set and {start.test_loss} "
            f"on the test set; look for inputs that are not finite or outputs that overflow"
        )


def diverged(step: int, value: float) -> Outcome:
    """Describe a loss that is not finite."""
    return Outcome("diverged", step, f"the loss was {value}; try a smaller lr or a warm-up")


def used_up(recipe: Recipe, planned: Plan, *, step: int, epoch: int) -> bool:
    """Tell whether the budget is used at the end of an epoch.

    Args:
        recipe: resolved.
        planned: its plan.
        step: updates made.
        epoch: that ends, from 0.

    Returns:
        Whether this was the last one.
    """
    budget = recipe.budget
    if planned.by_steps:
        return step >= planned.steps
    return epoch + 1 >= (budget.epochs or (budget.converged.max_epochs if budget.converged else 0))


def plateau(rule: Converged | None, mean: float, *, best: float, stale: int, last: bool) -> tuple[float, int, str]:
    """Follow the mean loss of epochs.

    Args:
        rule: of the recipe; None where the budget is another.
        mean: loss of the epoch that ends.
        best: lowest mean before, as far as it counted.
        stale: epochs since then.
        last: whether there are no more epochs.

    Returns:
        `best` and `stale` from now on, and the reason to stop or "".
    """
    if rule is None:
        return best, stale, ""
    best, stale = (mean, 0) if mean < best * (1 - rule.tolerance) else (best, stale + 1)
    if stale >= rule.patience:
        return best, stale, f"converged: no better for {rule.patience} epochs"
    return best, stale, "not converged within its epochs" if last else ""
