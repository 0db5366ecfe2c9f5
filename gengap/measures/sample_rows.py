"""Some samples of a piece of a loss, as a piece of their own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gengap.measures.part import PartPiece
from gengap.measures.protocols import SamplePiece
from gengap.problem.trees import leaves, map_tensors


def with_samples(piece: SamplePiece, inputs: Any, targets: Tensor) -> SamplePiece:
    """Give a piece of the same loss on other samples.

    Args:
        piece: a dataclass with fields size, inputs and targets, or such a piece with weights held fixed.
        inputs: of the other samples, first axis samples.
        targets: of the other samples.

    Returns:
        The piece.
    """
    size = targets.shape[0]
    if isinstance(piece, PartPiece):
        whole = with_samples(piece.piece, inputs, targets)
        return replace(piece, piece=whole, size=size, inputs=inputs, targets=targets)
    return replace(piece, size=size, inputs=inputs, targets=targets)  # type: ignore[type-var]


def select(piece: SamplePiece, indices: Tensor) -> SamplePiece:
    """Keep the samples of a piece with these indices, in this order."""
    return with_samples(piece, map_tensors(lambda x: x[indices], piece.inputs), piece.targets[indices])


def cut(piece: SamplePiece, size: int) -> Iterator[SamplePiece]:
    """Cut a piece into consecutive ones of at most `size` samples."""
    for start in range(0, piece.size, size):
        stop = start + size
        inputs = map_tensors(lambda x, a=start, b=stop: x[a:b], piece.inputs)  # type: ignore[misc]
        yield with_samples(piece, inputs, piece.targets[start:stop])


def taken(pieces: Sequence[SamplePiece], indices: Tensor) -> SamplePiece:
    """Put samples from several pieces of one loss together; indices count through all pieces, on the CPU."""
    start, parts = 0, []
    for piece in pieces:
        own = indices[(indices >= start) & (indices < start + piece.size)] - start
        if len(own):
            parts.append(select(piece, own.to(piece.targets.device)))
        start += piece.size
    columns = iter([torch.cat(column) for column in zip(*(leaves(p.inputs) for p in parts), strict=True)])
    inputs = map_tensors(lambda _: next(columns), parts[0].inputs)
    return with_samples(parts[0], inputs, torch.cat([p.targets for p in parts]))
