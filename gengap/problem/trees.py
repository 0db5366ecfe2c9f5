"""Inputs of any shape: one tensor, a tuple of them, or a dict of them by argument name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput

Tree = Any  # Tensor | tuple[Tree, ...] | dict[str, Tree]


def map_tensors(change: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply `change` to every tensor of a tree."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {name: map_tensors(change, part) for name, part in tree.items()}
    return tuple(map_tensors(change, part) for part in tree)


def leaves(tree: Tree) -> list[Tensor]:
    """List the tensors of a tree, dicts in their order.

    Args:
        tree: tensors, tuples and dicts.

    Returns:
        The tensors.

    Raises:
        BadInput: something else is among them.
    """
    if isinstance(tree, Tensor):
        return [tree]
    if not isinstance(tree, dict | tuple | list):
        raise BadInput(f"inputs hold a {type(tree).__name__}; give tensors, or tuples or dicts of them")
    parts = tree.values() if isinstance(tree, dict) else tree
    return [leaf for part in parts for leaf in leaves(part)]


def count(tree: Tree) -> int:
    """Return the length of the first axis of a tree's tensors."""
    return leaves(tree)[0].shape[0]


def split(tree: Tree, size: int | list[int]) -> list[Tree]:
    """Cut a tree along the first axis into views of at most `size` samples, or of these sizes."""
    if isinstance(tree, Tensor):
        return list(tree.split(size))
    if isinstance(tree, dict):
        columns = {name: split(part, size) for name, part in tree.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return list(zip(*(split(part, size) for part in tree), strict=True))


def feed(model: nn.Module, inputs: Tree) -> Tensor:
    """Call a model: a tuple spreads over its arguments, a dict over its keyword arguments."""
    if isinstance(inputs, Tensor):
        return model(inputs)  # type: ignore[no-any-return]
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)  # type: ignore[no-any-return]


def arguments(inputs: Tree) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Give positional and keyword arguments for `torch.func.functional_call`."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    return ((), inputs) if isinstance(inputs, dict) else (inputs, {})


def cast(tree: Tree, device: torch.device, dtype: torch.dtype) -> Tree:
    """Move a tree to a device; floating tensors also take the dtype."""
    return map_tensors(lambda x: x.to(device, dtype if x.is_floating_point() else x.dtype), tree)
