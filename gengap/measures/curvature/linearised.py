"""Products with the second derivative of one piece of a loss: the graph of its gradient, built once and used many times."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gengap.measures.protocols import Piece, SamplePiece, check_differentiable
from gengap.measures.second_order import second_derivative_needed

Parts = Sequence[Tensor | None]  # one tensor a weight; None stands for zeros
Product = Callable[[Sequence[Tensor]], Parts]
Linearise = Callable[[Piece, Mapping[str, Tensor]], Product]


def second_derivative(piece: Piece, own: Mapping[str, Tensor]) -> Product:
    """Make the products with the Hessian of a piece: the gradient, differentiated along a direction."""
    leaves = list(own.values())
    value = piece(own)
    check_differentiable(value)
    slope = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    bent = [(i, g) for i, g in enumerate(slope) if g is not None and g.requires_grad]
    if not bent:
        return lambda _: [None] * len(leaves)

    def product(direction: Sequence[Tensor]) -> Parts:
        along = [direction[i] for i, _ in bent]
        with second_derivative_needed():
            return torch.autograd.grad([g for _, g in bent], leaves, along, retain_graph=True, allow_unused=True)

    return product


def outer_curvature(piece: Piece, own: Mapping[str, Tensor]) -> Product:
    """Make the products with the Gauss-Newton matrix of a piece: out to the outputs, through the loss, and back."""
    assert isinstance(piece, SamplePiece)
    leaves = list(own.values())
    outputs = piece.outputs(own)
    check_differentiable(outputs)
    weight = torch.zeros_like(outputs, requires_grad=True)
    back = torch.autograd.grad(outputs, leaves, weight, create_graph=True, allow_unused=True)
    linked = [(i, g) for i, g in enumerate(back) if g is not None and g.requires_grad]
    at = outputs.detach().requires_grad_()
    (slope,) = torch.autograd.grad(piece.mean(at), at, create_graph=True)
    if not slope.requires_grad:
        return lambda _: [None] * len(leaves)

    def product(direction: Sequence[Tensor]) -> Parts:
        along = [direction[i] for i, _ in linked]
        with second_derivative_needed():
            (moved,) = torch.autograd.grad([g for _, g in linked], weight, along, retain_graph=True)
        (bent,) = torch.autograd.grad(slope, at, moved, retain_graph=True)
        return torch.autograd.grad(outputs, leaves, bent, retain_graph=True, allow_unused=True)

    return product
