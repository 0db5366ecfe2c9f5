"""What the table of measures consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gengap.measurement.task import Task
from gengap.measurement.work import Work

Taken = tuple[Mapping[str, Any], str]  # a record as JSON values, and in words


def nothing(task: Task) -> str:  # noqa: ARG001 - the form of `Measure.missing`
    """Say that nothing is missing."""
    return ""


def no_settings(task: Task) -> dict[str, Any]:  # noqa: ARG001 - the form of `Measure.settings`
    """Say that a measure has no settings of its own."""
    return {}


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Attributes:
        rank: within a budget the measures of lower rank come first.
        name: of its file; the report knows by it how to show the record.
        group: one of `settings.GROUPS`.
        title: what it is called.
        work: what it is planned to do.
        take: measures.
        headline: samples are left out before it is.
        missing: why it cannot be taken of this subject, or "".
        settings: of its own, on which the number depends.
    """

    rank: int
    name: str
    group: str
    title: str
    work: Callable[[Task], Work]
    take: Callable[[Task], Taken]
    headline: bool = False
    missing: Callable[[Task], str] = nothing
    settings: Callable[[Task], dict[str, Any]] = no_settings


def test_share(task: Task) -> float:
    """Return how many passes over the training samples in use a pass over the test samples is."""
    return min(1.0, len(task.subject.problem.samples("test")) / task.samples)
