"""Directions in the space of the weights: random or given, as they are or scaled filter by filter."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.measures.trees import as_tree, check_same_layout, dot, norm, size, unravel

Scaling = Literal["filter", "layer", "unit", "none"]
Vectors = Literal["zero", "whole"]
Tree = dict[str, Tensor]


def random_direction(like: Mapping[str, Tensor], seed: int, index: int) -> Tree:
    """Draw standard normal numbers of the shapes of the weights: the same on every device and in every dtype."""
    rng = torch.Generator().manual_seed(stream(seed, "direction", index))
    return {name: torch.randn(p.shape, generator=rng).to(p.device, p.dtype) for name, p in like.items()}


def given_direction(direction: Any, like: Mapping[str, Tensor], name: str) -> Tree:
    """Read a direction as the user has it.

    Args:
        direction: tensors by name, or one vector of shape (P,), or a tensor of the shape of a single weight.
        like: the weights that move.
        name: of the argument.

    Returns:
        A copy by name, in the dtypes of the weights.

    Raises:
        BadInput: it does not fit the weights, is not finite, or is zero.
    """
    if isinstance(direction, Tensor):
        if direction.numel() != size(like):
            raise BadInput(
                f"{name} has {direction.numel():,} numbers, but {size(like):,} weights move; give one number for each, or a "
                f"dict by name"
            )
        tree = unravel(direction.detach().reshape(-1), like)
    else:
        tree = as_tree(direction, name)
        check_same_layout(like, tree, ("the weights that move", name))
    copied = {key: tree[key].to(p.device, p.dtype, copy=True) for key, p in like.items()}
    length = length_of(copied)
    if not (math.isfinite(length) and length > 0):
        raise BadInput(f"{name} has length {length!r}; give a finite direction that is not zero")
    return copied


def scaled(direction: Tree, weights: Mapping[str, Tensor], scaling: Scaling, vectors: Vectors) -> Tree:
    """Scale a direction in place.

    Args:
        direction: by name.
        weights: of the same names.
        scaling: "filter": every filter, an entry of the first axis of a tensor of two or more axes, to the norm of the same
            filter of the weights; "layer": every tensor to the norm of that of the weights; "unit": the whole to length 1;
            "none": not at all.
        vectors: what "filter" and "layer" do with tensors of fewer axes (biases, norm parameters): "zero" them, or scale
            them as a "whole".

    Returns:
        The direction, without the tensors that are zeroed.

    Raises:
        BadInput: a choice is unknown, or nothing is left of the direction.
    """
    for value, choices, name in ((scaling, Scaling, "scaling"), (vectors, Vectors, "vectors")):
        if value not in get_args(choices):
            raise BadInput(f"{name} is {value!r}; choose one of {', '.join(get_args(choices))}")
    if scaling == "none":
        return direction
    if scaling == "unit":
        length = length_of(direction)
        return {name: d.div_(length) for name, d in direction.items()}
    kept = {name: d for name, d in direction.items() if d.ndim >= 2 or vectors == "whole"}
    found = {name: matched(d, weights[name], by_filter=scaling == "filter" and d.ndim >= 2) for name, d in kept.items()}
    if not length_of(found) > 0:
        raise BadInput(
            f"nothing is left of a direction with scaling={scaling!r} and vectors={vectors!r}: the weights that move are zero "
            f"or have one axis only; use vectors='whole' or scaling='unit'"
        )
    return found


def matched(direction: Tensor, weights: Tensor, *, by_filter: bool) -> Tensor:
    """Scale a tensor, or each entry of its first axis, to the norm of the weights; a zero direction stays zero."""
    rows = direction.view(len(direction), -1) if by_filter else direction.view(1, -1)
    own = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    target = torch.linalg.vector_norm(weights.reshape(rows.shape), dim=1, keepdim=True, dtype=torch.float64)
    factor = torch.where(own > 0, target / own, torch.zeros_like(own))
    return rows.mul_(factor.to(rows.dtype)).view(direction.shape)


def length_of(tree: Mapping[str, Tensor]) -> float:
    """Return the Euclidean length of a tree."""
    return math.hypot(*(norm(p) for p in tree.values()))


def cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the cosine of the angle between two directions."""
    inner = sum(dot(a[name], b[name]) for name in a.keys() & b.keys())
    return inner / (length_of(a) * length_of(b))
