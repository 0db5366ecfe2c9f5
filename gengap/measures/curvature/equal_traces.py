"""Where the trace of the Hessian is that of the Gauss-Newton matrix, which single samples give cheaply."""

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.measures.curvature.eigenvalues import Matrix
from gengap.measures.curvature.linearised import Product, outer_curvature, second_derivative
from gengap.measures.curvature.outer_trace import roots
from gengap.measures.curvature.piecewise_linear import uses_of_weights
from gengap.measures.product_check import AGREE, TRIED, in_float64, mismatch
from gengap.measures.protocols import Chunked, SamplePiece, sample_pieces
from gengap.measures.sample_mean import check_mean_over_samples
from gengap.measures.second_order import consistent_kernels
from gengap.measures.session import Session

OuterPieces = tuple[list[SamplePiece], list[Tensor]]  # with a root of each piece's second derivatives by outputs


def pieces_or_none(session: Session, matrix: Matrix, *, refuse: bool) -> OuterPieces | None:
    """Give the pieces where they do; say why they do not only where there is no other way."""
    try:
        return outer_pieces(session, matrix)
    except BadInput:
        if refuse:
            raise
        return None


def outer_pieces(session: Session, matrix: Matrix) -> OuterPieces | None:
    """Give the pieces of a loss with the roots of its second derivatives by outputs, or None where they do not do."""
    if not isinstance(session.loss, Chunked) or session.loss.describe().get("batch_norm") == "batch":
        return None
    parts = list(session.loss.chunks(session.params))
    once, linear = uses_of_weights(parts[0].head(min(2, parts[0].size)), session.params)
    if not (once if matrix == "gauss-newton" else linear):
        return None
    if matrix == "hessian" and not blocks_agree(session):
        return None
    with torch.no_grad():
        check_mean_over_samples(parts[0], parts[0].outputs(session.params), "the trace by samples")
    factors = []
    held = 0
    for piece in parts:
        with torch.no_grad():
            outputs = piece.outputs(session.params)
        root = roots(piece, outputs)
        held += 0 if root is None else root.nbytes
        if root is None or 4 * held > session.memory.limit:
            return None
        factors.append(root)
    return parts, factors


def blocks_agree(session: Session) -> bool:
    """Tell whether Hessian and Gauss-Newton matrix have the same diagonal blocks, tried on a few samples in float64.

    What is seen of a network may hide how it bends (functions of one's own, compiled or mapped ones): along a random
    direction in each weight tensor the two curvatures must agree. Both are torch's, which must be right.

    Args:
        session: loss and weights.

    Returns:
        Whether they do; False also where it cannot be tried.
    """
    try:
        first = next(sample_pieces(session.loss, session.params, "the trace by samples"))
        few, tree = in_float64(first.head(min(TRIED, first.size)), session.params)
        assert isinstance(few, SamplePiece)
        with consistent_kernels(twice=True):
            off = mismatch(few, tree)
            if off is None or off > AGREE:
                return False
            own = {name: p.requires_grad_() for name, p in tree.items()}
            with torch.enable_grad():
                bent, outer = second_derivative(few, own), outer_curvature(few, own)
                return all(agree(bent, outer, own, name) for name in own)
    except (RuntimeError, BadInput):  # not in float64, or not twice: the way that needs neither is taken
        return False


def agree(bent: Product, outer: Product, tree: dict[str, Tensor], name: str) -> bool:
    """Compare two curvatures along random signs in one weight tensor."""
    generator = torch.Generator().manual_seed(stream(0, "blocks"))
    signs = (2 * torch.randint(2, tree[name].shape, generator=generator) - 1).to(tree[name])
    direction = [signs if n == name else torch.zeros_like(p) for n, p in tree.items()]
    place = list(tree).index(name)
    found = [product(direction)[place] for product in (bent, outer)]
    one, other = (0.0 if f is None else float((f * signs).sum()) for f in found)
    return abs(one - other) <= 1e-6 * (abs(one) + abs(other)) + 1e-15
