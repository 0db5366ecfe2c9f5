"""What several checkpoints span: inner products and combinations of their differences from one of them, in float64."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.measures.landscape.positions import Flat, Position, Trees
from gengap.measures.trees import Vector, check_same_layout

BLOCK = 1 << 16  # numbers of every checkpoint that are held in float64 at once


def gram(trees: Trees, origin: Mapping[str, Tensor]) -> Vector:
    """Multiply the differences of trees from an origin with each other.

    Args:
        trees: T of them, of the origin's names and shapes.
        origin: floating tensors by name; other names do not count.

    Returns:
        Inner products, float64 of shape (T, T). A block of T x 65,536 numbers is the most that is held.
    """
    found = np.zeros((len(trees), len(trees)))
    for name, p in origin.items():
        if p.is_floating_point():
            for _, rows in differences(trees, name, p):
                found += (rows @ rows.T).numpy()
    return found


def combinations(trees: Trees, origin: Mapping[str, Tensor], coefficients: Vector) -> list[dict[str, Tensor]]:
    """Combine the differences of trees from an origin.

    Args:
        trees: T of them.
        origin: floating tensors by name; other names are left out.
        coefficients: shape (K, T).

    Returns:
        K trees of the dtypes and devices of the origin, summed in float64.
    """
    weights = torch.from_numpy(np.ascontiguousarray(coefficients))
    found: list[dict[str, Tensor]] = [{} for _ in coefficients]
    for name, p in origin.items():
        if not p.is_floating_point():
            continue
        fresh = [torch.empty_like(p, memory_format=torch.contiguous_format) for _ in coefficients]
        for where, rows in differences(trees, name, p):
            for out, mixed in zip(fresh, weights @ rows, strict=True):
                out.view(-1)[where] = mixed.to(out.device, out.dtype)
        for tree, out in zip(found, fresh, strict=True):
            tree[name] = out
    return found


def differences(trees: Trees, name: str, origin: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the differences of one tensor block by block, float64 of shape (T, block), on the CPU, with their places."""
    flat = [tree[name].detach().reshape(-1) for tree in trees]
    start = origin.detach().reshape(-1)
    for first in range(0, start.numel(), BLOCK):
        where = slice(first, first + BLOCK)
        centre = start[where].to("cpu", torch.float64)
        yield where, torch.stack([row[where].to("cpu", torch.float64) - centre for row in flat])


def lengths(matrix: Vector) -> list[float]:
    """Return the lengths of vectors from their inner products."""
    return np.sqrt(np.clip(np.diag(matrix), 0, None)).tolist()  # type: ignore[no-any-return]


def buffer_flat(
    buffers: Sequence[Mapping[str, Tensor]] | None, origin: int, places: Sequence[Position], coefficients: Vector
) -> Flat | None:
    """Let buffers follow a plane as the weights do.

    Args:
        buffers: one set for each checkpoint, or None.
        origin: which of them lies at the origin.
        places: coordinates of the checkpoints that lie in the plane; their buffers are used there, bit for bit.
        coefficients: the axes as combinations of the differences of the other checkpoints from the origin, shape (2, T - 1).

    Returns:
        The plane of the buffers, or None.

    Raises:
        BadInput: their number is not that of the checkpoints, or they do not fit each other.
    """
    if buffers is None:
        return None
    count = coefficients.shape[1] + 1
    if len(buffers) != count:
        raise BadInput(
            f"buffers holds {len(buffers)} sets, but there are {count} checkpoints; give one for each, in order"
        )
    start, others = buffers[origin], [b for i, b in enumerate(buffers) if i != origin]
    for i, other in enumerate(others):
        check_same_layout(start, other, (f"buffers[{origin}]", f"buffers[{i + (i >= origin)}]"))
    known = dict(zip(places, buffers, strict=True)) if len(places) == count else {}
    return Flat(start, combinations(others, start, coefficients), known)
