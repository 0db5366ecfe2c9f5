"""The outermost eigenvalues of a Hessian, known one by one, and what is left of it without them."""

import math

import numpy as np
import torch
from torch import Tensor

from gengap.core.events import Listener, Progress
from gengap.measures.curvature.operators import Operator
from gengap.measures.curvature.quadrature import Vector
from gengap.measures.curvature.ritz import Subspace, coefficients
from gengap.measures.trees import norm

DIRECTIONS = 40  # products spent on them
LEFT = 1e-3  # nats that the coupling of one of them to the rest may be worth


class Deflated:
    """An operator restricted to what is orthogonal to some of its eigenvectors.

    Args:
        operator: multiplies vectors.
        vectors: orthonormal rows, shape (K, P); K may be 0.
    """

    def __init__(self, operator: Operator, vectors: Tensor) -> None:
        self._operator, self._vectors, self.products = operator, vectors, 0
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply a vector of shape (P,) that is orthogonal to them."""
        self.products += 1
        return self.orthogonal(self._operator(vector))

    def orthogonal(self, vector: Tensor) -> Tensor:
        """Take away what lies along them, twice: once leaves rounding."""
        for _ in range(2 if len(self._vectors) else 0):
            vector = vector - coefficients(self._vectors, vector).to(vector) @ self._vectors
        return vector


def outliers(
    operator: Operator, start: Tensor, l2: float, *, directions: int, listen: Listener
) -> tuple[Vector, Deflated]:
    r"""Find the largest eigenvalues that a Krylov space holds well enough to be set apart.

    A Ritz pair with value :math:`\theta` and residual norm r is joined to the rest of the matrix by a vector of length r,
    which is worth at most :math:`r^2 / (\theta \lambda)` in :math:`\ln\det(H + \lambda)`: pairs for which that is small
    are taken, outermost first, until one is not.

    Args:
        operator: the Hessian.
        start: of the Krylov space, shape (P,).
        l2: the smallest precision of a prior, lambda.
        directions: products to spend, 0 for none.
        listen: is told after every product.

    Returns:
        The eigenvalues, descending, shape (K,), and the operator without them.
    """
    space, fresh = Subspace(operator, max(1, directions)), start
    for step in range(directions):
        if not space.add(fresh):
            break
        fresh = space.images[-1]
        listen(Progress("evidence", step + 1, None, "products", "outer eigenvalues"))
    every, turned = np.linalg.eigh(space.projected[: space.count, : space.count])
    values: list[float] = []
    vectors: list[Tensor] = []
    for value, mixed in zip(every[::-1], torch.from_numpy(turned).to(space.basis).T.flip(0), strict=True):
        vector = mixed @ space.basis
        residual = norm((mixed @ space.images).sub_(vector, alpha=float(value)))
        if not (value > 0 and residual <= math.sqrt(LEFT * value * l2)):
            break
        values.append(float(value))
        vectors.append(vector)
    rows = torch.stack(vectors) if vectors else space.basis[:0]
    return np.array(values), Deflated(operator, rows)


def affordable(weights: int, itemsize: int, limit: int) -> int:
    """Choose how many directions to look for: their vectors, three each, take at most half of the memory."""
    return min(DIRECTIONS, weights // 2, limit // (2 * 3 * weights * itemsize))
