"""How long a study will take, from a few updates of each kind on this machine."""

import time
from dataclasses import dataclass

import torch

from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.schedules.budget import evaluation_steps, plan
from gengap.store.store import Store
from gengap.studies.study import Study
from gengap.sweeps.plan import Task, missing, tasks
from gengap.training.solo import find_device, train

ROBUST_EVALUATIONS, PAPER_EVALUATIONS = 45, 15
PROBE_SECONDS = 1.0
SEARCH_SECONDS_PER_WEIGHT = 1e-5  # what L-BFGS-B itself costs over a whole search, measured on 1.5 million weights


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
        A row for every batch size, and one for each measure. Costs a few seconds: some updates of every kind are made.
    """
    problem.check()
    place = find_device(device)
    todo = tasks(study, problem)
    left = missing(todo, store) if store else todo
    rows = []
    for size in sorted({int(task.recipe.batch_size) for task in todo}):
        alike = [task for task in left if task.recipe.batch_size == size]
        rows.append(training_row(study, problem, size, alike, place))
    rows += measure_rows(study, problem, len(left), place)
    return rows


def training_row(study: Study, problem: Problem, size: int, alike: list[Task], place: torch.device) -> Row:
    """Forecast the runs with one batch size."""
    what = f"training, batch {size:,}"
    if not alike:
        return Row(what, 0, 0.0, "all there already")
    per_step, per_evaluation = probe(problem, alike[0].recipe, place)
    numbers = plan(alike[0].recipe, len(problem.samples("train")))
    looks = len(evaluation_steps(numbers.steps, numbers.per_epoch, study.evaluations)) + 1
    seconds = len(alike) * (numbers.steps * per_step + looks * per_evaluation)
    until = "at most " if alike[0].recipe.budget.converged else ""
    return Row(what, len(alike), seconds, f"{until}{numbers.steps:,} steps of {1000 * per_step:.3g} ms each")


def probe(problem: Problem, recipe: Recipe, place: torch.device) -> tuple[float, float]:
    """Measure the seconds of one update and of one evaluation of both splits."""
    steps, run = 2, None
    while run is None or (run.cost.seconds < PROBE_SECONDS and steps < 64):
        short = recipe.changed(budget={"steps": steps}, schedule="constant", warmup=None)
        run = train(problem, short, device=place, evaluations=1)
        steps *= 4
    return run.cost.seconds / run.cost.steps, run.cost.evaluation_seconds / len(run.history)


def measure_rows(study: Study, problem: Problem, runs: int, place: torch.device) -> list[Row]:
    """Forecast sharpness and interpolation."""
    rows, total = [], len(problem.samples("train"))
    params = {name: p.detach() for name, p in problem.model(seed=0, device=place).named_parameters()}
    sharp, path = study.measures.sharpness, study.measures.interpolation
    if sharp and runs:
        used = min(total, sharp.samples or total)
        loss = problem.loss_function("train", batch_norm=sharp.batch_norm, samples=torch.arange(min(used, 1000)))
        loss.value_and_grad(params)
        clock = time.perf_counter()
        loss.value_and_grad(params)
        once = (time.perf_counter() - clock) * used / min(used, 1000)
        evaluations = ROBUST_EVALUATIONS if sharp.search == "robust" else PAPER_EVALUATIONS
        own = SEARCH_SECONDS_PER_WEIGHT * problem.parameters
        detail = f"about {evaluations} loss-and-gradient evaluations on {used:,} samples each"
        rows.append(Row("sharpness", runs, runs * (evaluations * once + own), detail))
    if path and runs:
        losses = [problem.loss_function(split, batch_norm=path.batch_norm) for split in ("train", "test")]
        clock = time.perf_counter()
        for loss in losses:
            loss.value(params)
        once = time.perf_counter() - clock
        pairs = min(path.pairs, runs)
        rows.append(Row("interpolation", pairs, pairs * path.points * once, f"{path.points} points each"))
    return rows
