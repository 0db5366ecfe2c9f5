"""Which numbers a rescaling of layers moves, though the function stays the same; for those who ask for it."""

from gengap.measurement.entry import Measure, Taken
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.rescaling import rescaling_check, usual_measures
from gengap.measures.rescalings import find_rescalings

ALPHA = 4.0  # a power of two rounds nothing


def check(task: Task) -> Taken:
    """Measure before and after a rescaling."""
    found = rescaling_check(
        *(task.subject.problem, task.subject.params),
        loss=task.loss(),
        measures=usual_measures(task.subject.start),
        alpha=ALPHA,
        listen=task.listen,
    )
    return found.to_dict(), str(found)


def nothing_to_rescale(task: Task) -> str:
    """Say that the network has no two layers that can be rescaled against each other."""
    if find_rescalings(task.subject.problem.model(0)):
        return ""
    return "no two layers of the network can be rescaled against each other without changing its function"


MEASURES = (
    Measure(
        81,
        "rescaling_check",
        "reparametrisation",
        "Before and after a rescaling",
        lambda _: Work(values=400, gradients=260, products=100, vectors=6_000),
        check,
        True,
        missing=nothing_to_rescale,
        settings=lambda _: {"alpha": ALPHA},
    ),
)
