"""The loss along lines and planes."""

import numpy as np

from gengap.measurement.entry import Measure, Taken, test_share
from gengap.measurement.groups.distance import NO_TRAJECTORY
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.landscape.paths import interpolate
from gengap.measures.landscape.slices import slice_1d, slice_2d
from gengap.measures.landscape.trajectory import trajectory

NO_SECOND = "it needs another checkpoint of the same network; name one by --second"
POINTS = 25
LOW, HIGH = -0.5, 1.5
SIDE = 13  # points along each axis of the plane
FEWEST = 3  # snapshots that span a plane


def path(task: Task) -> Taken:
    """Evaluate both losses along the line to the second checkpoint."""
    subject, second = task.subject, task.subject.second
    assert second is not None
    running = task.conditions["batch_norm"] == "running"
    found = interpolate(
        [task.loss(), task.loss("test")],
        a=subject.params,
        b=second.params,
        alphas=np.linspace(LOW, HIGH, POINTS).tolist(),
        a_buffers=subject.buffers if running else None,
        b_buffers=second.buffers if running else None,
        **task.points("path"),
    )
    return found.to_dict(), f"path to {subject.second_name}: {found.summaries[0]} (train), {found.summaries[1]} (test)"


def line(task: Task) -> Taken:
    """Evaluate both losses along a random direction."""
    losses = [task.loss(), task.loss("test")]
    found = slice_1d(losses, task.subject.params, seed=task.settings.seed, **task.points("slice_1d"))
    return found.to_dict(), f"{len(found.positions)} points along a {found.axes}"


def plane(task: Task) -> Taken:
    """Evaluate the training loss on a random plane."""
    side = np.linspace(-1, 1, SIDE).tolist()
    found = slice_2d(
        task.loss(), task.subject.params, x=side, y=side, seed=task.settings.seed, **task.points("slice_2d")
    )
    return found.to_dict(), f"{SIDE} x {SIDE} points: {found}"


def no_filters(task: Task) -> str:
    """Say that the weights have no filters by which a random direction could be scaled."""
    if any(p.ndim > 1 for p in task.subject.moved(task.settings.only).values()):
        return ""
    return "it scales a random direction by filters, and the weights that were chosen are biases and scales only"


def journey(task: Task) -> Taken:
    """Project the snapshots of the training on a plane, and evaluate the training loss on it.

    Running statistics of batch norm are those of the checkpoint everywhere: continued beyond the snapshots, their own would
    give negative variances on a large part of the plane.

    Args:
        task: with snapshots.

    Returns:
        The record and its words.
    """
    moments = list(task.subject.trajectory or ())
    place = task.subject.device
    found = trajectory(
        [{name: p.to(place) for name, p in moment.params.items()} for moment in moments],
        losses=task.loss(),
        points=SIDE,
        **task.points("trajectory"),
    )
    return found.to_dict(), str(found)


def too_few(task: Task) -> str:
    """Say that there are no snapshots, or not enough for a plane."""
    if task.subject.trajectory is None:
        return NO_TRAJECTORY
    return "" if len(task.subject.trajectory) >= FEWEST else f"it needs at least {FEWEST} snapshots"


MEASURES = (
    Measure(
        51,
        "path",
        "landscape",
        "Path to the second checkpoint",
        lambda t: Work(values=POINTS * (1 + test_share(t))),
        path,
        missing=lambda t: "" if t.subject.second is not None else NO_SECOND,
        settings=lambda _: {"points": POINTS, "low": LOW, "high": HIGH},
    ),
    Measure(
        60,
        "slice_1d",
        "landscape",
        "Slice along a random direction",
        lambda t: Work(values=POINTS * (1 + test_share(t))),
        line,
        missing=no_filters,
        settings=lambda _: {"points": POINTS},
    ),
    Measure(
        70,
        "slice_2d",
        "landscape",
        "Slice along a random plane",
        lambda _: Work(values=SIDE * SIDE),
        plane,
        missing=no_filters,
        settings=lambda _: {"side": SIDE},
    ),
    Measure(
        62,
        "trajectory",
        "landscape",
        "Trajectory on its plane",
        lambda _: Work(values=SIDE * SIDE),
        journey,
        missing=too_few,
        settings=lambda _: {"side": SIDE},
    ),
)
