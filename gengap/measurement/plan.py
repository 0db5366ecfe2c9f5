"""Which measures are taken on how many samples, so that they fit the time there is."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gengap.core.errors import BadInput
from gengap.measurement.entry import Measure
from gengap.measurement.task import Task
from gengap.measurement.work import Speeds
from gengap.report import numbers

FEWEST = 500  # samples below which a budget does not go
SHORTEST = 0.01  # seconds that are worth a number
MARGIN = 1.2  # of the budget that is proposed over what was foretold


@dataclass(frozen=True, slots=True)
class Row:
    """One measure that is planned.

    Attributes:
        name: of the measure.
        title: what it is called.
        seconds: that it should take; 0 where it is there already.
        detail: what it will do.
    """

    name: str
    title: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One measure that is not taken, and why.

    Attributes:
        name: of the measure.
        title: what it is called.
        why: a sentence without its full stop.
    """

    name: str
    title: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        samples: training samples that are used.
        rows: the measures, in the order in which they are taken.
        missing: those that this checkpoint does not allow.
        late: those that do not fit the budget; they are taken all the same where the others take less than foretold.
        room: seconds of the budget that are left beside the rows.
        remark: why fewer samples are used than were asked for, or "".
    """

    samples: int
    rows: tuple[Row, ...]
    missing: tuple[LeftOut, ...] = ()
    late: tuple[Row, ...] = ()
    room: float = 0.0
    remark: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of all of them."""
        return sum(row.seconds for row in self.rows)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Measures that are not taken, and why."""
        return (
            *self.missing,
            *(LeftOut(row.name, row.title, too_dear(row, self.room, self.samples)) for row in self.late),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "samples": self.samples,
            "seconds": self.seconds,
            "measures": [asdict(row) for row in self.rows],
            "left_out": [asdict(one) for one in self.left_out],
            "remark": self.remark,
        }


def too_dear(row: Row, room: float, samples: int) -> str:
    """Say why a measure does not fit what is left of the budget."""
    return f"it would take {about(row.seconds)} on {samples:,} samples, and {about(room)} of the budget is left"


def about(seconds: float) -> str:
    """Write a time that was foretold."""
    return "less than 0.01 s" if seconds < SHORTEST else f"about {numbers.seconds(seconds)}"


def chosen_time(seconds: float) -> str:
    """Write a time that somebody chose, without digits that nobody gave."""
    return f"{seconds:g} s" if seconds < 100 else numbers.seconds(seconds)


def make_plan(
    task: Task, measures: Sequence[Measure], speeds: Speeds, *, spent: float, kept: Callable[[Measure, Task], bool]
) -> Plan:
    """Choose what is measured on how many samples.

    Without a budget that is everything on all samples in use. Within one, samples are halved, down to 500, until the
    headlines of the groups fit; these are taken first, the cheapest before the dear ones, then the other measures in their
    order as long as they fit.

    Args:
        task: with the samples asked for.
        measures: asked for, the most important first.
        speeds: of this machine.
        spent: seconds of the budget that are gone already.
        kept: whether a measure is there already, on the samples of a task.

    Returns:
        The plan.

    Raises:
        BadInput: not even the cheapest measure fits the budget.
    """
    there = [(m, m.missing(task)) for m in measures]
    missing = tuple(LeftOut(m.name, m.title, why) for m, why in there if why)
    able = [m for m, why in there if not why]
    budget = task.settings.budget
    if budget is None:
        return Plan(task.samples, tuple(row_of(m, task, speeds, kept) for m in able), missing)
    room = max(0.0, budget - spent)
    samples = next((n for n in halvings(task.samples) if headlines(able, task.on(n), speeds, kept) <= room), None)
    part = task.on(samples or min(task.samples, FEWEST))
    rows, late = filled(able, part, speeds, room, kept)
    if late and not rows:
        raise BadInput(too_short(min(late, key=lambda row: row.seconds), budget, spent, part.samples))
    remark = ""
    if part.samples < task.samples:
        used = f"{part.samples:,} of the {task.samples:,} samples are used"
        remark = f"{used}, so that the budget of {chosen_time(budget)} is kept"
    return Plan(part.samples, tuple(rows), missing, tuple(late), room - sum(row.seconds for row in rows), remark)


def too_short(cheapest: Row, budget: float, spent: float, samples: int) -> str:
    """Say what would be the least that a budget has to be."""
    least = math.ceil(MARGIN * (spent + cheapest.seconds))
    return (
        f"the budget of {chosen_time(budget)} is too short for any measure: timing one pass of each kind took "
        f"{about(spent)}, and the cheapest measure ({cheapest.title!r}, on {samples:,} samples) would take "
        f"{about(cheapest.seconds)}; give at least --budget {least}s"
    )


def filled(
    able: Sequence[Measure], task: Task, speeds: Speeds, room: float, kept: Callable[[Measure, Task], bool]
) -> tuple[list[Row], list[Row]]:
    """Take headlines first, the cheapest before the dear ones, then the others in their order, as long as they fit."""
    rows = [(m.headline, row_of(m, task, speeds, kept)) for m in able]
    first = sorted((row for headline, row in rows if headline), key=lambda row: row.seconds)
    chosen: list[Row] = []
    late: list[Row] = []
    for row in (*first, *(row for headline, row in rows if not headline)):
        fits = row.seconds <= room
        (chosen if fits else late).append(row)
        room -= row.seconds if fits else 0.0
    return chosen, late


def headlines(able: Sequence[Measure], task: Task, speeds: Speeds, kept: Callable[[Measure, Task], bool]) -> float:
    """Foretell the seconds of the measures that others are left out for."""
    return sum(row_of(m, task, speeds, kept).seconds for m in able if m.headline)


def row_of(measure: Measure, task: Task, speeds: Speeds, kept: Callable[[Measure, Task], bool]) -> Row:
    """Foretell one measure."""
    if kept(measure, task):
        return Row(measure.name, measure.title, 0.0, "there already")
    work = measure.work(task)
    return Row(measure.name, measure.title, speeds.seconds(work, task.samples), str(work))


def halvings(samples: int) -> Iterator[int]:
    """Give a number of samples, its half, ... down to the fewest."""
    while samples > FEWEST:
        yield samples
        samples = max(FEWEST, samples // 2)
    yield samples
