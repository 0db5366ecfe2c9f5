"""Arithmetic on one block of a Kronecker-factored matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gengap.core.errors import BadInput


def joined(slopes: Sequence[Tensor]) -> Tensor:
    """Put the gradients of a weight and of its bias into one matrix.

    Args:
        slopes: of shapes (O, ...) and, where there is a bias, (O,).

    Returns:
        Shape (O, I), the bias as the last column.
    """
    return torch.cat([slope.reshape(len(slope), -1) for slope in slopes], 1)


def parted(matrix: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo `joined`.

    Args:
        matrix: shape (O, I).
        like: tensors of the shapes to give back.

    Returns:
        Tensors of these shapes.
    """
    columns = matrix.split([slope[0].numel() for slope in like], 1)
    return [part.reshape(slope.shape) for part, slope in zip(columns, like, strict=True)]


def inverses(A: Tensor, G: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    r"""Invert both factors with the damping shared out between them.

    :math:`A \otimes G + \lambda I` is no Kronecker product; it is approximated by
    :math:`(A + \pi \sqrt\lambda I) \otimes (G + \sqrt\lambda / \pi I)`, with the ratio of the mean eigenvalues as :math:`\pi^2`.

    Args:
        A: input factor, shape (I, I).
        G: output factor, shape (O, O).
        damping: :math:`\lambda`, > 0.

    Returns:
        Both inverses; all NaN where a factor is not finite.

    Source:
        Martens & Grosse 2015, arXiv:1503.05671, section 6.3.
    """
    means = A.diagonal().mean(), G.diagonal().mean()
    # A factor of zeros (a layer that nothing reaches yet) leaves nothing to balance.
    pi = torch.where((means[0] > 0) & (means[1] > 0), (means[0] / means[1]).sqrt(), 1.0)
    root = damping**0.5
    return inverse(A, pi * root), inverse(G, root / pi)


def inverse(factor: Tensor, shift: Tensor) -> Tensor:
    """Invert a positive semidefinite matrix plus a multiple of the identity."""
    shifted = factor + shift * torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    triangle, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        if not shifted.isfinite().all():
            return torch.full_like(factor, torch.nan)
        raise BadInput(f"a Fisher factor cannot be inverted with {float(shift):.3g} on its diagonal; raise the damping")
    # In rows, as it comes back from a file: products of the transposed layout are rounded differently.
    return torch.cholesky_inverse(triangle).contiguous()
