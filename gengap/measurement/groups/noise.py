"""The noise of the gradient."""

from gengap.measurement.entry import Measure, Taken
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.noise.batches import LEAST_DRAWS, two_batch_noise_scale
from gengap.measures.noise.covariance import covariance_eigenvalues
from gengap.measures.noise.curvature_scale import curvature_noise_scale
from gengap.measures.noise.noise_scale import noise_scale

PROBES = 50  # of the curvature-weighted scale
TOP = 3
FEWEST = 5 * LEAST_DRAWS  # samples: draws of two and of three
SMALL, BIG = 0.01, 0.1  # shares of the samples in a small and in a big batch, where single samples do not exist


def simple(task: Task) -> Taken:
    """Measure the noise scale: of single samples, or where batch norm couples them, of batches of two sizes."""
    if task.conditions["batch_norm"] != "batch":
        found = noise_scale(task.loss(), task.subject.params, **task.common)
        return found.to_dict(), str(found)
    small, big = batches(task)
    found = two_batch_noise_scale(
        task.loss(), task.subject.params, b_small=small, b_big=big, seed=task.settings.seed, **task.common
    )
    return found.to_dict(), str(found)


def batches(task: Task) -> tuple[int, int]:
    """Choose a small and a big batch that leave enough draws."""
    small, each = max(2, round(SMALL * task.samples)), task.samples // LEAST_DRAWS
    return small, min(round(BIG * task.samples), each - small)


def too_few(task: Task) -> str:
    """Say that batches of two sizes need more samples than there are."""
    if task.conditions["batch_norm"] != "batch" or task.samples >= FEWEST:
        return ""
    return (
        f"batch norm with batch statistics leaves no gradient of a single sample, and batches of two sizes need at least "
        f"{FEWEST} samples; there are {task.samples}"
    )


def weighted(task: Task) -> Taken:
    """Measure the curvature-weighted noise scale."""
    found = curvature_noise_scale(
        task.loss(), task.subject.params, max_probes=PROBES, seed=task.settings.seed, **task.curved
    )
    return found.to_dict(), str(found)


def covariance(task: Task) -> Taken:
    """Find the top eigenvalues of the covariance of the gradient."""
    k = min(TOP, task.samples - 1, task.weights)
    found = covariance_eigenvalues(task.loss(), task.subject.params, k=k, seed=task.settings.seed, **task.curved)
    return found.to_dict(), str(found)


def no_single_samples(task: Task) -> str:
    """Say that batch norm couples the samples of a batch."""
    if task.conditions["batch_norm"] != "batch":
        return ""
    return "batch norm with batch statistics leaves no gradient of a single sample; --batch-norm running has one"


MEASURES = (
    Measure(
        42,
        "noise_scale",
        "noise",
        "Gradient noise scale",
        lambda _: Work(gradients=2, vectors=50),
        simple,
        True,
        missing=too_few,
        settings=lambda t: {"batches": list(batches(t)) if t.conditions["batch_norm"] == "batch" else None},
    ),
    Measure(
        64,
        "curvature_noise_scale",
        "noise",
        "Curvature-weighted noise scale",
        lambda _: Work(gradients=5 * 30),
        weighted,
        missing=no_single_samples,
        settings=lambda _: {"max_probes": PROBES},
    ),
    Measure(
        65,
        "covariance_eigenvalues",
        "noise",
        "Eigenvalues of the gradient covariance",
        lambda _: Work(products=20),
        covariance,
        missing=no_single_samples,
        settings=lambda _: {"k": TOP},
    ),
)
