"""Loss, accuracy and gradient norm."""

from gengap.measurement.entry import Measure, Taken, test_share
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.performance import performance


def train(task: Task) -> Taken:
    """Measure the training loss and its gradient."""
    found = performance(task.loss(), task.subject.params, **task.quiet)
    return found.to_dict(), f"train: {found}"


def test(task: Task) -> Taken:
    """Measure the test loss."""
    found = performance(task.loss("test"), task.subject.params, gradient=False, **task.quiet)
    return found.to_dict(), f"test: {found}"


MEASURES = (
    Measure(10, "train", "loss", "Loss and accuracy, train", lambda _: Work(values=2, gradients=1), train, True),
    Measure(11, "test", "loss", "Loss and accuracy, test", lambda t: Work(values=2 * test_share(t)), test, True),
)
