"""How far weights have moved from where they began."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.measures.protocols import Params
from gengap.measures.trees import as_tree, check_same_layout, dtype_name


@runtime_checkable
class Trained(Protocol):
    """Anything that knows its weights at the end and at the start."""

    @property
    def params(self) -> Params:
        """Weights at the end, by name."""
        ...

    @property
    def initial_params(self) -> Params:
        """Weights at the start, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Distance(Record):
    """Euclidean distance from the start.

    Attributes:
        from_init: L2 norm of the difference over all weights, in units of a weight.
        relative: from_init over the norm of the start; None where the start is zero.
        norm: L2 norm of the weights themselves.
        growth: norm over the norm of the start, no unit; None where the start is zero.
        angle: between the weights and their start, seen from the origin, in degrees, 0 to 180; None where one is zero.
        per_layer: L2 norm of the difference of each tensor, by name; their squares add up to from_init squared.
        dtype: of the weights; differences and sums are float64.
        bound: "exact", up to float64 rounding.
    """

    from_init: float
    relative: float | None
    norm: float
    growth: float | None
    angle: float | None
    per_layer: dict[str, float]
    dtype: str
    bound: str = "exact"

    def __str__(self) -> str:
        relative = "" if self.relative is None else f" ({self.relative:.4g} of the norm at the start)"
        growth = "" if self.growth is None else f" ({self.growth:.4g} times that at the start)"
        angle = "" if self.angle is None else f", turned by {self.angle:.3g}°"
        return f"{self.from_init:.4g} from the start{relative}, norm {self.norm:.4g}{growth}{angle}"


def distance(params: Trained | Params | Tensor, initial: Params | Tensor | None = None) -> Distance:
    """Measure how far weights are from their start.

    Args:
        params: the weights by name or as one tensor, or a run (an object with `params` and `initial_params`).
        initial: the weights at the start, of the same names and shapes; left out for a run.

    Returns:
        The distance, in all and by tensor. Costs one pass over the weights.

    Raises:
        BadInput: the two do not fit each other, or `initial` is missing (or given beside a run).

    Source:
        Keskar et al. 2017, arXiv:1609.04836, section 3; Hoffer et al. 2017, arXiv:1705.08741, figure 2.
    """
    end, start = both_ends(params, initial)
    check_same_layout(end, start, ("params", "initial"))
    layers = {name: norm(p.double() - start[name].to(p.device).double()) for name, p in end.items()}
    from_init = math.hypot(*layers.values())
    length, origin = tree_norm(end), tree_norm(start)
    return Distance(
        from_init=from_init,
        relative=from_init / origin if origin else None,
        norm=length,
        growth=length / origin if origin else None,
        angle=angle(end, start),
        per_layer=layers,
        dtype=dtype_name(end),
    )


def distance_ratio(small: Distance, large: Distance) -> float:
    """Say how many times farther the small-batch run went than the large-batch run.

    Args:
        small: of the small-batch run.
        large: of the large-batch run.

    Returns:
        small.from_init / large.from_init, no unit; 3 to 10 in Keskar et al. 2017.

    Raises:
        BadInput: the large-batch run did not move.
    """
    if not large.from_init:
        raise BadInput("the large-batch run did not move from its start (distance 0); there is no ratio")
    return small.from_init / large.from_init


def displacement_angle(first: Trained, second: Trained) -> float | None:
    """Measure the angle between the ways that two runs have gone, each from its own start.

    In a space of P dimensions two ways drawn at random differ by 90 degrees, give or take 57 / sqrt(P).

    Args:
        first: a run, or anything with `params` and `initial_params`.
        second: another run of the same network, or another moment of the same run.

    Returns:
        Degrees, 0 to 180; None where one of them has not moved. Costs two passes over the weights.

    Raises:
        BadInput: the two are not of one network.
    """
    own, other = way(first), way(second)
    check_same_layout(own, other, ("first", "second"))
    return angle(own, other)


def way(run: Trained) -> dict[str, Tensor]:
    """Return how far each weight of a run has gone, in float64."""
    end, start = both_ends(run, None)
    check_same_layout(end, start, ("params", "initial_params"))
    return difference(end, start)


def difference(end: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Subtract trees of one layout, in float64."""
    return {name: p.double() - start[name].to(p.device).double() for name, p in end.items()}


def angle(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float | None:
    """Return the angle between two trees of one layout in degrees, or None where one is zero.

    The form of Kahan, 2 atan2(|u - v|, |u + v|) of the unit vectors: the cosine would lose small angles to rounding.
    """
    lengths = tree_norm(a), tree_norm(b)
    if not all(lengths):
        return None
    units = ((p.double() / lengths[0], b[name].to(p.device).double() / lengths[1]) for name, p in a.items())
    apart, along = zip(*((norm(u - v), norm(u + v)) for u, v in units), strict=True)
    return math.degrees(2 * math.atan2(math.hypot(*apart), math.hypot(*along)))


def both_ends(params: Any, initial: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Take the weights at the end and at the start, from a run or from two trees.

    Args:
        params: a run or weights.
        initial: weights, or None for a run.

    Returns:
        Weights at the end, weights at the start.

    Raises:
        BadInput: `initial` is missing, or is given beside a run.
    """
    if isinstance(params, Trained):
        if initial is not None:
            raise BadInput("initial was given beside a run, which knows its start; give distance(run) alone")
        return as_tree(params.params), as_tree(params.initial_params, "initial")
    if initial is None:
        raise BadInput("initial is missing; give the weights at the start, or a run that has initial_params")
    return as_tree(params), as_tree(initial, "initial")


def tree_norm(tree: Mapping[str, Tensor]) -> float:
    """Return the L2 norm over all tensors."""
    return math.hypot(*map(norm, tree.values()))


def norm(p: Tensor) -> float:
    """Return the L2 norm of a tensor, accumulated in float64."""
    return float(torch.linalg.vector_norm(p, dtype=torch.float64))
