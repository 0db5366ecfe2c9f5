"""The derivatives of a network's outputs by its weights, J, known by products with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.measures.protocols import SamplePiece, sample_pieces
from gengap.measures.session import Session
from gengap.measures.trees import ravel, unravel


@dataclass(frozen=True, slots=True)
class OutputMoments:
    """Moments of the derivatives g of an output, over samples and outputs; M = <g g'>.

    Attributes:
        mean: <g>, shape (P,).
        squares: estimates of <g^2>, without bias, shape (P,).
        images: M z for every direction z, each of shape (P,).
    """

    mean: Tensor
    squares: Tensor
    images: list[Tensor]


class OutputGraph:
    """J for the samples of one piece, as a graph that can be gone through forwards and backwards.

    Args:
        piece: the samples.
        own: the weights, which require a gradient.

    Attributes:
        size: outputs, those of all samples together.

    Raises:
        BadInput: the outputs have no derivative.
    """

    def __init__(self, piece: SamplePiece, own: Mapping[str, Tensor]) -> None:
        self._own, self._leaves = own, list(own.values())
        with torch.enable_grad():
            outputs = piece.outputs(own)
            if not outputs.requires_grad:
                raise BadInput(
                    "the outputs do not depend on the weights in a way torch can differentiate; check the network"
                )
            self._outputs = outputs.reshape(-1)
            self._weight = torch.zeros_like(self._outputs, requires_grad=True)
            back = torch.autograd.grad(self._outputs, self._leaves, self._weight, create_graph=True, allow_unused=True)
        self.size = len(self._outputs)
        self._linked = [(i, g) for i, g in enumerate(back) if g is not None]

    def times(self, direction: Tensor) -> Tensor:
        """Return J v: how fast each output rises along v of shape (P,); shape (size,).

        The product with the transpose is linear in what it multiplies; its derivative by that is J.
        """
        along = list(unravel(direction, self._own).values())
        outs, risen = [g for _, g in self._linked], [along[i] for i, _ in self._linked]
        return torch.autograd.grad(outs, self._weight, risen, retain_graph=True)[0]

    def transposed(self, weights: Tensor) -> Tensor:
        """Return the sum of the derivatives of the outputs with weights of shape (size,); shape (P,)."""
        found = torch.autograd.grad(self._outputs, self._leaves, weights, retain_graph=True, allow_unused=True)
        pairs = zip(found, self._leaves, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).detach().reshape(-1) for g, p in pairs])


def output_moments(
    session: Session, what: str, *, directions: Sequence[Tensor], probes: int, seed: int
) -> OutputMoments:
    """Measure moments of the derivatives of the outputs.

    Args:
        session: loss, weights and memory.
        what: the measure, for messages.
        directions: z, each of shape (P,).
        probes: random vectors of signs u over the outputs, from which <g^2> is the mean of (J'u)^2.
        seed: of these.

    Returns:
        The moments, after one pass over the samples. Costs three backward passes for each direction and one for each probe.

    Raises:
        BadInput: the loss knows no samples, or the outputs have no derivative.
    """
    own = {name: p.detach().clone().requires_grad_() for name, p in session.params.items()}
    rng = torch.Generator().manual_seed(seed)
    zero, count = torch.zeros_like(ravel(own)), 0
    mean, squares, images = zero.clone(), zero.clone(), [zero.clone() for _ in directions]
    for piece in sample_pieces(session.loss, session.params, what):
        graph = OutputGraph(piece, own)
        ones = torch.ones(graph.size).to(zero)
        mean += graph.transposed(ones)
        for _ in range(probes):
            signs = 2.0 * torch.randint(2, (graph.size,), generator=rng) - 1
            squares += graph.transposed(signs.to(zero)).square() / probes
        for image, z in zip(images, directions, strict=True):
            image += graph.transposed(graph.times(z))
        count += graph.size
    return OutputMoments(mean / count, squares / count, [image / count for image in images])
