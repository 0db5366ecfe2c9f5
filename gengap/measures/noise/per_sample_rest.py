"""Gradients of single samples by any weights, written out: for what no layer's shortcut is known."""

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.func import grad, vmap

from gengap.measures.protocols import SamplePiece
from gengap.measures.sample_rows import cut, with_samples
from gengap.problem.trees import map_tensors

Rows = dict[str, Tensor]  # one tensor a weight, shape (size, *shape of the weight)


def rows(piece: SamplePiece, params: Mapping[str, Tensor], names: frozenset[str]) -> Rows:
    """Return the gradient of every sample.

    `torch.func.vmap` makes them together; a network that it cannot follow is differentiated sample by sample.

    Args:
        piece: the samples.
        params: the weights that are measured.
        names: of those to differentiate by.

    Returns:
        By name, shape (size, *shape of the weight).
    """
    own = {name: params[name].detach() for name in params if name in names}
    rest = {name: p.detach() for name, p in params.items() if name not in names}

    def loss(weights: dict[str, Tensor], inputs: object, target: Tensor) -> Tensor:
        alone = with_samples(piece, map_tensors(lambda x: x.unsqueeze(0), inputs), target.unsqueeze(0))
        return alone({**rest, **weights})

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # operators that vmap runs one by one
            found: Rows = vmap(grad(loss), (None, 0, 0))(own, piece.inputs, piece.targets)
    except (RuntimeError, TypeError, ValueError):
        # what vmap cannot follow has no error of its own: a RuntimeError where a rule is missing or a number is asked for, a
        # TypeError or ValueError where code sees a tensor of vmap's. An error of the network itself is raised again by the loop
        return looped(piece, params, names)
    return found


def looped(piece: SamplePiece, params: Mapping[str, Tensor], names: frozenset[str]) -> Rows:
    """Return the same by one backward pass a sample."""
    own = {name: p.detach().requires_grad_(name in names) for name, p in params.items()}
    wanted = [name for name in own if name in names]
    found = []
    for alone in cut(piece, 1):
        with torch.enable_grad():
            value = alone(own)
        by = [own[name] for name in wanted]
        found.append(torch.autograd.grad(value, by, allow_unused=True, materialize_grads=True))
    return {name: torch.stack(column) for name, column in zip(wanted, zip(*found, strict=True), strict=True)}


def rows_in_blocks(
    piece: SamplePiece, params: Mapping[str, Tensor], names: frozenset[str], room: int
) -> Iterator[tuple[slice, Rows]]:
    """Yield the gradients of some samples at a time.

    Args:
        piece: the samples.
        params: the weights.
        names: of those to differentiate by.
        room: bytes that the gradients of a block may take; a block has at least one sample.

    Yields:
        Which samples, and their gradients.
    """
    each = 3 * sum(p.nbytes for n, p in params.items() if n in names)  # the gradients, their squares, and on the way
    step = max(1, min(piece.size, room // max(each, 1)))
    for i, block in enumerate(cut(piece, step)):
        yield slice(i * step, i * step + block.size), rows(block, params, names)


def squares_of(found: Rows, metric: Mapping[str, Tensor] | None) -> Tensor:
    """Return the squared norm of every sample's gradient, shape (size,), float64 on the CPU."""
    total = zeros(found)
    for name, g in found.items():
        square = g.square() if metric is None else g.square() * metric[name]
        total += square.flatten(1).sum(1).to("cpu", torch.float64)
    return total


def along_of(found: Rows, direction: Mapping[str, Tensor]) -> Tensor:
    """Return the inner product of every sample's gradient with a direction, shape (size,), float64 on the CPU."""
    total = zeros(found)
    for name, g in found.items():
        total += (g * direction[name]).flatten(1).sum(1).to("cpu", torch.float64)
    return total


def zeros(found: Rows) -> Tensor:
    """Give one zero a sample, shape (size,), float64 on the CPU."""
    return torch.zeros(len(next(iter(found.values()))), dtype=torch.float64)


def as_matrix(found: Rows) -> Tensor:
    """Put the gradients side by side, shape (size, P)."""
    return torch.cat([g.flatten(1) for g in found.values()], dim=1)
