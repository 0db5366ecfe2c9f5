"""A loss as a function of some of its weights, the others, and single rows of them, held where they are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gengap.measures.protocols import (
    Chunked,
    LossFunction,
    Params,
    Reread,
    SamplePiece,
    Scored,
    check_differentiable,
    differentiated,
)

Rows = Mapping[str, tuple[int, Tensor]]  # by weight name: the index of a row, and the row


def with_rows(params: Params, rows: Rows) -> dict[str, Tensor]:
    """Put rows in the place of those that weights have there; no derivative goes through them."""
    out = dict(params)
    for name, (index, row) in rows.items():
        place = torch.tensor([index], device=out[name].device)
        out[name] = out[name].index_copy(0, place, row.to(out[name])[None])
    return out


@dataclass(frozen=True, slots=True)
class PartPiece:
    """A piece of such a loss.

    Attributes:
        piece: of the whole loss.
        held: the weights that do not move.
        size: samples.
        inputs: of the samples.
        targets: of the samples.
        rows: of weights that move, rows that do not.
    """

    piece: SamplePiece
    held: Params
    size: int
    inputs: Any
    targets: Tensor
    rows: Rows = field(default_factory=dict)

    def whole(self, params: Params) -> dict[str, Tensor]:
        """Give all weights."""
        return {**self.held, **with_rows(params, self.rows)}

    def network(self, params: Params, inputs: Any) -> Tensor:
        """Return the outputs of the network for inputs."""
        return self.piece.network(self.whole(params), inputs)

    def outputs(self, params: Params) -> Tensor:
        """Return the outputs of the network for the piece."""
        return self.network(params, self.inputs)

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the mean loss of outputs."""
        return self.piece.mean(outputs)

    def losses(self, outputs: Tensor) -> Tensor:
        """Return the loss of every sample."""
        return self.piece.losses(outputs)

    def __call__(self, params: Params) -> Tensor:
        """Return the mean loss over the piece."""
        return self.piece(self.whole(params))

    def head(self, count: int) -> "PartPiece":
        """Give the first `count` samples."""
        return part_piece(self.piece.head(count), self.held, self.rows)


@dataclass(frozen=True, slots=True)
class Part:
    """A loss of which some weights are held; it has the methods of `LossFunction` for the others.

    Attributes:
        loss: of all weights.
        held: the weights that do not move, by name.
        order: names of all weights as the user has them; a plain function may go by their order.
        rows: of weights that move, rows that do not.
    """

    loss: LossFunction
    held: Params
    order: tuple[str, ...]
    rows: Rows = field(default_factory=dict)

    def whole(self, params: Params) -> dict[str, Tensor]:
        """Give all weights."""
        moving = with_rows(params, self.rows)
        return {name: moving[name] if name in moving else self.held[name] for name in self.order}

    def __call__(self, params: Params) -> Tensor:
        """Return the mean loss."""
        return self.loss(self.whole(params))

    def value(self, params: Params) -> float:
        """Return the mean loss without a graph."""
        return self.loss.value(self.whole(params))

    def value_and_grad(self, params: Params) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss and its gradient by the weights that move."""
        return differentiated(self, params)

    def score(self, params: Params) -> Scored:
        """Return mean loss and accuracy."""
        return self.loss.score(self.whole(params))

    def describe(self) -> dict[str, Any]:
        """Say on what the loss is measured."""
        return self.loss.describe()

    def changed_sample(self) -> int | None:
        """Return the index of a sample that differs between two readings of the data set, or None."""
        return self.loss.changed_sample() if isinstance(self.loss, Reread) else None


@dataclass(frozen=True, slots=True)
class ChunkedPart(Part):
    """The same for a loss that is made of pieces."""

    @property
    def chunked(self) -> Chunked:
        """The whole loss, known to be made of pieces."""
        assert isinstance(self.loss, Chunked)
        return self.loss

    @property
    def chunk_size(self) -> int:
        """Samples that go through the network at once."""
        return self.chunked.chunk_size

    def with_chunk(self, size: int) -> "ChunkedPart":
        """Give the same in smaller pieces."""
        return ChunkedPart(self.chunked.with_chunk(size), self.held, self.order, self.rows)

    def chunks(self, params: Params) -> Iterator[PartPiece]:
        """Yield the pieces."""
        for piece in self.chunked.chunks(self.whole(params)):
            yield part_piece(piece, self.held, self.rows)

    def value_and_grad(self, params: Params) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss and its gradient by the weights that move, piece by piece."""
        own = {name: p.detach().requires_grad_() for name, p in params.items()}
        gradient = {name: torch.zeros_like(p) for name, p in own.items()}
        value, total = 0.0, 0
        for piece in self.chunks(own):
            with torch.enable_grad():
                mean = piece(own)
            check_differentiable(mean)
            found = torch.autograd.grad(mean, list(own.values()), allow_unused=True, materialize_grads=True)
            value, total = value + float(mean.detach()) * piece.size, total + piece.size
            for g, one in zip(gradient.values(), found, strict=True):
                g.add_(one, alpha=piece.size)
        return value / total, {name: g.div_(total) for name, g in gradient.items()}


def part_piece(piece: SamplePiece, held: Params, rows: Rows) -> PartPiece:
    """Hold some weights of a piece fixed, and some rows of the others."""
    return PartPiece(piece, held, piece.size, piece.inputs, piece.targets, rows)


def part(loss: LossFunction, held: Params, order: tuple[str, ...], rows: Rows | None = None) -> Part:
    """Hold some weights of a loss fixed, and some rows of the others; `order` has the names of all."""
    kind = ChunkedPart if isinstance(loss, Chunked) else Part
    return kind(loss, held, order, rows or {})
