"""What a pass over samples will take, foretold from two passes over a few of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gengap.measures import memory as m
from gengap.measures.curvature.linearised import second_derivative
from gengap.measures.live_bytes import LiveBytes
from gengap.measures.protocols import Chunked, SamplePiece, check_differentiable
from gengap.problem.trees import leaves

Pass = Literal["value", "gradient", "product"]
WORKING: Mapping[Pass, int] = {
    "value": 0,
    "gradient": 3,
    "product": 5,
}  # vectors as long as the weights in a pass itself


@dataclass(frozen=True, slots=True)
class PassCost:
    """Bytes that each sample takes.

    Attributes:
        peak: at the worst moment of a pass.
        kept: for the graph that a product with the second derivative leaves behind, where it is kept; else 0.
    """

    peak: float
    kept: float


def pass_cost(loss: Chunked, params: Mapping[str, Tensor], passes: Pass) -> PassCost:
    """Foretell what one more sample costs; zeros where the split is too small to tell.

    Args:
        loss: evaluated on its first samples, `2 * TRIAL` at the most.
        params: where; they are differentiated by.
        passes: the kind of pass.

    Returns:
        The cost of a sample, with an allowance for what kernels allocate inside.

    Raises:
        BadInput: the loss does not depend on the weights.
    """
    first = next(iter(loss.chunks(params)))
    small = min(m.TRIAL, first.size // 2)
    if not small:
        return PassCost(0.0, 0.0)
    one, two = (trial(first.head(count), params, passes) for count in (small, 2 * small))
    read = sum(leaf.nbytes for leaf in [*leaves(first.inputs), first.targets]) / first.size
    # Moment by moment: with few samples the worst one may be where the weights count most.
    peak = max((b - a for a, b in zip(one.course, two.course, strict=False)), default=0) / small
    kept = max(0, two.kept - one.kept) / small
    return PassCost(max(0.0, peak) * m.TRANSIENT + read, kept * m.GRAPH)


@dataclass(frozen=True, slots=True)
class Trial:
    """Bytes in a pass over few samples.

    Attributes:
        course: after each operation.
        kept: those of the graph that a product leaves.
    """

    course: list[int]
    kept: int


def trial(piece: SamplePiece, params: Mapping[str, Tensor], passes: Pass) -> Trial:
    """Make one pass and count."""
    kept = 0
    with torch.set_grad_enabled(passes != "value"), LiveBytes() as live:
        own = {name: p.detach().requires_grad_(passes != "value") for name, p in params.items()}
        if passes == "product":
            product = second_derivative(piece, own)
            kept = live.now
            product([torch.ones_like(p) for p in own.values()])
        else:
            value = piece(own)
            if passes == "gradient":
                check_differentiable(value)
                torch.autograd.grad(value, list(own.values()), allow_unused=True)
    return Trial(live.course, kept)
