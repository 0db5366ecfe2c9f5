"""Weights to begin with that are not fresh: those of another run."""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.training.run import Run
from gengap.training.snapshots import Snapshot

Start = Run | Snapshot | Mapping[str, Tensor]


def as_start(start: Start | None) -> Mapping[str, Tensor] | None:
    """Take weights in any form.

    Args:
        start: a run (its last weights), a snapshot, weights and buffers by name, or None.

    Returns:
        Weights and buffers by name, or None.

    Raises:
        BadInput: it is none of these.
    """
    if start is None:
        return None
    if isinstance(start, Run | Snapshot):
        return {**start.params, **start.buffers}
    if not isinstance(start, Mapping) or not all(isinstance(value, Tensor) for value in start.values()):
        raise BadInput(f"start is a {type(start).__name__}; give a run, a snapshot, or weights by name")
    return start


def memory_of(start: Start | None) -> Mapping[str, Any] | None:
    """Give the memory of an optimizer that a start brings along, or None."""
    return start.memory if isinstance(start, Snapshot) else None


def take_up(optimizer: Optimizer, memory: Mapping[str, Any] | None) -> None:
    """Let an optimizer go on with the memory of another one; its own settings stay.

    Args:
        optimizer: fresh.
        memory: what `Optimizer.state_dict` gave, or None: it begins with an empty memory.

    Raises:
        BadInput: the optimizer, or the method around it, is of another kind.
    """
    if memory is None:
        return
    own = optimizer.state_dict()
    alike = set(own) == set(memory) == {"state", "param_groups"}
    sizes = [[len(group["params"]) for group in one["param_groups"]] for one in (own, memory)] if alike else [0, 1]
    if sizes[0] != sizes[1] or settings(own) != settings(memory):
        raise BadInput(
            "the snapshot holds the memory of another optimizer; start without it, or train with the same one"
        )
    optimizer.load_state_dict({"state": copy.deepcopy(memory["state"]), "param_groups": own["param_groups"]})


def settings(state: Mapping[str, Any]) -> set[str]:
    """Name the settings of an optimizer: each kind has its own."""
    return {name for group in state["param_groups"] for name in group}


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Hash names and values of weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
