"""Matrices as large as the weights, known by their products with vectors: the Hessian and the Gauss-Newton matrix."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from gengap.measures.curvature.linearised import Linearise, Product, outer_curvature, second_derivative
from gengap.measures.kept_graphs import KeptGraphs
from gengap.measures.protocols import Piece, pieces, sample_pieces
from gengap.measures.session import Session
from gengap.measures.trees import common_dtype, size, unravel


class Operator(Protocol):
    """A symmetric matrix that multiplies vectors.

    Attributes:
        size: its order, P.
        dtype: of the vectors it takes and gives.
        device: where they lie.
        products: how many it has made.
    """

    size: int
    dtype: torch.dtype
    device: torch.device
    products: int

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply a vector of shape (P,)."""
        ...


class Dense:
    """A symmetric matrix given by its entries.

    Args:
        matrix: shape (P, P).
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.size = matrix, matrix.shape[0]
        self.dtype, self.device, self.products = matrix.dtype, matrix.device, 0

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply a vector of shape (P,)."""
        self.products += 1
        return self.matrix @ vector


class Curvature:
    """A second derivative of a mean loss, as the mean over the pieces of the loss.

    A product goes through the samples once. The graph of the first derivative is kept from product to product for as
    many pieces as the memory limit has room for; it is built again each time for the others, which costs half as much
    again.

    Args:
        session: loss, weights and memory.
        linearise: makes, from a piece and its weights (which require a gradient), the function that multiplies.
        every: use each `every`-th piece only: a cheaper matrix that is like the whole one.

    Attributes:
        size: its order, P.
        dtype: of the vectors.
        device: where they lie.
        products: made so far.
        kept: pieces whose graph is kept.
    """

    def __init__(self, session: Session, linearise: Linearise, *, every: int = 1) -> None:
        self.size, self.device, self.dtype = size(session.params), session.device, common_dtype(session.params)
        self.products = 0
        self._session, self._linearise, self._every = session, linearise, every
        self._own = {name: p.detach().clone().requires_grad_() for name, p in session.params.items()}
        self._graphs: KeptGraphs[Piece, tuple[int, Product]] = KeptGraphs(session, session.memory.free)

    @property
    def kept(self) -> int:
        """Pieces whose graph is kept."""
        return len(self._graphs.kept)

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply a vector of shape (P,)."""
        direction = list(unravel(vector, self._own).values())
        out = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        slots, total = out.split([p.numel() for p in self._own.values()]), 0
        for samples, product in self._graphs.each(self._chosen, self._made):
            total += samples
            for slot, found in zip(slots, product(direction), strict=True):
                if found is not None:
                    slot.add_(found.detach().reshape(-1), alpha=samples)
            del product  # its graph, before the next one is built
        self.products += 1
        return out.div_(total)

    def _made(self, piece: Piece) -> tuple[int, Product]:
        with torch.enable_grad():
            return piece.size, self._linearise(piece, self._own)

    def _chosen(self) -> Iterator[Piece]:
        for index, piece in enumerate(pieces(self._session.loss, self._own)):
            if index % self._every == 0:
                yield piece


def hessian(session: Session, *, every: int = 1) -> Curvature:
    """Give the Hessian of the loss; a product costs about two gradients (three where its graph is not kept)."""
    return Curvature(session, second_derivative, every=every)


def gauss_newton(session: Session, *, every: int = 1) -> Curvature:
    r"""Give the generalised Gauss-Newton matrix, the mean of :math:`J^T H_\ell J` over samples.

    It is the Hessian without the second derivative of the network, positive semi-definite where the loss is convex in
    the outputs, and a product costs about two thirds of one with the Hessian.

    Args:
        session: loss, weights and memory.
        every: use each `every`-th piece only.

    Returns:
        The operator.

    Raises:
        BadInput: the loss is a plain function.

    Source:
        Schraudolph 2002, Neural Computation 14(7).
    """
    next(sample_pieces(session.loss, session.params, "the Gauss-Newton matrix"))
    return Curvature(session, outer_curvature, every=every)
