"""How the loss rises along random directions."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, Progress, silent
from gengap.core.records import Record
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.sharpness.climb import check_count, check_positive
from gengap.measures.sharpness.perturbations import Directions, displaced, displacement, length
from gengap.measures.sharpness.surface import check_base

LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
VECTORS = 5  # as long as the weights and in their dtype, held at once


@dataclass(frozen=True, slots=True)
class RandomRise(Record):
    """How the loss rises along random directions.

    Attributes:
        rise: mean over directions, nats per sample.
        quantiles: of the rises, nats, by level: 0 (lowest), 0.05, 0.25, 0.5, 0.75, 0.95, 1 (highest).
        rises: of every direction, in the order drawn; infinite or nan where the loss was.
        base: loss at the point, nats per sample.
        directions: their law.
        radius: eps, no unit.
        length: mean Euclidean length of the displacements.
        relative_length: the same over the norm of the weights; None where that is zero.
        conditions: on what it was measured, and what it cost.
    """

    rise: Estimate
    quantiles: dict[float, float]
    rises: tuple[float, ...]
    base: float
    directions: Directions
    radius: float
    length: float
    relative_length: float | None
    conditions: Conditions

    def percent(self, level: float = 0.5) -> float:
        """Return a quantile of the rise relative to 1 + base, in percent, as in `gengap.sharpness`."""
        return 100 * float(np.quantile(self.rises, level, method="inverted_cdf")) / (1 + self.base)

    def __str__(self) -> str:
        q = self.quantiles
        return (
            f"loss rises by {q[0.5]:.4g} nats (median of {self.rise.n} directions; 5 to 95 %: {q[0.05]:.4g} to {q[0.95]:.4g}) "
            f"from {self.base:.4g} at length {self.length:.4g}, law {self.directions}, radius {self.radius:g}; {self.conditions}"
        )


def random_rise(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: float = 1e-3,
    directions: Directions = "corner",
    samples: int = 100,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> RandomRise:
    r"""Measure :math:`L(x + d) - L(x)` for random displacements d of a stated length.

    - "corner": every weight moves by :math:`\pm\varepsilon (|x_i| + 1)`, with random signs: a random corner of the box in
      which `gengap.sharpness` looks for the highest one.
    - "box": uniform in that box.
    - "sphere": in a direction uniform over all, by :math:`\varepsilon \|x\|`.
    - "filter": every filter (the weights of one output) in a random direction, by eps times its norm; vectors such as
      biases stay.

    Many weights make random directions alike: the rise concentrates around its mean, for "corner" near
    :math:`\frac12 \sum_i b_i^2 H_{ii}`, and says nothing about the steepest ones.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic.
        params: the weights x, by name or as one tensor; not modified.
        radius: eps, no unit, > 0.
        directions: their law.
        samples: how many, >= 2.
        seed: of the directions.
        only: patterns of names; the weights they match are moved, the others held.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for vectors and for the chunks that go through the network.
        listen: is told after every direction.

    Returns:
        Mean, quantiles and every rise; costs 1 + samples forward passes.

    Raises:
        BadInput: an argument is out of range, or the loss is not deterministic, or not finite at the point.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, for the box; Li et al. 2018, arXiv:1712.09913, for "filter".
    """
    check_positive("radius", radius, "1e-3")
    check_count("samples", samples, least=2)
    if directions not in get_args(Directions):
        raise BadInput(f"directions is {directions!r}; choose one of {', '.join(get_args(Directions))}")
    with measuring(
        loss, params, passes="value", vectors=VECTORS, moves=True, only=only, check=check, memory_limit=memory_limit
    ) as session:
        base = session.loss.value(session.params)
        check_base(base)
        rises, lengths = rises_along(session, base, directions, radius, samples=samples, seed=seed, listen=listen)
        own, far = length(session.params), float(np.mean(lengths))
        return RandomRise(
            rise=mean(rises),
            quantiles={q: float(np.quantile(rises, q, method="inverted_cdf")) for q in LEVELS},
            rises=tuple(rises),
            base=base,
            directions=directions,
            radius=radius,
            length=far,
            relative_length=far / own if own else None,
            conditions=session.conditions(),
        )


def rises_along(
    session: Session,
    base: float,
    directions: Directions,
    radius: float,
    *,
    samples: int,
    seed: int,
    listen: Listener,
) -> tuple[list[float], list[float]]:
    """Draw displacements: the rise along each, and how long each is."""
    rises, lengths = [], []
    for i in range(samples):
        by = displacement(session.params, directions, radius, seed, i)
        lengths.append(length(by))
        rises.append(session.loss.value(displaced(session.params, by)) - base)
        listen(Progress("random directions", i + 1, samples, "directions", f"rise {rises[-1]:.4g}"))
    return rises, lengths
