"""Weights and buffers of K networks, one in front of the other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.training.network import make_network


@dataclass(slots=True, eq=False)
class Stack:
    """The networks of a fleet.

    Attributes:
        params: weights by name, shape (K, ...) each.
        buffers: running statistics and other buffers by name, shape (K, ...) each.
    """

    params: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def at(self, rows: Tensor) -> "Stack":
        """Copy some of the networks; `rows`, shape (R,), says which."""
        return Stack(taken(self.params, rows), taken(self.buffers, rows))

    @property
    def size(self) -> int:
        """Number of networks, K."""
        return next(iter(self.params.values())).shape[0]


@dataclass(slots=True, eq=False)
class FleetBatch:
    """A batch of every member.

    Attributes:
        inputs: a tensor, tuple or dict; tensors of shape (K, B, ...).
        targets: shape (K, B, ...).
    """

    inputs: Any
    targets: Tensor

    @property
    def size(self) -> int:
        """Samples of one member's batch, B."""
        return self.targets.shape[1]


def taken(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Copy some rows of tensors by name."""
    return {name: value.index_select(0, rows) for name, value in tensors.items()}


def row(tensors: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Copy one row of tensors by name."""
    return {name: value[k].clone() for name, value in tensors.items()}


def make_stack(problem: Problem, recipes: Sequence[Recipe], device: torch.device) -> tuple[nn.Module, Stack]:
    """Make the fresh networks of a fleet, each as it is made for a run alone.

    Args:
        problem: makes them.
        recipes: resolved; each has its seed.
        device: where they lie.

    Returns:
        The first of them, for its layers, and the weights and buffers of all.
    """
    make = partial(make_network, problem, device=device)
    first = make(recipes[0])
    models = [first, *(make(recipe) for recipe in recipes[1:])]
    params = [{name: p.detach() for name, p in model.named_parameters()} for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    return first, Stack(stacked(params), stacked(buffers))


def stacked(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put tensors of equal names in front of each other."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put the buffers of a network back when the block ends."""
    before = {name: b.clone() for name, b in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, b in model.named_buffers():
                b.copy_(before[name])
