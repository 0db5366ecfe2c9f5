"""Distance from the start, and how it grew."""

from gengap.measurement.entry import Measure, Taken
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.diffusion import distance_curve
from gengap.measures.distance import distance
from gengap.measures.session import divided
from gengap.measures.trees import as_tree

NO_START = "the weights the training began with are not beside the checkpoint; name them by --initial"
NO_TRAJECTORY = "it needs snapshots of the training (gengap train --snapshots); name their folder by --trajectory"


def from_start(task: Task) -> Taken:
    """Measure the distance from the start."""
    ends = [as_tree(tree or {}) for tree in (task.subject.params, task.subject.start)]
    moved = [divided(tree, task.settings.only, frozenset())[0] for tree in ends]
    found = distance(*moved)
    return found.to_dict(), str(found)


def growth(task: Task) -> Taken:
    """Follow the distance through the snapshots."""
    assert task.subject.trajectory is not None
    found = distance_curve(task.subject.trajectory, only=task.settings.only, seed=task.settings.seed)
    return found.to_dict(), str(found)


MEASURES = (
    Measure(
        20,
        "distance",
        "distance",
        "Distance from the start",
        lambda _: Work(vectors=30),
        from_start,
        True,
        missing=lambda t: "" if t.subject.start is not None else NO_START,
    ),
    Measure(
        21,
        "distance_curve",
        "distance",
        "Distance while training",
        lambda t: Work(vectors=40 * len(t.subject.trajectory or ())),
        growth,
        missing=lambda t: "" if t.subject.trajectory is not None else NO_TRAJECTORY,
    ),
)
