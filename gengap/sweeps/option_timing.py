"""Seconds of a run made in different ways, from a few updates on the machine at hand."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gengap.core.errors import Interrupted
from gengap.core.events import Event, Listener, Progress
from gengap.core.recipe import Recipe
from gengap.core.records import Record
from gengap.problem.problem import Problem
from gengap.sweeps.plan import Task, run_key
from gengap.sweeps.short_runs import Costs, part_of, samples_of, short
from gengap.sweeps.work import Form, Pack
from gengap.training.fleet import train_fleet
from gengap.training.loop import BLOCK
from gengap.training.run import Run
from gengap.training.solo import train

FIRST = 3  # updates to see how long they take
SECONDS = 0.4  # of updates that are timed then
MOST_STEPS = 512  # of them
SMALL_LR = 1e-6  # nothing diverges while it is timed


@dataclass(frozen=True, slots=True)
class Timing(Record):
    """What runs of one kind cost when made in one way.

    Attributes:
        batch_size: B of the kind.
        form: "solo" or "fleet".
        fleet_size: members of a fleet; 1 for "solo".
        workers: processes that were at work at once.
        per_update: seconds of one update of one run.
        per_run: seconds of a whole run with its measurements; with several members or workers its share of the time that all of
            them take together.
    """

    batch_size: int
    form: Form
    fleet_size: int
    workers: int
    per_update: float
    per_run: float


class Watch:
    """A listener that notes how long the updates took from one word of progress to the next, and hears none of it itself.

    Args:
        training: size of the training set: progress is told in epochs.
        batch: samples of an update.
    """

    def __init__(self, training: int, batch: int) -> None:
        self._per_epoch = training / batch
        self._last: tuple[float, float] | None = None
        self.paces: list[float] = []

    def __call__(self, event: Event) -> None:
        """Note the pace since the last word, where there were updates enough between."""
        if not isinstance(event, Progress):
            return
        now, done = time.perf_counter(), event.done * self._per_epoch
        if self._last and done - self._last[1] >= BLOCK / 2:
            self.paces.append((now - self._last[0]) / (done - self._last[1]))
        if self._last is None or done - self._last[1] >= BLOCK / 2:
            self._last = now, done


def time_solo(problem: Problem, recipe: Recipe, device: str | torch.device) -> Costs:
    """Time a run alone in this process.

    Args:
        problem: what is learnt.
        recipe: resolved.
        device: where.

    Returns:
        Seconds of its updates and measurements.
    """

    def once(part: Problem, steps: int, listen: Listener) -> list[Run]:
        return [train(part, short(recipe, steps, lr=SMALL_LR), device=device, evaluations=1, listen=listen)]

    return measured(once, problem, int(recipe.batch_size))


def time_fleet(problem: Problem, recipes: Sequence[Recipe], device: str | torch.device) -> Costs:
    """Time a fleet in this process.

    Args:
        problem: what is learnt.
        recipes: of its members, resolved.
        device: where.

    Returns:
        Seconds of the updates and measurements of one member.
    """

    def once(part: Problem, steps: int, listen: Listener) -> list[Run]:
        shortened = [short(recipe, steps, lr=SMALL_LR) for recipe in recipes]
        return train_fleet(part, shortened, device=device, evaluations=1, listen=listen)

    return measured(once, problem, int(recipes[0].batch_size))


def measured(once: Callable[[Problem, int, Listener], list[Run]], problem: Problem, batch: int) -> Costs:
    """Make runs of a few updates to see how many to time, and then those.

    Args:
        once: makes runs of so many updates on a part of the problem.
        problem: the whole.
        batch: samples of an update.

    Returns:
        Seconds of one run. The fastest stretch counts: what else the machine does makes updates longer, never shorter.

    Raises:
        Interrupted: Ctrl-C.
    """
    part, steps, watch = part_of(problem, batch), FIRST, Watch(1, 1)
    for last in (False, True):
        watch = Watch(len(part.samples("train")), batch)
        runs = once(part, steps, watch)
        if any(run.outcome.kind == "interrupted" for run in runs):
            raise Interrupted("interrupted while timing a few updates; nothing was kept")
        spent = sum(run.cost.seconds for run in runs) / steps
        looks = sum(run.cost.evaluation_seconds for run in runs) / (2 * len(runs))
        if not last:
            steps = max(FIRST, min(MOST_STEPS, math.ceil(SECONDS / spent)))
    update = min([spent, *watch.paces]) / len(runs)
    return Costs(update, looks * samples_of(problem) / samples_of(part))


def short_pack(problem: Problem, recipe: Recipe, alone: Costs, *, members: int) -> Pack:
    """Give a pack of a few updates for another process.

    Args:
        problem: what is learnt.
        recipe: of a run.
        alone: costs of one of its members in this process.
        members: of a fleet; 1: a run alone.

    Returns:
        The pack.
    """
    steps = max(8, min(MOST_STEPS, math.ceil(SECONDS / (alone.update * members))))
    recipes = [short(recipe, steps, lr=SMALL_LR, seed=seed) for seed in range(members)]
    tasks = tuple(Task(run_key(problem, one), one) for one in recipes)
    return Pack(problem, tasks, "fleet" if members > 1 else "solo", evaluations=1, weights=False)
