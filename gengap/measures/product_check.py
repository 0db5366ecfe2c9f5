"""Whether products with the second derivative of a loss are right, tried on a few samples before they are believed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gengap.core.seeds import stream
from gengap.measures.curvature.linearised import second_derivative
from gengap.measures.part import PartPiece
from gengap.measures.protocols import Chunked, LossFunction, Params, Piece, SamplePiece, Whole
from gengap.measures.refused import Refused
from gengap.measures.sample_rows import with_samples
from gengap.measures.trees import common_dtype, dot, norm, ravel, size, unravel
from gengap.problem.trees import cast

TRIED = 8  # samples
STEP = 2.0**-25  # of the weights: in float64 six digits of a difference are left, and hardly a ReLU switches on the way
NOISE = 1e-5  # what rounding may make of such a difference, relative to the gradient
AGREE = 1e-3  # relative difference that is let pass
ROUNDING = 30.0  # square roots of the relative spacing of numbers that products may be off symmetry
VECTORS = 12  # of float64, as long as the weights, held at once
DOUBLE = torch.finfo(torch.float64).eps


class Precision(TorchDispatchMode):
    """Watches in which floating dtypes torch computes.

    Attributes:
        coarsest: the largest relative spacing of numbers among them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coarsest = DOUBLE

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler, two seconds and 80 MB, to leave it out

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and look at what comes out."""
        out = func(*args, **(kwargs or {}))
        for found in out if isinstance(out, tuple | list) else (out,):
            if isinstance(found, Tensor) and found.is_floating_point():
                self.coarsest = max(self.coarsest, torch.finfo(found.dtype).eps)
        return out


def check_second_derivative(loss: LossFunction, params: Params, room: float) -> None:
    """Refuse a loss whose products with the second derivative are wrong; torch makes some without a word.

    On a few samples in float64, the product with a random vector is compared with the difference of gradients along it.
    Nothing is concluded from a difference that changes with its step, as where a ReLU switches. Where float64 cannot be
    had (an operation lacks it or computes in less, the limit is too small, a plain function of float32 weights), two
    products must be those of a symmetric matrix; that overlooks a wrong matrix that is symmetric.

    Costs some four products of 8 samples; for a plain function, whose samples are not known, of the whole.

    Args:
        loss: the loss.
        params: the weights that are measured.
        room: bytes that may be taken.

    Raises:
        BadInput: the products are wrong, or there are none.
    """
    own = {name: p.detach() for name, p in params.items()}
    few: Piece = next(iter(loss.chunks(own))) if isinstance(loss, Chunked) else Whole(loss)
    if isinstance(few, SamplePiece):
        few = few.head(min(TRIED, few.size))
    off = mismatch_in_float64(few, own, room)
    if off is not None and off > AGREE:
        refuse(few, f"{100 * off:.2g} % off the difference of gradients")
    if off is None and (unlike := asymmetry(few, own)) > 1:
        refuse(few, f"not symmetric, by {unlike:.2g} times what rounding explains")


def refuse(piece: Piece, how: str) -> None:
    """Say what is wrong, why it may be, and what to do."""
    tried = f"{piece.size} samples" if isinstance(piece, SamplePiece) else "the loss"
    raise Refused(
        f"products with the second derivative of {tried} are wrong ({how}): an operation of the network or of the loss has "
        f"none that is right, for example torch's fused weight norm, a torch.autograd.Function whose backward is not "
        f"differentiable, or a detach(); write it with ordinary operations (a weight norm as g * v / v.norm()), or measure what "
        f"needs gradients only"
    )


def mismatch_in_float64(piece: Piece, params: Params, room: float) -> float | None:
    """Compare a product with a difference in float64; None where that cannot be had."""
    plain = not isinstance(piece, SamplePiece)
    if common_dtype(params) != torch.float64 and (plain or 8 * VECTORS * size(params) > room):
        return None
    try:
        return mismatch(*in_float64(piece, params))
    except Exception:  # a user's network may raise anything where it is given float64
        return None


def in_float64(piece: Piece, params: Params) -> tuple[Piece, dict[str, Tensor]]:
    """Convert some samples and the weights, held ones too."""
    tree = {name: p.detach().double() for name, p in params.items()}
    if not isinstance(piece, SamplePiece):
        return piece, tree
    device = next(iter(tree.values())).device
    inputs, targets = (cast(part, device, torch.float64) for part in (piece.inputs, piece.targets))
    double = with_samples(piece, inputs, targets)
    if isinstance(double, PartPiece):
        double = replace(double, held={name: p.double() for name, p in double.held.items()})
    return double, tree


def mismatch(piece: Piece, tree: dict[str, Tensor]) -> float | None:
    """Return how far a product is off the difference of gradients, relative to the two; None where it cannot be told."""
    step, watch = scaled_signs(tree, 0), Precision()
    with watch:
        (found,) = products(piece, tree, [step])
    if watch.coarsest > DOUBLE:
        return None
    off = farthest(piece, tree, step, found)
    if off is None or off <= AGREE:
        return off
    # weights without derivatives, such as a row that an embedding does not train, may move the loss all the same
    seen = (found != 0) | (gradient(piece, tree, 0.0, step) != 0)
    (found,) = products(piece, tree, [step * seen])
    return farthest(piece, tree, step * seen, found)


def farthest(piece: Piece, tree: dict[str, Tensor], step: Tensor, found: Tensor) -> float | None:
    """Compare a product with differences over a whole and a half step, tensor by tensor; the largest relative excess."""
    ahead, behind = (gradient(piece, tree, sign * STEP, step) for sign in (1, -1))
    whole = (ahead - behind) / (2 * STEP)
    ahead, behind = (gradient(piece, tree, sign * STEP / 2, step) for sign in (1, -1))
    half = (ahead - behind) / STEP
    if not all(bool(x.isfinite().all()) for x in (found, whole, half)):
        return None
    counts = [p.numel() for p in tree.values()]
    scales = [float(part.abs().max()) for part in scaled_signs(tree, 0).split(counts)]
    rows = [
        [scale * norm(x) for x in parts]
        for scale, *parts in zip(
            scales, *(v.split(counts) for v in (found - half, whole - half, found, half, ahead)), strict=True
        )
    ]
    floor = NOISE * sum(row[2] + row[3] + row[4] for row in rows)
    excess = [(off - 10 * unsure - floor) / max(one, other) for off, unsure, one, other, _ in rows if one or other]
    return max(excess, default=0.0)


def asymmetry(piece: Piece, tree: dict[str, Tensor]) -> float:
    """Return how far u'Hv is from v'Hu, relative to what rounding explains."""
    u, v = scaled_signs(tree, 0), scaled_signs(tree, 1)
    watch = Precision()
    with watch:
        moved_u, moved_v = products(piece, tree, [u, v])
    grain = max(watch.coarsest, torch.finfo(u.dtype).eps)
    size_of_both = norm(u * moved_v) + norm(v * moved_u)
    unlike = abs(dot(u, moved_v) - dot(v, moved_u))
    return unlike / (ROUNDING * grain**0.5 * size_of_both) if size_of_both else 0.0


def products(piece: Piece, tree: dict[str, Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Multiply vectors of shape (P,) with the second derivative of a piece."""
    own = {name: p.clone().requires_grad_() for name, p in tree.items()}
    with torch.enable_grad():
        product = second_derivative(piece, own)
    out = []
    for vector in vectors:
        parts = zip(own.items(), product(list(unravel(vector, own).values())), strict=True)
        out.append(ravel({name: torch.zeros_like(p) if found is None else found for (name, p), found in parts}))
    return out


def gradient(piece: Piece, tree: dict[str, Tensor], length: float, step: Tensor) -> Tensor:
    """Return the gradient of a piece some way along a step, shape (P,)."""
    own = {name: p.requires_grad_() for name, p in unravel(ravel(tree) + length * step, tree).items()}
    with torch.enable_grad():
        value = piece(own)
        found = torch.autograd.grad(value, list(own.values()), allow_unused=True, materialize_grads=True)
    return ravel(dict(zip(own, found, strict=True)))


def scaled_signs(tree: dict[str, Tensor], which: int) -> Tensor:
    """Draw random signs of the size of the weights of each tensor, shape (P,): the same on every device."""
    generator = torch.Generator().manual_seed(stream(0, "product check", which))
    usual = norm(ravel(tree)) / size(tree) ** 0.5 or 1.0
    parts = []
    for p in tree.values():
        scale = norm(p) / p.numel() ** 0.5 if p.numel() else 0.0
        signs = 2 * torch.randint(2, (p.numel(),), generator=generator, dtype=torch.int8) - 1
        parts.append(signs.to(p.device, p.dtype) * (scale or usual))
    return torch.cat(parts)
