"""`gengap.measure`: every measure of one checkpoint, each kept as soon as it is there."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gengap.core.environment import environment
from gengap.core.errors import GengapError, Interrupted, OutOfSpace
from gengap.core.events import Listener, Message, silent
from gengap.core.files import write_text
from gengap.measurement.entry import Measure
from gengap.measurement.folder import DONE, FAILED, Folder, Outcome, now
from gengap.measurement.plan import LeftOut, Plan, Row, make_plan
from gengap.measurement.registry import MEASURES, asked
from gengap.measurement.settings import Settings, in_order
from gengap.measurement.subject import Subject, Trained, load_subject
from gengap.measurement.task import Task, samples_in_use
from gengap.measurement.work import speeds
from gengap.measures.session import measuring
from gengap.problem.problem import Problem
from gengap.report.minimum.document import minimum_document
from gengap.training.solo import find_device

DOCUMENT = "measure.json"
LATE = 1.1  # times the budget, beyond which nothing new is begun


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was found about one checkpoint.

    Attributes:
        document: everything, as a JSON value; its form is described in docs/reference/json.md.
        folder: where the measures and the report lie; None where they were not kept.
    """

    document: Mapping[str, Any]
    folder: Path | None

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        return str(self.document["sentence"])

    @property
    def failures(self) -> list[str]:
        """Measures that failed, each with its reason."""
        return [f"{one['title']}: {one['reason']}" for one in self.document["measures"] if one["state"] == FAILED]

    def report(self, folder: str | Path) -> Path:
        """Write report.html, figures and CSV into a folder, and return the path of the page."""
        from gengap.report.minimum.page import write_report

        return write_report(self.document, Path(folder))

    def to_dict(self) -> dict[str, Any]:
        """Give the document."""
        return dict(self.document)

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        from gengap.report.minimum.terminal import print_minimum

        text = StringIO()
        print_minimum(self.document, Console(file=text, width=100, color_system=None))
        return text.getvalue().rstrip()

    __repr__ = __str__


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


def measure(
    problem: Problem,
    checkpoint: str | Path | Trained,
    *,
    only: Sequence[str] | None = None,
    initial: str | Path | None = None,
    second: str | Path | Trained | None = None,
    trajectory: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    **more: Any,
) -> Measurement:
    """Take every measure of a checkpoint, each with its error and its cost.

    Args:
        problem: what was learnt.
        checkpoint: a file or folder as `gengap.load_checkpoint` takes it, or a run.
        only: groups of measures ("loss", "distance", "sharpness", "hessian", "noise", "landscape", "evidence",
            "reparametrisation"); by default all but the last two.
        initial: the checkpoint the training began with, where it is not kept beside the end.
        second: another checkpoint of the same network: the path to it is measured.
        trajectory: folder of snapshots of the training; by default `snapshots` beside the checkpoint, where it is.
        out: folder for the measures; those in it are used again with `resume`. None: nothing is kept.
        device: where to measure.
        more: `radii`, `samples`, `batch_norm`, `params`, `momentum`, `seed`, `memory_limit`, `budget` as in
            `gengap.measurement.settings.Settings`; `resume` (False); `listen`, told of the progress.

    Returns:
        The measurement. `print` shows it, `.report(folder)` writes the page. A measure that fails is recorded with its
        reason, and the others go on.

    Raises:
        BadInput: an argument cannot be used.
        Interrupted: Ctrl-C; with `out` what was finished is kept.
    """
    listen, resume = more.pop("listen", silent), more.pop("resume", False)
    settings = Settings(**more) if only is None else Settings(groups=in_order(only), **more)
    subject = load_subject(
        problem, checkpoint, initial=initial, second=second, trajectory=trajectory, device=find_device(device)
    )
    if out is not None:
        return take(prepare(subject, settings, Path(out), resume=resume), listen=listen)
    with TemporaryDirectory(prefix="gengap-") as folder:
        made = take(prepare(subject, settings, Path(folder)), listen=listen)
    return Measurement(made.document, None)


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
            limit is too low, or the folder holds other measures.
    """
    began = time.perf_counter()
    subject.problem.check()
    folder = Folder(out, subject.fingerprint, resume=resume)
    task = Task(subject, settings, samples_in_use(subject, settings))
    limit, only = settings.memory_limit, settings.only
    with measuring(task.loss(), subject.params, passes="gradient", only=only, memory_limit=limit):
        pass
    measures = asked(task)
    found = speeds(task, products=any(m.work(task).products for m in measures))

    def kept(one: Measure, on: Task) -> bool:
        return folder.find(one.name, settings_of(one, on)) is not None

    plan = make_plan(task, measures, found, spent=time.perf_counter() - began, kept=kept)
    return Prepared(task.on(plan.samples), plan, folder, began)


def settings_of(measure: Measure, task: Task) -> dict[str, Any]:
    """List what a number depends on beside the checkpoint."""
    settings = task.settings
    shared = {"samples": task.samples, "params": list(settings.params), "seed": settings.seed}
    return measure.settings(task) | shared | {"batch_norm": task.conditions["batch_norm"]}


def take(prepared: Prepared, *, listen: Listener = silent, command: str = "") -> Measurement:
    """Take the measures of a plan.

    Args:
        prepared: by `prepare`.
        listen: told of the progress.
        command: the command line, for the report.

    Returns:
        What was found.

    Raises:
        Interrupted: Ctrl-C; the measures that were finished are in the folder.
        OutOfSpace: the disk is full.
    """
    outcomes: list[Outcome] = []
    left_out = list(prepared.plan.left_out)
    for row in prepared.plan.rows:
        why = too_late(prepared, row)
        if why:
            left_out.append(LeftOut(row.name, row.title, why))
            continue
        try:
            outcomes.append(take_one(prepared, row, listen))
        except (KeyboardInterrupt, Interrupted) as error:
            total = len(prepared.plan.rows)
            raise Interrupted(f"interrupted in {row.title!r}; {len(outcomes)} of {total} measures are there") from error
    made = Measurement(document_of(prepared, outcomes, left_out, command), prepared.folder.path)
    text = json.dumps(made.document, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(prepared.folder.path / DOCUMENT, text)
    return made


def too_late(prepared: Prepared, row: Row) -> str:
    """Say why a planned measure is not begun any more, or nothing."""
    budget, spent = prepared.task.settings.budget, time.perf_counter() - prepared.began
    if budget is None or not row.seconds or spent + row.seconds <= LATE * budget:
        return ""
    return f"the measures before it took {spent:.2g} s of the budget of {budget:g} s, and it would take about {row.seconds:.2g} s"


def take_one(prepared: Prepared, row: Row, listen: Listener) -> Outcome:
    """Take one measure and write it, or find it in the folder."""
    measure = MEASURES[row.name]
    task = replace(prepared.task, listen=listen, folder=prepared.folder.path / "points")
    settings = settings_of(measure, task)
    there = prepared.folder.find(measure.name, settings)
    if there is not None:
        return there
    began = time.perf_counter()
    record, text, reason = attempt(measure, task)
    outcome = Outcome(
        name=measure.name,
        group=measure.group,
        title=measure.title,
        state=FAILED if record is None else DONE,
        reason=reason,
        settings=settings,
        record=record,
        text=text,
        conditions=task.conditions,
        seconds=time.perf_counter() - began,
        forecast=row.seconds,
        created=now(),
    )
    prepared.folder.add(outcome)
    said = f"no {measure.title.lower()}: {reason}" if reason else text.partition("\n")[0]
    listen(Message(said, warning=bool(reason)))
    return outcome


def attempt(measure: Measure, task: Task) -> tuple[Mapping[str, Any] | None, str, str]:
    """Take a measure: its record and its words, or None and the reason why there is none.

    Args:
        measure: which.
        task: of what.

    Returns:
        Record, words, reason.

    Raises:
        OutOfSpace: the disk is full.
        Interrupted: Ctrl-C, and the measure has kept what it had.
    """
    try:
        record, text = measure.take(task)
    except (OutOfSpace, Interrupted):
        raise
    except (torch.OutOfMemoryError, MemoryError):
        return (
            None,
            "",
            "there is not enough memory; give a smaller --memory-limit, or measure fewer samples by --samples",
        )
    except Exception as error:  # a user's network may raise anything, and the other measures go on
        text = str(error).strip().partition("\n")[0]
        known = isinstance(error, GengapError | ArithmeticError)
        return None, "", text if known and text else f"{type(error).__name__}: {text}"
    return record, text, ""


def document_of(
    prepared: Prepared, outcomes: Sequence[Outcome], left_out: Sequence[LeftOut], command: str
) -> dict[str, Any]:
    """Assemble the document."""
    plan = prepared.plan.to_dict() | {"left_out": [{"title": one.title, "why": one.why} for one in left_out]}
    return minimum_document(
        facts=prepared.task.subject.facts,
        settings=prepared.task.settings.to_dict(),
        measures=[outcome.to_dict() for outcome in outcomes],
        plan=plan,
        environment=environment() | {"threads": torch.get_num_threads(), "device": str(prepared.task.subject.device)},
        command=command,
    )
