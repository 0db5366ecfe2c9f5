"""The derivatives of a network's outputs by its weights, J, known by products with it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.measures.protocols import SamplePiece, sample_pieces
from gengap.measures.session import Session
from gengap.measures.trees import ravel, unravel


class OutputDerivatives:
    """J, the derivatives of all outputs of a loss's samples by the weights, known by products with it.

    Args:
        session: loss, weights and memory.
        what: the measure, for messages.
    """

    def __init__(self, session: Session, what: str) -> None:
        self._session, self._what = session, what
        self._own = {name: p.detach().clone().requires_grad_() for name, p in session.params.items()}
        self._leaves = list(self._own.values())
        self._size = 0

    def mean(self) -> Tensor:
        """Return <g>, the mean over samples and outputs, shape (P,)."""
        total, self._size = torch.zeros_like(ravel(self._own)), 0
        for piece in self._pieces():
            with torch.enable_grad():
                y = piece.outputs(self._own)
            self._size += y.numel()
            total += self._joined(
                torch.autograd.grad(check_linked(y), self._leaves, torch.ones_like(y), allow_unused=True)
            )
        return total / self._size

    def squares(self, probes: int, seed: int) -> Tensor:
        """Estimate <g^2> of every weight, shape (P,), from random signs over the outputs; after `mean`, which counts."""
        rng = torch.Generator().manual_seed(seed)
        total = torch.zeros_like(ravel(self._own))
        for _ in range(probes):
            pulled = torch.zeros_like(total)
            for piece in self._pieces():
                with torch.enable_grad():
                    y = piece.outputs(self._own)
                signs = 2.0 * torch.randint(2, y.shape, generator=rng) - 1
                pulled += self._joined(torch.autograd.grad(y, self._leaves, signs.to(y), allow_unused=True))
            total += pulled.square()
        return total / (probes * self._size)

    def moment(self, z: Tensor) -> Tensor:
        """Return M z, shape (P,), for z of that shape; after `mean`, which counts."""
        total, along = torch.zeros_like(z), list(unravel(z, self._own).values())
        for piece in self._pieces():
            with torch.enable_grad():
                y = piece.outputs(self._own)
                weight = torch.zeros_like(y, requires_grad=True)
                back = torch.autograd.grad(y, self._leaves, weight, create_graph=True, allow_unused=True)
            # the product with the transpose is linear in what it multiplies; its derivative by that is J
            linked = [i for i, b in enumerate(back) if b is not None]
            (risen,) = torch.autograd.grad(
                [back[i] for i in linked], weight, [along[i] for i in linked], retain_graph=True
            )
            total += self._joined(torch.autograd.grad(y, self._leaves, risen, allow_unused=True))
        return total / self._size

    def _pieces(self) -> Iterator[SamplePiece]:
        return sample_pieces(self._session.loss, self._session.params, self._what)

    def _joined(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Join gradients to one vector, zero for weights that the outputs do not depend on."""
        pairs = zip(parts, self._leaves, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).detach().reshape(-1) for g, p in pairs])


def check_linked(outputs: Tensor) -> Tensor:
    """Refuse outputs that no weight has a say in.

    Args:
        outputs: of a network whose weights require a gradient.

    Returns:
        The same.

    Raises:
        BadInput: there is no derivative.
    """
    if not outputs.requires_grad:
        raise BadInput("the outputs do not depend on the weights in a way torch can differentiate; check the network")
    return outputs
