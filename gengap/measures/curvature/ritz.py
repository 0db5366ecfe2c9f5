"""Extreme eigenpairs of a symmetric operator by projection on a growing subspace (Rayleigh-Ritz), in any float dtype."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gengap.measures.curvature.operators import Operator
from gengap.measures.trees import norm

BLOCK = 1 << 16  # entries summed in the dtype of the vectors before the sum goes on in float64
LOST = 1e-3  # share of a vector's norm below which what is left of it after orthogonalisation is done once more


@dataclass(frozen=True, slots=True)
class Pairs:
    """Approximate eigenpairs.

    Attributes:
        values: Ritz values, shape (K,).
        residuals: norms of A x - theta x, shape (K,); an eigenvalue lies within each of its value.
        errors: estimated distance of each value from its eigenvalue, shape (K,): see `errors_of`.
        vectors: unit Ritz vectors, shape (K, P).
        worst: the residual of the pair farthest from its tolerance, shape (P,).
        converged: all errors are within the tolerance.
    """

    values: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray
    vectors: Tensor
    worst: Tensor
    converged: bool


class Subspace:
    """An orthonormal basis, the operator's images of it, and the operator projected on it.

    Args:
        operator: multiplies vectors.
        capacity: the most vectors to hold, images apart.

    Attributes:
        count: vectors in the basis, K.
        projected: the projection in float64, shape (capacity, capacity); the first K rows and columns count.
    """

    def __init__(self, operator: Operator, capacity: int) -> None:
        shape = (capacity, operator.size)
        self._operator, self.count = operator, 0
        self._basis = torch.empty(shape, dtype=operator.dtype, device=operator.device)
        self._images = torch.empty_like(self._basis)
        self.projected = np.zeros((capacity, capacity))

    @property
    def basis(self) -> Tensor:
        """Orthonormal rows, shape (K, P)."""
        return self._basis[: self.count]

    @property
    def images(self) -> Tensor:
        """The operator's product with each row, shape (K, P)."""
        return self._images[: self.count]

    @property
    def full(self) -> bool:
        """Whether there is no room for another vector."""
        return self.count == len(self._basis)

    def add(self, vector: Tensor) -> bool:
        """Add the part of a vector that the basis lacks; one product.

        Args:
            vector: shape (P,); not modified.

        Returns:
            Whether there was such a part: a vector of the basis adds nothing, and costs no product.
        """
        fresh = orthogonal(vector, self.basis)
        if fresh is None:
            return False
        k = self.count
        self._basis[k], self.count = fresh, k + 1
        self._images[k] = self._operator(fresh)
        column = coefficients(self.basis, self._images[k]).numpy()
        self.projected[k, : k + 1] = self.projected[: k + 1, k] = column
        return True

    def pairs(self, wanted: Callable[[int], Sequence[int]], rel_error: float) -> Pairs:
        """Solve the projected problem.

        Args:
            wanted: from K to the positions of the wanted values in ascending order of all K.
            rel_error: tolerance relative to each value.

        Returns:
            The wanted pairs, in the order of `wanted`.
        """
        k = self.count
        every, turned = np.linalg.eigh(self.projected[:k, :k])
        chosen = list(wanted(k))
        mixed = torch.from_numpy(turned[:, chosen].T.copy()).to(self._basis)
        vectors, moved = mixed @ self.basis, mixed @ self.images
        values = every[chosen]
        rest = moved - torch.from_numpy(values).to(moved)[:, None] * vectors
        residuals = np.array([norm(r) for r in rest])
        grain = torch.finfo(self._basis.dtype).eps * np.abs(every).max(initial=0)
        errors = errors_of(values, residuals, np.delete(every, chosen)) + grain
        excess = errors / np.maximum(rel_error * np.abs(values), max(10 * grain, np.finfo(float).tiny))
        done = bool((excess <= 1).all()) or k == self._operator.size
        return Pairs(values, residuals, errors, vectors, rest[int(excess.argmax())], done)

    def restart(self, keep: Sequence[int]) -> None:
        """Keep only the Ritz vectors at these positions, with their images: no product is spent (thick restart)."""
        k, m = self.count, len(keep)
        every, turned = np.linalg.eigh(self.projected[:k, :k])
        mixed = torch.from_numpy(turned[:, list(keep)].T.copy()).to(self._basis)
        self._basis[:m], self._images[:m] = mixed @ self.basis, mixed @ self.images
        self.projected[:] = 0
        self.projected[range(m), range(m)] = every[list(keep)]
        self.count = m


def errors_of(values: np.ndarray, residuals: np.ndarray, others: np.ndarray) -> np.ndarray:
    r"""Estimate how far Ritz values are from eigenvalues.

    For a residual r and a distance d from the value to the rest of the spectrum the error is at most :math:`r` and at most
    :math:`r^2 / d` (Parlett 1998, theorem 11.7.1). d is known only through the other Ritz values, so this is an estimate;
    `residuals` are the bound that needs no such knowledge.

    Args:
        values: Ritz values, shape (K,).
        residuals: norms of their residuals, shape (K,).
        others: the Ritz values that were not asked for.

    Returns:
        Estimated errors, shape (K,).
    """
    estimates = residuals.copy()
    for i, (value, residual) in enumerate(zip(values, residuals, strict=True)):
        neighbours = np.abs(np.delete(values, i) - value) - np.delete(residuals, i)
        gaps = np.concatenate([neighbours, np.abs(others - value)])
        gap = gaps.min(initial=np.inf)
        if gap > residual:
            estimates[i] = residual**2 / gap if np.isfinite(gap) else residual
    return estimates


def orthogonal(vector: Tensor, basis: Tensor) -> Tensor | None:
    """Return the unit vector along what `basis` lacks of `vector`, or None where that is rounding only.

    Gram-Schmidt, twice: the second pass takes away what rounding has left of the first (Giraud et al. 2005).
    """
    before = norm(vector)
    if not before > 0:
        return None
    left = vector / before
    for _ in range(2):
        left = left - coefficients(basis, left).to(left) @ basis
    size = norm(left)
    if size < 100 * torch.finfo(vector.dtype).eps:
        return None
    left = left / size
    if size < LOST:
        left = left - coefficients(basis, left).to(left) @ basis
        left = left / norm(left)
    return left


def coefficients(basis: Tensor, vector: Tensor) -> Tensor:
    """Return the inner products of rows, shape (K, P), with a vector, shape (P,): float64, on the CPU."""
    found = torch.zeros(len(basis), dtype=torch.float64, device=basis.device)
    for rows, part in zip(basis.split(BLOCK, 1), vector.split(BLOCK), strict=True):
        found += (rows @ part).double()
    return found.cpu()
