"""Every measure of `gengap measure` as an entry of one table: adding one is adding an entry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gengap.measurement import taking
from gengap.measurement.task import Task
from gengap.measurement.work import Work

Record = Mapping[str, Any]


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
        name: of its file; the report knows by it how to show the record.
        group: one of `settings.GROUPS`.
        title: what it is called.
        work: what it is planned to do.
        take: measures, and returns the record as JSON values and in words.
        headline: whether its group is not worth taking without it: others are left out first.
        missing: why it cannot be taken of this subject, or "".
        settings: of its own, on which the number depends.
    """

    name: str
    group: str
    title: str
    work: Callable[[Task], Work]
    take: Callable[[Task], tuple[Record, str]]
    headline: bool = False
    missing: Callable[[Task], str] = nothing
    settings: Callable[[Task], dict[str, Any]] = no_settings


def entry(*measures: Measure) -> dict[str, Measure]:
    """Make the table."""
    return {measure.name: measure for measure in measures}


MEASURES: Mapping[str, Measure] = entry(  # within a budget, the ones above come first
    Measure("train", "loss", "Loss and accuracy, train", lambda _: Work(values=2, gradients=1), taking.train, True),
    Measure("test", "loss", "Loss and accuracy, test", taking.test_work, taking.test, True),
    Measure(
        "distance",
        "distance",
        "Distance from the start",
        lambda _: Work(vectors=30),
        taking.distance_from_start,
        True,
        missing=lambda t: "" if t.subject.start is not None else taking.NO_START,
    ),
    Measure(
        "sharpness",
        "sharpness",
        "Sharpness in the box",
        lambda t: Work(gradients=40 * len(t.settings.radii), vectors=4_000 * len(t.settings.radii)),
        taking.box_sharpness,
        True,
        settings=lambda t: {"radii": list(t.settings.radii)},
    ),
    Measure(
        "top_eigenvalues",
        "hessian",
        "Top eigenvalues of the Hessian",
        lambda _: Work(products=22, vectors=2_000),
        taking.top,
        True,
        settings=lambda t: {"k": taking.eigenvalues_wanted(t), "momentum": t.settings.momentum},
    ),
    Measure("trace", "hessian", "Trace of the Hessian", lambda _: Work(products=40, vectors=600), taking.hessian_trace),
    Measure(
        "path",
        "landscape",
        "Path to the second checkpoint",
        taking.path_work,
        taking.path,
        missing=lambda t: "" if t.subject.second is not None else taking.NO_SECOND,
        settings=lambda _: {"points": taking.PATH_POINTS},
    ),
    Measure(
        "bottom_eigenvalues",
        "hessian",
        "Bottom eigenvalues of the Hessian",
        lambda _: Work(products=45, vectors=4_000),
        taking.bottom,
        settings=lambda t: {"k": taking.eigenvalues_wanted(t, 2)},
    ),
    Measure(
        "spectral_density",
        "hessian",
        "Spectral density of the Hessian",
        lambda _: Work(products=taking.STEPS * taking.STARTS, vectors=10 * taking.STEPS * taking.STARTS),
        taking.density,
        settings=lambda _: {"steps": taking.STEPS, "starts": taking.STARTS},
    ),
)


def asked(task: Task) -> list[Measure]:
    """List the measures of the groups that were asked for."""
    return [measure for measure in MEASURES.values() if measure.group in task.settings.groups]
