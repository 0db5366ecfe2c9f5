"""What comes before the first measure: everything is looked at, timed and planned, and nothing is written."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput
from gengap.measurement.entry import Measure
from gengap.measurement.folder import Folder
from gengap.measurement.plan import Plan, make_plan
from gengap.measurement.registry import MEASURES, asked
from gengap.measurement.settings import Settings
from gengap.measurement.subject import Subject
from gengap.measurement.task import Task, samples_in_use
from gengap.measurement.work import speeds
from gengap.measures.refused import Refused
from gengap.measures.session import measuring
from gengap.report.minimum.shown import can_be_shown

SHARED = ("seed", "params", "batch_norm")  # settings on which every number depends
OWN = (*SHARED, "radii", "momentum", "l2")  # and those that only some depend on


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Everything that was looked at before the first measure.

    Attributes:
        task: on the samples that are used.
        plan: what is taken.
        folder: takes the measures, and may hold some.
        began: when the budget began, on the clock of `time.perf_counter`.
    """

    task: Task
    plan: Plan
    folder: Folder
    began: float


def prepare(subject: Subject, settings: Settings, out: Path, *, resume: bool = False) -> Prepared:
    """Check everything, time a pass of each kind, and plan what to measure. Nothing is written.

    Args:
        subject: what is measured.
        settings: how.
        out: folder for the measures.
        resume: whether to go on with the measures in it.

    Returns:
        What `take` needs.

    Raises:
        BadInput: the problem cannot be used, its loss is not deterministic, a pattern of names matches nothing, the memory
            limit is too low, the budget is too short for any measure, or the folder holds other measures.
    """
    began = time.perf_counter()
    subject.problem.check()
    task = Task(subject, settings, samples_in_use(subject, settings))
    folder = Folder(out, subject.fingerprint, task.samples, resume=resume)
    check_loss(task)
    folder.drop(lambda one: not can_be_shown(one.to_dict(), facts=subject.facts, settings=settings.to_dict()))
    check_same(folder, task)
    measures = asked(task, also={one.name for one in folder.done})
    found = speeds(task, products=any(m.work(task).products for m in measures))

    def kept(one: Measure, on: Task) -> bool:
        return one.group not in settings.groups or folder.find(one.name, settings_of(one, on)) is not None

    plan = make_plan(task, measures, found, spent=time.perf_counter() - began, kept=kept)
    return Prepared(task.on(plan.samples), plan, folder, began)


def check_loss(task: Task) -> None:
    """Refuse what no measure could use.

    Args:
        task: whose loss it is.

    Raises:
        BadInput: the loss is not deterministic, a pattern of names matches nothing, or the memory limit is too low.
    """
    limit, only = task.settings.memory_limit, task.settings.only
    try:
        with measuring(task.loss(), task.subject.params, passes="gradient", only=only, memory_limit=limit):
            pass
    except Refused as error:
        raise BadInput(error.why) from error


def check_same(folder: Folder, task: Task) -> None:
    """Refuse to put numbers of other settings into a report that holds finished ones.

    Args:
        folder: with what is there.
        task: with the settings of now.

    Raises:
        BadInput: they differ.
    """
    for found in folder.done:
        measure = MEASURES.get(found.name)
        if measure is None:
            continue
        now_set = settings_of(measure, task)
        for name in OWN if measure.group in task.settings.groups else SHARED:
            if name in now_set and found.settings.get(name) != now_set[name]:
                raise BadInput(
                    f"{folder.path} holds {found.title!r} made with {name} {said(found.settings.get(name))} and not "
                    f"{said(now_set[name])}; repeat the settings of before, or choose another folder by --out"
                )


def said(setting: Any) -> str:
    """Write a setting."""
    return (", ".join(map(str, setting)) or "of all") if isinstance(setting, list) else str(setting)


def settings_of(measure: Measure, task: Task) -> dict[str, Any]:
    """List what a number depends on beside the checkpoint."""
    settings = task.settings
    shared = {"samples": task.samples, "params": list(settings.params), "seed": settings.seed}
    return measure.settings(task) | shared | {"batch_norm": task.conditions["batch_norm"]}
