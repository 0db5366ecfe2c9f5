"""Runs of a few updates that cost per update what whole runs do: what forecasts and plans of sweeps are timed by."""

import math
from dataclasses import dataclass
from typing import Any

from gengap.core.recipe import Recipe
from gengap.core.recipe.methods import ElasticAveraging
from gengap.problem.problem import Problem
from gengap.schedules.budget import evaluation_steps, plan

PART = 500  # samples, at least: of a part of a problem that short runs are made on
BRIEF = {  # nothing that depends on how long a run is; a rate without its warm-up is not scaled, so that it does not diverge
    "schedule": "constant",
    "warmup": None,
    "lr_rule": None,
    "drop_last": True,
    "regime_adaptation": None,
    "batch_schedule": None,
}


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one update, and of one measurement of every sample of all splits, of one run."""

    update: float
    evaluation: float

    def per_run(self, recipe: Recipe, training: int, evaluations: int) -> float:
        """Give the seconds of a whole run; where its batch grows, an update takes as much longer."""
        numbers = plan(recipe, training)
        steps = max(numbers.steps, (numbers.samples or 0) / numbers.batch_size)
        return steps * self.update + (len(evaluation_steps(numbers, evaluations)) + 1) * self.evaluation


def part_of(problem: Problem, size: int) -> Problem:
    """Give some hundred samples of a problem, whole batches of this size."""
    return problem.head(size * math.ceil(PART / size), PART)


def samples_of(problem: Problem) -> int:
    """Count the samples that an evaluation goes through."""
    return sum(len(problem.samples(which)) for which in problem.splits)


def short(recipe: Recipe, steps: int, **fields: Any) -> Recipe:
    """Give a run of a few updates that costs per update what the whole run does.

    Args:
        recipe: of the whole run, resolved.
        steps: updates.
        fields: others that are changed.

    Returns:
        The recipe.
    """
    return recipe.changed(**BRIEF, budget={"steps": steps}, **meeting(recipe), **fields)


def meeting(recipe: Recipe) -> dict[str, Any]:
    """Let workers meet in every update of a short run, which would refuse workers that never do."""
    if not isinstance(recipe.method, ElasticAveraging):
        return {}
    return {"method": recipe.method.model_dump() | {"period": 1}}
