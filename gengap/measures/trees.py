"""Weights by name, and the same weights as one vector."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gengap.core.errors import BadInput

Vector = npt.NDArray[np.float64]
SINGLE = "params"  # the name under which a single tensor travels


def as_tree(params: Any, what: str = "params") -> dict[str, Tensor]:
    """Take weights by name, or one tensor.

    Args:
        params: a mapping from name to floating tensor, or a floating tensor (which gets the name "params").
        what: what to call them in messages.

    Returns:
        Detached tensors that share memory with the user's, in the user's order.

    Raises:
        BadInput: there is no number in them, or one of them is no floating tensor.
    """
    named = {SINGLE: params} if isinstance(params, Tensor) else params
    if not isinstance(named, Mapping):
        raise BadInput(f"{what} is a {type(params).__name__}; give a dict from weight name to tensor, or one tensor")
    for name, p in named.items():
        if not isinstance(p, Tensor):
            raise BadInput(f"{what}[{name!r}] is a {type(p).__name__}; give tensors")
        if not p.is_floating_point():
            raise BadInput(f"{what}[{name!r}] is {p.dtype}; give trainable weights only, which are floating")
    if not sum(p.numel() for p in named.values()):
        raise BadInput(f"{what} holds no numbers ({len(named)} tensors); give at least one weight")
    return {name: p.detach() for name, p in named.items()}


def check_same_layout(a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: tuple[str, str]) -> None:
    """Refuse two trees that are not of one network.

    Args:
        a: one tree.
        b: the other; the order of names may differ.
        names: what to call the two in messages.

    Raises:
        BadInput: names or shapes differ.
    """
    one, other = names
    if missing := sorted(set(a) ^ set(b)):
        raise BadInput(f"{one} and {other} are not of one network: {missing[0]!r} is in only one of them")
    for name, p in a.items():
        if p.shape != b[name].shape:
            raise BadInput(
                f"{one}[{name!r}] has shape {tuple(p.shape)} and {other}[{name!r}] has {tuple(b[name].shape)}; "
                f"give the weights of one network"
            )


def flatten(tree: Mapping[str, Tensor]) -> Vector:
    """Copy a tree into one float64 vector of shape (P,), in the order of its names."""
    out = np.empty(sum(p.numel() for p in tree.values()))
    start = 0
    for p in tree.values():
        end = start + p.numel()
        out[start:end] = p.detach().reshape(-1).to("cpu", torch.float64).numpy()
        start = end
    return out


def fill(tree: Mapping[str, Tensor], vector: Vector) -> None:
    """Write a float64 vector of shape (P,) into the tensors of a tree, rounded to their dtypes."""
    source = torch.from_numpy(vector)
    start = 0
    with torch.no_grad():
        for p in tree.values():
            end = start + p.numel()
            p.copy_(source[start:end].view(p.shape))
            start = end


def ravel(tree: Mapping[str, Tensor]) -> Tensor:
    """Copy a tree into one vector of shape (P,) in its own dtype and on its own device."""
    return torch.cat([p.detach().reshape(-1) for p in tree.values()])


def unravel(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """View a vector of shape (P,) as tensors of the names, shapes and dtypes of another tree."""
    parts = vector.split([p.numel() for p in like.values()])
    return {name: v.view(p.shape).to(p.dtype) for v, (name, p) in zip(parts, like.items(), strict=True)}


def dot(x: Tensor, y: Tensor) -> float:
    """Return the inner product of two vectors, summed in float64.

    `torch.dot` sums float32 in one running total on a CPU: over a million entries it is wrong by 1e-4.
    """
    return float((x * y).sum(dtype=torch.float64))


def norm(vector: Tensor) -> float:
    """Return the Euclidean norm of a tensor, summed in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def empty_like(tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Allocate tensors of the same names, shapes, dtypes and devices."""
    return {name: torch.empty_like(p, requires_grad=False) for name, p in tree.items()}


def size(tree: Mapping[str, Tensor]) -> int:
    """Count the numbers of a tree, P."""
    return sum(p.numel() for p in tree.values())


def common_dtype(tree: Mapping[str, Tensor]) -> torch.dtype:
    """Return the dtype of the vector that a tree is raveled into."""
    return functools.reduce(torch.promote_types, (p.dtype for p in tree.values()))


def dtype_name(tree: Mapping[str, Tensor]) -> str:
    """Name the dtype of a tree: "float32", or several joined by "+"."""
    return "+".join(dict.fromkeys(str(p.dtype).removeprefix("torch.") for p in tree.values()))


def resolution(tree: Mapping[str, Tensor]) -> float:
    """Return the coarsest relative spacing of numbers among the dtypes of a tree."""
    return max(torch.finfo(p.dtype).eps for p in tree.values())


def is_finite(tree: Mapping[str, Tensor]) -> bool:
    """Tell whether every number of a tree is finite."""
    return all(math.isfinite(p.detach().sum(dtype=torch.float64)) or bool(p.isfinite().all()) for p in tree.values())
