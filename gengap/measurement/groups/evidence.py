"""Bayesian evidence, for those who ask for it."""

from gengap.measurement.entry import Measure, Taken
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.evidence.log_evidence import EXACT_UNTIL, log_evidence

STEPS, STARTS = 40, 4  # of Lanczos, where the Hessian is too large to be written out
MORE = 20  # products for each prior


def evidence(task: Task) -> Taken:
    """Measure the log evidence for every prior."""
    found = log_evidence(
        *(task.loss(), task.subject.params),
        l2=task.settings.l2,
        steps=STEPS,
        starts=STARTS,
        seed=task.settings.seed,
        **task.curved,
    )
    return found.to_dict(), str(found)


def products(task: Task) -> int:
    """Plan the products with the Hessian."""
    if task.weights <= EXACT_UNTIL:
        return task.weights
    return STEPS * STARTS + MORE * len(task.settings.l2)


MEASURES = (
    Measure(
        80,
        "log_evidence",
        "evidence",
        "Bayesian evidence",
        lambda t: Work(products=products(t)),
        evidence,
        True,
        settings=lambda t: {"l2": list(t.settings.l2), "steps": STEPS, "starts": STARTS},
    ),
)
