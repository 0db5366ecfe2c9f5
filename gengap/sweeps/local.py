"""Make the runs of a study in this process, one after the other, and keep them in a store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from gengap.core.events import Event, Listener, Message, Progress, silent
from gengap.problem.problem import Problem
from gengap.store.store import Store
from gengap.studies.study import Study
from gengap.sweeps.claims import share_out
from gengap.sweeps.measuring import describe, measure_path, measure_run
from gengap.sweeps.plan import Task, facts, tasks, usable_run
from gengap.sweeps.work import make_one
from gengap.training.ranks import ALONE, Ranks
from gengap.training.solo import CHECKPOINT_SECONDS, find_device


@dataclass(slots=True)
class Tally:
    """What a call of `run_study` did.

    Attributes:
        trained: runs made now.
        reused: runs that were there already, or that another process made meanwhile.
        problems: sentences about runs that diverged or failed.
    """

    trained: int = 0
    reused: int = 0
    problems: list[str] = field(default_factory=list)


def run_study(
    study: Study,
    problem: Problem,
    store: Store,
    *,
    device: str | torch.device = "cpu",
    listen: Listener = silent,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    ranks: Ranks = ALONE,
) -> Tally:
    """Train what is missing, measure what is not measured, and keep all of it.

    A finished run is never trained again. Several processes may work on the same study in the same store: each run is
    made by one of them. A run that diverges or fails is kept with its reason, and the study goes on.

    Args:
        study: grid, measures.
        problem: what is learnt.
        store: where runs are looked up and kept.
        device: where to train and measure.
        listen: told of the progress.
        checkpoint_every: seconds between checkpoints of the run at work.
        ranks: processes that share every batch; this is rank 0, and the others `follow`. A run that raises an error ends
            the study then, because nobody can know how far the others got.

    Returns:
        What was done.

    Raises:
        Interrupted: Ctrl-C; finished runs are kept, and the one at work has a checkpoint.
        BadInput: the problem or a recipe cannot be used; nothing was trained.
    """
    problem.check()
    place = find_device(device)
    todo = tasks(study, problem)
    store.add_problem(problem.fingerprint, facts(problem))
    store.remember("keys", [task.key for task in todo])
    store.remember("variants", {task.key: task.variant for task in todo if task.variant})
    how = {"device": place, "checkpoint_every": checkpoint_every, "ranks": ranks}
    tally, done = Tally(), 0

    def numbered(event: Event) -> None:
        if isinstance(event, Progress):
            event = Progress(
                f"run {done + 1} of {len(todo)}: {event.what}", event.done, event.total, event.unit, event.note
            )
        listen(event)

    def work(task: Task) -> None:
        nonlocal done
        make_run(study, problem, store, task, how=how, listen=numbered, tally=tally)
        measure_run(
            study, problem, store, task.key, device=place, listen=renamed(numbered, describe(task.recipe.model_dump()))
        )
        done += 1

    by_key = {task.key: task for task in todo}
    share_out([[key] for key in by_key], store, lambda granted: work(by_key[granted[0]]), listen=listen)
    spec = study.measures.interpolation
    if spec:
        path = partial(measure_path, spec, problem, store, device=place, listen=listen)
        chosen = {"+".join(keys): keys for keys in pairs(todo, store)[: spec.pairs]}
        share_out([[name] for name in chosen], store, lambda granted: path(chosen[granted[0]]), listen=listen)
    return tally


def make_run(
    study: Study,
    problem: Problem,
    store: Store,
    task: Task,
    *,
    how: Mapping[str, Any],
    listen: Listener,
    tally: Tally,
) -> None:
    """Train one task unless the store has it, and keep the run, whatever its outcome.

    Args:
        study: says how often to evaluate.
        problem: what is learnt.
        store: takes the run and its checkpoints.
        task: which.
        how: arguments of `train`: device, checkpoint_every, ranks.
        listen: told of the progress.
        tally: counts.

    Raises:
        Interrupted: Ctrl-C.
        GengapError: what is wrong with the input or the disk is wrong for all runs: the study ends.
    """
    row = usable_run(store, task.key)
    if row is None:
        how["ranks"].announce(task.key)
        state = store.checkpoint(task.key)
        made = make_one(task, problem, evaluations=study.evaluations, checkpoint=state, listen=listen, **how)
        row = made.row
        store.add_run(row, made.weights)
        tally.trained += 1
    else:
        tally.reused += 1
    if row.outcome != "finished":
        said = f"{describe(row.recipe)}: {row.outcome} at step {row.step:,}: {row.reason}"
        tally.problems.append(said)
        listen(Message(said, warning=True))


def pairs(todo: list[Task], store: Store) -> list[tuple[str, str]]:
    """Pair the finished runs of the two batch sizes by seed, small first; nothing where there are not two sizes."""
    todo = [task for task in todo if not task.variant]
    sizes = sorted({int(task.recipe.batch_size) for task in todo})
    if len(sizes) != 2:
        return []
    by_seed: dict[int, dict[int, str]] = {}
    for task in todo:
        row = store.run(task.key)
        if row is not None and row.outcome == "finished":
            by_seed.setdefault(task.recipe.seed, {})[int(task.recipe.batch_size)] = task.key
    return [(found[sizes[0]], found[sizes[1]]) for _, found in sorted(by_seed.items()) if len(found) == 2]


def renamed(listen: Listener, what: str) -> Listener:
    """Prefix what a measure says with the run it is about."""

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            event = Progress(f"{what}, {event.what}", event.done, event.total, event.unit, event.note)
        listen(event)

    return tell
