"""Measures taken one after another, each kept as soon as it is there."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from gengap.core.errors import GengapError, Interrupted, OutOfSpace
from gengap.core.events import Listener, Message
from gengap.measurement.entry import Measure
from gengap.measurement.folder import DONE, FAILED, Outcome, now
from gengap.measurement.plan import LeftOut, Row, about, chosen_time, too_dear
from gengap.measurement.preparation import Prepared, settings_of
from gengap.measurement.registry import MEASURES
from gengap.measurement.task import Task
from gengap.measures.refused import Refused

LATE = 1.1  # times the budget, beyond which nothing new is begun


class Taking:
    """How far a plan has come.

    Attributes:
        rows: measures that were taken, or failed, in their order.
        outcomes: what they gave.
        left_out: measures that were not begun, or not finished.
        interrupted: where Ctrl-C ended it, or "".

    Args:
        prepared: by `prepare`.
        listen: told of the progress.
    """

    def __init__(self, prepared: Prepared, listen: Listener) -> None:
        self._prepared, self._listen = prepared, listen
        self.rows: list[Row] = []
        self.outcomes: list[Outcome] = []
        self.left_out = list(prepared.plan.missing)
        self.interrupted = ""

    def go_through(self, rows: Sequence[Row], *, again: bool = False) -> None:
        """Take measures as long as there is time; those that did not fit the plan again only where now they do.

        Args:
            rows: of the plan.
            again: whether they did not fit it.

        Raises:
            Interrupted: Ctrl-C, and nothing is finished.
        """
        for row in rows:
            why = "" if there(self._prepared, row) else self._why_not(row, again)
            if why:
                self.left_out.append(LeftOut(row.name, row.title, why))
                continue
            try:
                self.outcomes.append(take_one(self._prepared, row, self._listen))
                self.rows.append(row)
            except (KeyboardInterrupt, Interrupted) as error:
                said = f"{len(self.outcomes)} of {len(self._prepared.plan.rows)} measures are there"
                self.interrupted = f"interrupted in {row.title!r}; {said}"
                if not self.outcomes:
                    raise Interrupted(self.interrupted) from error
                self.left_out.append(LeftOut(row.name, row.title, "it was interrupted"))

    def _why_not(self, row: Row, again: bool) -> str:
        """Say why a measure is not begun, or nothing; the first one always is, so that there is something to show."""
        if self.interrupted:
            return "the measurement was interrupted before it"
        budget, spent = self._prepared.task.settings.budget, time.perf_counter() - self._prepared.began
        if budget is None or not self.outcomes or spent + row.seconds <= budget * (1.0 if again else LATE):
            return ""
        if again:
            return too_dear(row, budget - spent, self._prepared.plan.samples)
        return f"{about(spent)} of the budget of {chosen_time(budget)} is gone, and it would take {about(row.seconds)}"


def there(prepared: Prepared, row: Row) -> Outcome | None:
    """Find a measure in the folder: with the settings of now, or of a group that was not asked for as it is."""
    measure, task = MEASURES[row.name], prepared.task
    settings = settings_of(measure, task) if measure.group in task.settings.groups else None
    return prepared.folder.find(measure.name, settings)


def take_one(prepared: Prepared, row: Row, listen: Listener) -> Outcome:
    """Take one measure and write it, or find it in the folder."""
    found = there(prepared, row)
    if found is not None:
        return found
    measure = MEASURES[row.name]
    task = replace(prepared.task, listen=listen, folder=prepared.folder.path / "points")
    began = time.perf_counter()
    record, text, reason = attempt(measure, task)
    outcome = Outcome(
        name=measure.name,
        group=measure.group,
        title=measure.title,
        state=FAILED if record is None else DONE,
        reason=reason,
        settings=settings_of(measure, task),
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
        text = (error.why if isinstance(error, Refused) else str(error)).strip().partition("\n")[0]
        known = isinstance(error, GengapError | ArithmeticError)
        return None, "", text if known and text else f"{type(error).__name__}: {text}"
    return record, text, ""
