"""The loss around a point as a random potential: how its spread grows with the distance."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, Progress, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.sharpness.perturbations import displaced, length, normal
from gengap.theory.roughness import About, RoughnessFit, fit_roughness


@dataclass(frozen=True, slots=True)
class RandomPotential(Record):
    """The loss at random places around a point.

    Attributes:
        fit: spread = factor distance^gamma, with the interval of gamma and the bins.
        base: loss at the point, nats per sample.
        distances: of each place from the point, in units of a weight.
        differences: loss there minus base, nats per sample.
        max_distance: largest distance drawn from.
        conditions: on what it was measured, and what it cost.
    """

    fit: RoughnessFit
    base: float
    distances: tuple[float, ...]
    differences: tuple[float, ...]
    max_distance: float
    conditions: Conditions

    @property
    def gamma(self) -> float:
        """The exponent; 1 means a walker that moves as the logarithm of time."""
        return self.fit.gamma

    def __str__(self) -> str:
        return f"{self.fit}, up to distance {self.max_distance:.4g}; {self.conditions}"


def loss_against_distance(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    max_distance: float,
    draws: int = 1000,
    bins: int = 10,
    about: About = "line",
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> RandomPotential:
    r"""Measure how the spread of the loss grows with the distance from a point, usually the start of training.

    Places are :math:`w_0 + z v`, with v uniform on the unit sphere and z uniform in (0, max_distance]. In bins of the
    distance the standard deviation of :math:`L(w) - L(w_0)` is fitted by a power of the distance. In a random potential
    with exponent gamma a walker moves as :math:`(\ln t)^{1/\gamma}`.

    Any smooth loss has gamma = 1 near enough to w_0, where it is linear: choose max_distance a little above what training
    reaches, which is what the exponent is about.

    Costs one evaluation of the loss for each draw, and memory for three copies of the weights.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic.
        params: the weights w_0, by name or as one tensor; not modified.
        max_distance: c, in units of a weight, > 0.
        draws: places, each in a direction of its own, >= 15; the paper uses 1,000.
        bins: ranges of the distance, with equally many draws in each.
        about: what the spread of a bin is measured from: "line" (in the distance), "mean", or "zero" (root mean square).
        seed: of directions, distances and the bootstrap of the exponent.
        only: patterns of names; the directions are in the space of the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for the chunks that go through the network.
        listen: is told after every evaluation.

    Returns:
        The draws and the fit.

    Raises:
        BadInput: an argument is out of range, the loss cannot be used, is not finite somewhere, or does not vary.

    Source:
        Hoffer et al. 2017, arXiv:1705.08741, section 3 and figure 1.
    """
    if not (math.isfinite(max_distance) and max_distance > 0):
        raise BadInput(
            f"max_distance is {max_distance!r}; give a positive number, a little above what training reaches"
        )
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 15:
        raise BadInput(f"draws is {draws!r}; give a whole number of at least 15, five for each of three bins")
    with measuring(
        loss, params, passes="value", vectors=3, moves=True, only=only, check=check, memory_limit=memory_limit
    ) as session:
        base = session.loss.value(session.params)
        if not math.isfinite(base):
            raise BadInput(f"the loss is {base!r} at params; differences need a point where it is finite")
        distances, values = sampled(session, max_distance, draws, seed, listen)
        differences = [value - base for value in values]
        return RandomPotential(
            fit=fit_roughness(distances, differences, bins, about=about, seed=seed),
            base=base,
            distances=tuple(distances),
            differences=tuple(differences),
            max_distance=max_distance,
            conditions=session.conditions(),
        )


def sampled(
    session: Session, max_distance: float, draws: int, seed: int, listen: Listener
) -> tuple[list[float], list[float]]:
    """Evaluate the loss at random places; returns their distances and its values."""
    rng = np.random.default_rng(stream(seed, "distances"))
    distances = (max_distance * (1 - rng.random(draws))).tolist()  # 1 - [0, 1) leaves out the point itself
    values = []
    for i, distance in enumerate(distances):
        direction = normal(session.params, stream(seed, "sphere", i))
        place = displaced(session.params, direction, distance / length(direction))
        values.append(session.loss.value(place))
        listen(Progress("loss against distance", i + 1, draws, "evaluations"))
    return distances, values
