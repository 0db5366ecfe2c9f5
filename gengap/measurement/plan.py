"""Which measures are taken on how many samples, so that they fit the time there is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gengap.measurement.entry import Measure
from gengap.measurement.task import Task
from gengap.measurement.work import Speeds

FEWEST = 500  # samples below which a budget does not go


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
        left_out: the others.
        remark: why fewer samples are used than were asked for, or "".
    """

    samples: int
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    remark: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of all of them."""
        return sum(row.seconds for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "samples": self.samples,
            "seconds": self.seconds,
            "measures": [asdict(row) for row in self.rows],
            "left_out": [asdict(one) for one in self.left_out],
            "remark": self.remark,
        }


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
    """
    there = [(m, m.missing(task)) for m in measures]
    missing = [LeftOut(m.name, m.title, why) for m, why in there if why]
    able = [m for m, why in there if not why]
    budget = task.settings.budget
    if budget is None:
        rows = [row_of(m, task, speeds, kept) for m in able]
        return Plan(task.samples, tuple(rows), tuple(missing))
    room = max(0.0, budget - spent)
    samples = next((n for n in halvings(task.samples) if headlines(able, task.on(n), speeds, kept) <= room), None)
    part = task.on(samples or min(task.samples, FEWEST))
    rows, late = filled(able, part, speeds, room, kept)
    remark = ""
    if part.samples < task.samples:
        remark = (
            f"{part.samples:,} of the {task.samples:,} samples are used, so that the budget of {budget:g} s is kept"
        )
    return Plan(part.samples, tuple(rows), (*missing, *late), remark)


def filled(
    able: Sequence[Measure], task: Task, speeds: Speeds, room: float, kept: Callable[[Measure, Task], bool]
) -> tuple[list[Row], list[LeftOut]]:
    """Take headlines first, the cheapest before the dear ones, then the others in their order, as long as they fit."""
    rows = [(m.headline, row_of(m, task, speeds, kept)) for m in able]
    first = sorted((row for headline, row in rows if headline), key=lambda row: row.seconds)
    chosen: list[Row] = []
    late: list[LeftOut] = []
    for row in (*first, *(row for headline, row in rows if not headline)):
        if row.seconds <= room:
            chosen.append(row)
            room -= row.seconds
        else:
            why = f"it would take about {row.seconds:.2g} s on {task.samples:,} samples, and {room:.2g} s of the budget are left"
            late.append(LeftOut(row.name, row.title, why))
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
