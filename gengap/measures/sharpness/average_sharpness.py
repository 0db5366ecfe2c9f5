"""How far the loss climbs on average under Gaussian noise on the weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, Progress, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.sharpness.climb import check_count, check_positive
from gengap.measures.sharpness.perturbations import Unit, displaced, normal, units
from gengap.measures.sharpness.surface import check_finite

VECTORS = 5  # as long as the weights and in their dtype, held at once
ROUND = 8  # pairs between two looks at the error: looking after each would stop at lucky scatter


@dataclass(frozen=True, slots=True)
class AverageSharpness(Record):
    """The average-case sharpness of one point.

    Attributes:
        rise: mean rise over displacements, nats per sample, from pairs of opposite ones; `n` counts the pairs.
        base: loss at the point, nats per sample.
        sigma: standard deviation of the displacements.
        unit: of sigma: "absolute", or the size of each weight ("element") or filter ("filter").
        evaluations: forward passes, that of the point included.
        converged: the standard error is within the tolerance.
        rel_error: the tolerance.
        conditions: on what it was measured, and what it cost.
    """

    rise: Estimate
    base: float
    sigma: float
    unit: Unit
    evaluations: int
    converged: bool
    rel_error: float
    conditions: Conditions

    def __str__(self) -> str:
        scale = "" if self.unit == "absolute" else f" of each {'weight' if self.unit == 'element' else 'filter'}"
        error = "" if self.rise.stderr is None else f" ± {self.rise.stderr:.2g}"
        ended = "" if self.converged else f", not converged to {self.rel_error:g}"
        return (
            f"loss rises by {self.rise.value:.4g}{error} nats on average from {self.base:.4g} under noise of {self.sigma:g}"
            f"{scale} ({self.rise.n} pairs{ended}); {self.conditions}"
        )


def average_sharpness(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    sigma: float = 1e-2,
    unit: Unit = "absolute",
    rel_error: float = 0.05,
    max_pairs: int = 256,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> AverageSharpness:
    r"""Measure the mean climb of `loss` under Gaussian noise on the weights.

    .. math::
        E_\delta\,[L(x + \delta)] - L(x), \qquad \delta_i = \sigma\,T_i\,\xi_i, \quad \xi_i \sim N(0, 1).

    Displacements come in opposite pairs, so that the slope at the point drops out of every pair: on a quadratic loss only
    the curvature is left, :math:`\sigma^2 \mathrm{tr}(T H T) / 2`. Pairs are drawn in rounds of eight until the standard
    error is at most rel_error times the mean, or max_pairs is reached. Unlike the worst case this is an unbiased estimate
    and no bound; it may be negative.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic.
        params: the weights x, by name or as one tensor; not modified.
        sigma: > 0.
        unit: T: "absolute": 1; "element": |x_i|; "filter": the norm of the filter that x_i belongs to, and |x_i| for
            vectors. The last two do not change when the layers of a ReLU network are rescaled.
        rel_error: standard error to reach relative to the mean, > 0.
        max_pairs: the most pairs, >= 2.
        seed: of the displacements: the same for every network of the same shapes.
        only: patterns of names; the weights they match are displaced, the others held.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for vectors and for the chunks that go through the network.
        listen: is told after every pair.

    Returns:
        The mean with its error and cost: 1 + 2 n forward passes.

    Raises:
        BadInput: an argument is out of range, or the loss is not deterministic, or not finite at the point.

    Source:
        Andriushchenko et al. 2023, arXiv:2302.07011, eq. 1 (the average case, with and without units of the weights).
    """
    check_positive("sigma", sigma, "1e-2")
    check_positive("rel_error", rel_error, "0.05")
    check_count("max_pairs", max_pairs, least=2)
    if unit not in get_args(Unit):
        raise BadInput(f"unit is {unit!r}; choose one of {', '.join(get_args(Unit))}")
    with measuring(
        loss, params, passes="value", vectors=VECTORS, moves=True, only=only, check=check, memory_limit=memory_limit
    ) as session:
        base = session.loss.value(session.params)
        check_finite(base)
        rises: list[float] = []
        for rise in pairs(session, base, sigma, unit, seed=seed):
            rises.append(rise)
            found = mean(rises)
            listen(Progress("average sharpness", len(rises), max_pairs, "pairs", f"rise {found}"))
            if len(rises) == max_pairs or (len(rises) % ROUND == 0 and within(found, rel_error)):
                break
            if not math.isfinite(rise):
                break
        return AverageSharpness(
            rise=found,
            base=base,
            sigma=sigma,
            unit=unit,
            evaluations=1 + 2 * len(rises),
            converged=within(found, rel_error),
            rel_error=rel_error,
            conditions=session.conditions(),
        )


def pairs(session: Session, base: float, sigma: float, unit: Unit, *, seed: int) -> Iterator[float]:
    """Give the mean rise of one opposite pair after the other, without end."""
    scale, index = units(session.params, unit), 0
    while True:
        drawn = normal(session.params, stream(seed, "average sharpness", index))
        for name, noise in drawn.items():
            noise.mul_(scale[name])
        high, low = (session.loss.value(displaced(session.params, drawn, side * sigma)) for side in (1, -1))
        yield (high + low) / 2 - base
        index += 1


def within(found: Estimate, rel_error: float) -> bool:
    """Tell whether the standard error is small enough."""
    return found.stderr is not None and math.isfinite(found.value) and found.stderr <= rel_error * abs(found.value)
