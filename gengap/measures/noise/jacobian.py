"""The derivatives of the losses of single samples by the weights, J of shape (N, P), known by products with it."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gengap.measures.kept_graphs import KeptGraphs
from gengap.measures.protocols import SamplePiece, measured_on, sample_pieces
from gengap.measures.session import Session
from gengap.measures.trees import common_dtype, size, unravel


class Rows:
    """J for the samples of one piece, as a graph that can be gone through forwards and backwards.

    Args:
        piece: the samples.
        own: the weights, which require a gradient.

    Attributes:
        size: samples.
    """

    def __init__(self, piece: SamplePiece, own: Mapping[str, Tensor]) -> None:
        self.size, self._leaves = piece.size, list(own.values())
        with torch.enable_grad():
            self._losses = piece.losses(piece.outputs(own))
            self._weight = torch.zeros_like(self._losses, requires_grad=True)
            back = torch.autograd.grad(self._losses, self._leaves, self._weight, create_graph=True, allow_unused=True)
        self._linked = [(i, g) for i, g in enumerate(back) if g is not None and g.requires_grad]

    def times(self, direction: Sequence[Tensor]) -> Tensor:
        """Return J v: how fast each sample's loss rises along v, shape (size,).

        The product with the transpose is linear in what it multiplies; its derivative by that is J.
        """
        outs, along = [g for _, g in self._linked], [direction[i] for i, _ in self._linked]
        (risen,) = torch.autograd.grad(outs, self._weight, along, retain_graph=True)
        return risen

    def transposed(self, weights: Tensor) -> Sequence[Tensor | None]:
        """Return the sum of the samples' gradients with these weights, shape (size,), one tensor a weight."""
        to = weights.to(self._losses)
        return torch.autograd.grad(self._losses, self._leaves, to, retain_graph=True, allow_unused=True)


class Jacobian:
    """J over all samples of a loss.

    The graph is kept from product to product for as many pieces as there is room for.

    Args:
        session: loss, weights and memory.
        what: the measure, for messages.
        room: bytes for graphs that are kept.

    Attributes:
        size: weights, P.
        dtype: of vectors of shape (P,).
        device: where they lie.
        samples: N.
    """

    def __init__(self, session: Session, what: str, room: int) -> None:
        self.size, self.device, self.dtype = size(session.params), session.device, common_dtype(session.params)
        self._session, self._what = session, what
        self.samples = measured_on(session.loss)["samples"] or sum(p.size for p in self._pieces())
        self._own = {name: p.detach().clone().requires_grad_() for name, p in session.params.items()}
        self._graphs: KeptGraphs[SamplePiece, Rows] = KeptGraphs(session, room)

    def times(self, vector: Tensor) -> Tensor:
        """Return J v, shape (N,), float64 on the CPU, for v of shape (P,)."""
        direction = list(unravel(vector, self._own).values())
        return torch.cat([rows.times(direction).detach().to("cpu", torch.float64) for rows in self._each()])

    def transposed(self, weights: Tensor) -> Tensor:
        """Return the transpose of J times weights of shape (N,): the weighted sum of gradients, shape (P,)."""
        out, start = self._zeros(), 0
        for rows in self._each():
            self._add(out, rows, weights[start : start + rows.size])
            start += rows.size
            del rows
        return out

    def squared(self, vector: Tensor) -> Tensor:
        """Return the transpose of J times J v, shape (P,), in one pass over the samples."""
        direction, out = list(unravel(vector, self._own).values()), self._zeros()
        for rows in self._each():
            self._add(out, rows, rows.times(direction).detach())
            del rows
        return out

    def _pieces(self) -> Iterator[SamplePiece]:
        return sample_pieces(self._session.loss, self._session.params, self._what)

    def _zeros(self) -> Tensor:
        return torch.zeros(self.size, dtype=self.dtype, device=self.device)

    def _add(self, out: Tensor, rows: Rows, weights: Tensor) -> None:
        found = rows.transposed(weights)
        for slot, g in zip(out.split([p.numel() for p in self._own.values()]), found, strict=True):
            if g is not None:
                slot.add_(g.reshape(-1))

    def _each(self) -> Iterator[Rows]:
        return self._graphs.each(self._pieces, lambda piece: Rows(piece, self._own))
