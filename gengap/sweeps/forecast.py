"""How long a study will take, from a few updates of each kind on this machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from gengap.core.errors import Interrupted
from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.schedules.budget import plan
from gengap.store.store import Store
from gengap.studies.study import Study
from gengap.sweeps.plan import Task, missing, tasks
from gengap.sweeps.short_runs import PART, Costs, part_of, samples_of, short
from gengap.training.solo import find_device, train

ROBUST_EVALUATIONS, PAPER_EVALUATIONS = 45, 15
PROBE_SECONDS = 0.5
SEARCH_SECONDS_PER_WEIGHT = 1e-5  # what L-BFGS-B itself costs over a whole search, measured on 1.5 million weights
Kind = tuple[str, int]  # variant, or "" for a cell of the grid, and batch size


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a forecast.

    Attributes:
        what: the kind of work.
        count: how many of them.
        seconds: for all of them.
        detail: in words.
    """

    what: str
    count: int
    seconds: float
    detail: str


def forecast(study: Study, problem: Problem, store: Store | None, *, device: str | torch.device = "cpu") -> list[Row]:
    """Estimate the time of what is still to be done.

    Args:
        study: grid and measures.
        problem: what is learnt.
        store: runs that are there already are not counted; None: nothing is there.
        device: where it would run.

    Returns:
        A row for every batch size and every variant of it, and one for each measure. Costs some updates of each kind, on
        a part of the samples.
    """
    problem.check()
    place = find_device(device)
    todo = tasks(study, problem)
    left = missing(todo, store) if store else todo
    rows = [
        training_row(study, problem, kind, [task for task in left if kind_of(task) == kind], place)
        for kind in kinds(study, todo)
    ]
    rows += measure_rows(study, problem, len(left), place)
    return rows


def kind_of(task: Task) -> Kind:
    """Say what decides the time of a run: its batch size, and how it is trained with it."""
    return task.variant, int(task.recipe.batch_size)


def kinds(study: Study, todo: Sequence[Task]) -> list[Kind]:
    """List what is to be timed: the plain batch sizes, then the variants in the order of the study."""
    order = ["", *(variant.name for variant in study.variant)]
    return sorted({kind_of(task) for task in todo}, key=lambda kind: (order.index(kind[0]), kind[1]))


def training_row(study: Study, problem: Problem, kind: Kind, alike: list[Task], place: torch.device) -> Row:
    """Forecast the runs of one kind."""
    variant, size = kind
    what = f"training, batch {size:,}{f', {variant}' if variant else ''}"
    return runs_row(what, alike, problem, device=place, evaluations=study.evaluations)


def runs_row(
    what: str, alike: Sequence[Task], problem: Problem, *, device: str | torch.device, evaluations: int
) -> Row:
    """Forecast runs that take equally long.

    Args:
        what: they are.
        alike: those that are missing.
        problem: what they learn.
        device: where they would run.
        evaluations: of loss and accuracy in each.

    Returns:
        The row. Costs some updates of the run with the lowest learning rate, which is the least likely to diverge.
    """
    if not alike:
        return Row(what, 0, 0.0, "all there already")
    gentlest = min(alike, key=lambda task: task.recipe.lr)
    once, detail = run_seconds(problem, gentlest.recipe, device, evaluations)
    return Row(what, len(alike), len(alike) * once, detail)


def run_seconds(problem: Problem, recipe: Recipe, device: str | torch.device, evaluations: int) -> tuple[float, str]:
    """Estimate the seconds of one run, with what they are made of.

    Where the batch changes, its first size is timed and time goes by samples: too long for a first batch that the machine
    is not busy with. How far a batch grows that goes by what it measures is not known where the budget is steps.

    Args:
        problem: what is learnt.
        recipe: resolved.
        device: where it would run.
        evaluations: of loss and accuracy on the way.

    Returns:
        Seconds, and the number and length of its updates in words.
    """
    costs, training = probe(problem, recipe, find_device(device)), len(problem.samples("train"))
    until, milliseconds = "at most " if recipe.budget.converged else "", f"{1000 * costs.update:.3g} ms"
    detail = f"{until}{plan(recipe, training).steps:,} steps"
    if recipe.batch_schedule:
        detail += f"; a first one takes {milliseconds}, a larger batch as much longer"
    else:
        detail += f" of {milliseconds} each"
    return costs.per_run(recipe, training, evaluations), detail


def probe(problem: Problem, recipe: Recipe, place: torch.device) -> Costs:
    """Measure the seconds of one update, and those of one evaluation of all splits, on a part of the samples.

    Args:
        problem: what is learnt.
        recipe: resolved.
        place: the device.

    Returns:
        Both.

    Raises:
        Interrupted: Ctrl-C.
    """
    part, steps, run = part_of(problem, int(recipe.batch_size)), 1, None
    while run is None or (run.cost.seconds < PROBE_SECONDS and steps < 64):
        run = train(part, short(recipe, steps), device=place, evaluations=1)
        if run.outcome.kind == "interrupted":
            raise Interrupted("interrupted while timing a few updates; nothing was kept")
        steps *= 4
    per_sample = run.cost.evaluation_seconds / len(run.history) / samples_of(part)
    return Costs(run.cost.seconds / run.cost.steps, per_sample * samples_of(problem))


def measure_rows(study: Study, problem: Problem, runs: int, place: torch.device) -> list[Row]:
    """Forecast sharpness and interpolation."""
    rows, part = [], problem.head(PART, PART)
    params = {name: p.detach() for name, p in problem.model(seed=0, device=place).named_parameters()}
    sharp, path = study.measures.sharpness, study.measures.interpolation
    if sharp and runs:
        total = len(problem.samples("train"))
        used = min(total, sharp.samples or total)
        loss = part.loss_function("train", batch_norm=sharp.batch_norm)
        once = timed(lambda: loss.value_and_grad(params)) * used / len(part.samples("train"))
        evaluations = ROBUST_EVALUATIONS if sharp.search == "robust" else PAPER_EVALUATIONS
        own = SEARCH_SECONDS_PER_WEIGHT * problem.parameters
        detail = f"about {evaluations} loss-and-gradient evaluations on {used:,} samples each"
        rows.append(Row("sharpness", runs, runs * (evaluations * once + own), detail))
    if path and runs:
        losses = [part.loss_function(split, batch_norm=path.batch_norm) for split in ("train", "test")]
        once = sum(timed(partial(loss.value, params)) for loss in losses) * samples_of(problem) / samples_of(part)
        pairs = min(path.pairs, runs)
        rows.append(Row("interpolation", pairs, pairs * path.points * once, f"{path.points} points each"))
    return rows


def timed(work: Callable[[], object]) -> float:
    """Measure the second call of two: the first one warms up."""
    work()
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock
