"""How far weights have moved from where they began."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import finite
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
class Distance:
    """Euclidean distance from the start.

    Attributes:
        from_init: L2 norm of the difference over all weights, in units of a weight.
        relative: from_init over the norm of the start; None where the start is zero.
        norm: L2 norm of the weights themselves.
        per_layer: L2 norm of the difference of each tensor, by name; their squares add up to from_init squared.
        dtype: of the weights; differences and sums are float64.
        bound: "exact", up to float64 rounding.
    """

    from_init: float
    relative: float | None
    norm: float
    per_layer: dict[str, float]
    dtype: str
    bound: str = "exact"

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form; what is not a finite number is null."""
        layers = {name: finite(x) for name, x in self.per_layer.items()}
        numbers = {"from_init": finite(self.from_init), "norm": finite(self.norm), "per_layer": layers}
        relative = None if self.relative is None else finite(self.relative)
        return {**asdict(self), **numbers, "relative": relative}

    def __str__(self) -> str:
        relative = "" if self.relative is None else f" ({self.relative:.4g} of the norm at the start)"
        return f"{self.from_init:.4g} from the start{relative}, norm {self.norm:.4g}"


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
    origin = math.hypot(*map(norm, start.values()))
    relative = from_init / origin if origin else None
    return Distance(from_init, relative, math.hypot(*map(norm, end.values())), layers, dtype_name(end))


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


def norm(p: Tensor) -> float:
    """Return the L2 norm of a tensor, accumulated in float64."""
    return float(torch.linalg.vector_norm(p, dtype=torch.float64))
