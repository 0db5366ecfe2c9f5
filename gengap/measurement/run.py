"""`gengap.measure`: every measure of one checkpoint, each kept as soon as it is there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gengap.core.environment import environment
from gengap.core.errors import Interrupted
from gengap.core.events import Listener, Message, silent
from gengap.core.files import write_text
from gengap.measurement.folder import FAILED
from gengap.measurement.preparation import Prepared, prepare
from gengap.measurement.settings import Settings, in_order
from gengap.measurement.subject import Trained, load_subject
from gengap.measurement.taking import Taking
from gengap.problem.problem import Problem
from gengap.report.minimum.document import minimum_document
from gengap.training.solo import find_device

DOCUMENT = "measure.json"


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
    def interrupted(self) -> str:
        """Where Ctrl-C ended it, or nothing."""
        return str(self.document["interrupted"])

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
        from gengap.report.minimum.terminal import print_minimum
        from gengap.report.terminal import as_text

        return as_text(print_minimum, self.document)

    __repr__ = __str__


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
    with TemporaryDirectory(prefix="gengap-") as spare:
        made = take(prepare(subject, settings, Path(out or spare), resume=resume), listen=listen)
    if made.interrupted:
        raise Interrupted(made.interrupted)
    return made if out is not None else Measurement(made.document, None)


def take(prepared: Prepared, *, listen: Listener = silent, command: str = "") -> Measurement:
    """Take the measures of a plan.

    Args:
        prepared: by `prepare`.
        listen: told of the progress.
        command: the command line, for the report.

    Returns:
        What was found; after Ctrl-C what was found until then.

    Raises:
        Interrupted: Ctrl-C before any measure was finished.
        OutOfSpace: the disk is full.
    """
    for note in prepared.folder.notes:
        listen(Message(note, warning=True))
    taking = Taking(prepared, listen)
    taking.go_through(prepared.plan.rows)
    taking.go_through(prepared.plan.late, again=True)
    made = Measurement(document_of(prepared, taking, command), prepared.folder.path)
    text = json.dumps(made.document, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(prepared.folder.path / DOCUMENT, text)
    return made


def document_of(prepared: Prepared, taking: Taking, command: str) -> dict[str, Any]:
    """Assemble the document."""
    task, plan = prepared.task, prepared.plan
    more = [row for row in taking.rows if row in plan.late]
    shown = replace(plan, rows=(*plan.rows, *more), late=(), missing=tuple(taking.left_out))
    return minimum_document(
        facts=task.subject.facts | {"measured": task.weights},
        settings=task.settings.to_dict(),
        measures=[outcome.to_dict() for outcome in taking.outcomes],
        plan=shown.to_dict(),
        environment=environment() | {"threads": torch.get_num_threads(), "device": str(task.subject.device)},
        command=command,
        interrupted=taking.interrupted,
    )
