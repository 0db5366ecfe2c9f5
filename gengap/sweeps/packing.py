"""From a choice of how runs are made to packs of them."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from itertools import pairwise
from typing import Any

import torch

from gengap.core.recipe import digest
from gengap.core.records import Record
from gengap.problem.problem import Problem
from gengap.sweeps.option_timing import Timing
from gengap.sweeps.plan import Task
from gengap.sweeps.work import Form, Group, Pack
from gengap.training.fleet import fleet_key
from gengap.training.fleet_key import OWN


@dataclass(frozen=True, slots=True)
class Choice(Record):
    """How to make the runs of a sweep.

    Attributes:
        form: "fleet" where any runs are trained as fleets, else "solo".
        workers: processes; 1: this one alone.
        fleet_size: members of the largest fleet, at most; 1 for "solo".
        why: one sentence with the numbers.
        timings: what was timed.
        sizes: members of a fleet, at most, by `kind_of` a run; 1: alone.
        seconds: of a run made so, by `kind_of` a run.
    """

    form: Form
    workers: int
    fleet_size: int
    why: str
    timings: tuple[Timing, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def kind_of(problem: Problem, task: Task, *, device: str | torch.device = "cpu") -> tuple[str, bool]:
    """Name what decides the cost of a run, and tell whether such runs can be trained as a fleet."""
    key: Hashable | None = fleet_key(problem, task.recipe, device=device)
    rest = task.recipe.model_dump(mode="json", exclude=OWN)
    return digest([str(key), rest]), key is not None


def parted(tasks: Sequence[Task], size: int) -> list[tuple[Task, ...]]:
    """Part runs into as few packs as a size allows, as equal as can be."""
    count = math.ceil(len(tasks) / size)
    bounds = [len(tasks) * i // count for i in range(count + 1)] if count else [0]
    return [tuple(tasks[low:high]) for low, high in pairwise(bounds)]


def makespan(loads: Sequence[float], workers: int) -> float:
    """Give the time until all are done, when each worker takes the longest that is left as soon as it is free."""
    free = [0.0] * workers
    for load in sorted(loads, reverse=True):
        heapreplace(free, free[0] + load)
    return max(free)


def groups_of(
    problem: Problem, tasks: Sequence[Task], choice: Choice, *, device: str | torch.device = "cpu"
) -> list[Group]:
    """Part runs into what is made in one go.

    Args:
        problem: what they learn.
        tasks: the runs; others than those chosen for may be among them, and are made alone where their kind was not.
        choice: from `choose`.
        device: where they will be trained.

    Returns:
        Forms and runs; every run once, what takes longest first.
    """
    kinds: dict[str, list[Task]] = {}
    for task in tasks:
        name = kind_of(problem, task, device=device)[0] if choice.sizes else ""
        kinds.setdefault(name, []).append(task)
    found: list[tuple[float, Group]] = []
    for name, alike in kinds.items():
        for part in parted(alike, choice.sizes.get(name, 1)):
            found.append((len(part) * choice.seconds.get(name, 0.0), ("fleet" if len(part) > 1 else "solo", part)))
    return [group for _, group in sorted(found, key=lambda one: -one[0])]


def packs_of(problem: Problem, tasks: Sequence[Task], choice: Choice, **how: Any) -> list[Pack]:
    """Give the packs that engines take: see `groups_of`.

    Args:
        problem: what the runs learn.
        tasks: the runs.
        choice: from `choose`.
        how: evaluations, device, weights and data_root, as in `Pack`.

    Returns:
        The packs.
    """
    groups = groups_of(problem, tasks, choice, device=how.get("device", "cpu"))
    return [Pack(problem, part, form, **how) for form, part in groups]
