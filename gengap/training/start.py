"""Weights to begin with that are not fresh: those of another run."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

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


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Hash names and values of weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
