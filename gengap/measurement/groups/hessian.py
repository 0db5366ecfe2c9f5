"""Curvature: the outermost eigenvalues, their sum and their density."""

from gengap.core.errors import BadInput
from gengap.measurement.entry import Measure, Taken
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.curvature.density import spectral_density
from gengap.measures.curvature.eigenvalues import top_eigenvalues
from gengap.measures.curvature.equal_traces import outer_pieces
from gengap.measures.curvature.stability import max_stable_lr
from gengap.measures.curvature.trace import trace
from gengap.measures.session import measuring

STEPS, STARTS = 40, 4  # of the density: a quarter of the usual 80 x 8 products
TOP, BOTTOM = 5, 2
COARSE = 1e-2  # error of the bottom eigenvalues, which lie closer together
FEW = 8  # samples that tell how the trace will be taken
PASSES, GRADIENTS_A_PASS = 8, 3  # of the trace, sample by sample: usual counts
STEEP = 0.1  # of the top curvature: what counts as steep


def top(task: Task) -> Taken:
    """Find the top eigenvalues, and the learning rate that they allow."""
    k = min(TOP, task.weights)
    found = top_eigenvalues(task.loss(), task.subject.params, k=k, seed=task.settings.seed, **task.curved)
    stable = max_stable_lr(found, momentum=task.settings.momentum).to_dict() if found.values[0] > 0 else None
    return found.to_dict() | {"max_stable_lr": stable}, str(found)


def bottom(task: Task) -> Taken:
    """Find the bottom eigenvalues."""
    found = top_eigenvalues(
        *(task.loss(), task.subject.params),
        k=min(BOTTOM, task.weights),
        which="bottom",
        rel_error=COARSE,
        seed=task.settings.seed,
        **task.curved,
    )
    return found.to_dict(), str(found)


def total(task: Task) -> Taken:
    """Estimate the trace."""
    found = trace(task.loss(), task.subject.params, seed=task.settings.seed, **task.curved)
    return found.to_dict(), str(found)


def trace_work(task: Task) -> Work:
    """Plan the trace: sample by sample where the network allows it, which a few samples tell, else by products."""
    few = task.on(min(FEW, task.samples))
    limit, only = task.settings.memory_limit, task.settings.only
    try:
        with measuring(
            few.loss(), few.subject.params, passes="gradient", only=only, check=False, memory_limit=limit
        ) as session:
            by_sample = outer_pieces(session, "hessian") is not None
    except (BadInput, ArithmeticError, RuntimeError):  # the measure itself says why
        by_sample = False
    return Work(gradients=GRADIENTS_A_PASS * PASSES) if by_sample else Work(products=80, vectors=1_500)


def density(task: Task) -> Taken:
    """Estimate the spectral density, and with it the share of steep directions."""
    steps = min(STEPS, max(2, task.weights))
    found = spectral_density(
        task.loss(), task.subject.params, steps=steps, starts=STARTS, seed=task.settings.seed, **task.curved
    )
    highest = max(nodes[-1] for nodes in found.nodes)
    steep = found.share_above(STEEP * highest).to_dict() if highest > 0 else None
    return found.to_dict() | {"steep": steep, "threshold": STEEP}, str(found)


MEASURES = (
    Measure(
        40,
        "top_eigenvalues",
        "hessian",
        "Top eigenvalues of the Hessian",
        lambda _: Work(products=22, vectors=2_000),
        top,
        True,
        settings=lambda t: {"k": TOP, "momentum": t.settings.momentum},
    ),
    Measure(50, "trace", "hessian", "Trace of the Hessian", trace_work, total),
    Measure(
        61,
        "bottom_eigenvalues",
        "hessian",
        "Bottom eigenvalues of the Hessian",
        lambda _: Work(products=55, vectors=4_000),
        bottom,
        settings=lambda _: {"k": BOTTOM, "rel_error": COARSE},
    ),
    Measure(
        72,
        "spectral_density",
        "hessian",
        "Spectral density of the Hessian",
        lambda _: Work(products=STEPS * STARTS, vectors=10 * STEPS * STARTS),
        density,
        settings=lambda _: {"steps": STEPS, "starts": STARTS},
    ),
)
