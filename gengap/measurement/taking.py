"""How each measure is taken of a task: the call, its settings, and its record as JSON values and in words."""

from typing import Any

import torch

from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.density import spectral_density
from gengap.measures.distance import distance
from gengap.measures.eigenvalues import top_eigenvalues
from gengap.measures.landscape import interpolate
from gengap.measures.performance import performance
from gengap.measures.sharpness import sharpness
from gengap.measures.stability import max_stable_lr
from gengap.measures.trace import trace

Taken = tuple[dict[str, Any], str]

NO_START = "the weights the training began with are not beside the checkpoint; name them by --initial"
NO_SECOND = "it needs another checkpoint of the same network; name one by --second"
PATH_POINTS = 25
STEPS, STARTS = 40, 4  # of the density: half the products of the usual 80 x 8 each way, a quarter in all
WANTED = 5


def train(task: Task) -> Taken:
    """Measure the training loss."""
    limits = {name: task.common[name] for name in ("only", "memory_limit", "check")}
    found = performance(task.loss(), task.subject.params, **limits)
    return found.to_dict(), f"train: {found}"


def test(task: Task) -> Taken:
    """Measure the test loss."""
    limits = {name: task.common[name] for name in ("only", "memory_limit", "check")}
    found = performance(task.loss("test"), task.subject.params, gradient=False, **limits)
    return found.to_dict(), f"test: {found}"


def test_work(task: Task) -> Work:
    """Plan the passes over the test samples, in passes over the training samples."""
    return Work(values=2 * min(1.0, len(task.subject.problem.samples("test")) / task.samples))


def distance_from_start(task: Task) -> Taken:
    """Measure the distance from the start."""
    found = distance(chosen(task, task.subject.params), chosen(task, task.subject.start or {}))
    return found.to_dict(), str(found)


def chosen(task: Task, params: Any) -> Any:
    """Keep the weights that the patterns match."""
    from fnmatch import fnmatchcase

    patterns = task.settings.params
    return {n: p for n, p in params.items() if not patterns or any(fnmatchcase(n, one) for one in patterns)}


def box_sharpness(task: Task) -> Taken:
    """Measure sharpness in the boxes."""
    found = sharpness(
        task.loss(), task.subject.params, radius=task.settings.radii, seed=task.settings.seed, **task.common
    )
    return found.to_dict(), str(found)


def top(task: Task) -> Taken:
    """Find the top eigenvalues, and the learning rate that they allow."""
    k = eigenvalues_wanted(task)
    found = top_eigenvalues(task.loss(), task.subject.params, k=k, seed=task.settings.seed, **task.common)
    record = found.to_dict() | {"max_stable_lr": None}
    if found.values[0] > 0:
        record["max_stable_lr"] = max_stable_lr(found, momentum=task.settings.momentum).to_dict()
    return record, str(found)


def bottom(task: Task) -> Taken:
    """Find the bottom eigenvalues."""
    found = top_eigenvalues(
        *(task.loss(), task.subject.params),
        k=eigenvalues_wanted(task, 2),
        which="bottom",
        rel_error=1e-2,
        seed=task.settings.seed,
        **task.common,
    )
    return found.to_dict(), str(found)


def eigenvalues_wanted(task: Task, most: int = WANTED) -> int:
    """Say how many eigenvalues to ask for: not more than there are weights."""
    return min(most, task.subject.weights)


def hessian_trace(task: Task) -> Taken:
    """Estimate the trace."""
    found = trace(task.loss(), task.subject.params, seed=task.settings.seed, **task.common)
    return found.to_dict(), str(found)


def density(task: Task) -> Taken:
    """Estimate the spectral density."""
    found = spectral_density(
        task.loss(), task.subject.params, steps=STEPS, starts=STARTS, seed=task.settings.seed, **task.common
    )
    return found.to_dict(), str(found)


def path(task: Task) -> Taken:
    """Evaluate both losses along the line to the second checkpoint."""
    subject, second = task.subject, task.subject.second
    assert second is not None
    running = task.settings.batch_norm == "running" and subject.problem.has_batch_norm
    found = interpolate(
        [task.loss(), task.loss("test")],
        a=subject.params,
        b=second.params,
        alphas=torch.linspace(-0.5, 1.5, PATH_POINTS, dtype=torch.float64).tolist(),
        a_buffers=subject.buffers if running else None,
        b_buffers=second.buffers if running else None,
        listen=task.listen,
    )
    return found.to_dict(), f"{len(found.alphas)} points of the path"


def path_work(task: Task) -> Work:
    """Plan the passes of the path."""
    test_share = min(1.0, len(task.subject.problem.samples("test")) / task.samples)
    return Work(values=PATH_POINTS * (1 + test_share))
