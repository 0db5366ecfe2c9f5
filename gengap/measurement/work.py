"""What a measure costs: in passes over the samples, and in seconds on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gengap.core.errors import BadInput
from gengap.measurement.task import Task
from gengap.measures.curvature.operators import hessian
from gengap.measures.session import measuring

PROBED = 1_000  # samples on which a pass is timed, at most
PATIENCE = 0.3  # seconds after which one timing of a pass is enough
SECONDS_PER_WEIGHT = 5e-9  # one vector operation as long as the weights, for what a measure does beside its passes


@dataclass(frozen=True, slots=True)
class Work:
    """What a measure is planned to do.

    Attributes:
        values: forward passes over the samples.
        gradients: forward and backward passes.
        products: products with the Hessian.
        vectors: operations on vectors as long as the weights beside those.
    """

    values: float = 0.0
    gradients: float = 0.0
    products: float = 0.0
    vectors: float = 0.0

    def __str__(self) -> str:
        counts = (("forward pass", self.values), ("gradient", self.gradients), ("Hessian product", self.products))
        named = [f"{n:,.0f} {what}{'' if n == 1 else 'es' if what.endswith('s') else 's'}" for what, n in counts if n]
        return "about " + ", ".join(named) if named else "one pass over the weights"


@dataclass(frozen=True, slots=True)
class Speeds:
    """Seconds of each pass for one sample.

    Attributes:
        value: of a forward pass.
        gradient: of a forward and a backward pass.
        product: of a product with the Hessian.
        weights: P.
    """

    value: float
    gradient: float
    product: float
    weights: int

    def seconds(self, work: Work, samples: int) -> float:
        """Foretell the seconds of some work on so many samples."""
        passes = work.values * self.value + work.gradients * self.gradient + work.products * self.product
        return passes * samples + work.vectors * self.weights * SECONDS_PER_WEIGHT


def speeds(task: Task, *, products: bool) -> Speeds:
    """Time one pass of each kind on a part of the samples.

    Args:
        task: says on what.
        products: whether products with the Hessian are wanted at all.

    Returns:
        The seconds per sample.
    """
    part = task.on(min(task.samples, PROBED))
    loss, params, n = part.loss(), dict(task.subject.params), part.samples
    value = timed(lambda: loss.value(params)) / n
    gradient = timed(lambda: loss.value_and_grad(params)) / n
    product = product_seconds(part) / n if products else 0.0
    return Speeds(value, gradient, product, task.weights)


def product_seconds(task: Task) -> float:
    """Time a product with the Hessian; a network that has none is left to the measures, which say why."""
    settings = task.settings
    try:
        with measuring(
            *(task.loss(), task.subject.params),
            passes="product",
            vectors=3,
            only=settings.only,
            check=False,
            memory_limit=settings.memory_limit,
        ) as session:
            operator = hessian(session)
            along = torch.ones(operator.size, dtype=operator.dtype, device=operator.device)
            return timed(lambda: float(operator(along)[0]))
    except (BadInput, RuntimeError):
        return 0.0


def timed(work: Callable[[], object]) -> float:
    """Time the better of some calls; the first one warms up, and only counts where it takes long."""
    found = [clocked(work)]
    if found[0] > 10 * PATIENCE:
        return found[0]
    found = [clocked(work)]
    if found[0] < PATIENCE:
        found += [clocked(work), clocked(work)]
    return min(found)


def clocked(work: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
