"""The largest eigenvalues of the covariance of the gradients of single samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.curvature.eigenvalues import SPARE, extreme_pairs, random_start
from gengap.measures.curvature.ritz import BLOCK
from gengap.measures.noise.jacobian import Jacobian
from gengap.measures.noise.noise_scale import check_apart_in_batch_norm, loss_of
from gengap.measures.noise.per_sample import check_few_apart
from gengap.measures.noise.per_sample_rest import as_matrix, rows
from gengap.measures.protocols import LossFunction, Params, sample_pieces
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.trees import dot, ravel, unravel
from gengap.problem.problem import Problem

GRAM = 256  # samples up to which all gradients are written out, if they fit: one pass, and all eigenvalues of N x N
WHAT = "the covariance of gradients"


@dataclass(frozen=True, slots=True)
class CovarianceEigenvalues(Record):
    """The largest eigenvalues of the gradient covariance Sigma.

    Attributes:
        values: largest first; their sum over all is tr(Sigma).
        residuals: norms of Sigma v - value v; an eigenvalue lies within that distance of each value.
        vectors: unit eigenvectors by weight name, one mapping for each value; not part of the JSON form.
        products: products with Sigma; 0 where the gradients were written out.
        converged: estimated errors are within rel_error.
        method: "lanczos", or "gram" where the gradients of all samples were written out.
        conditions: what it was measured on and what it cost.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    vectors: tuple[dict[str, Tensor], ...]
    products: int
    converged: bool
    method: Literal["lanczos", "gram"]
    conditions: Conditions

    def __str__(self) -> str:
        shown = ", ".join(f"{v:.6g} ± {r:.1g}" for v, r in zip(self.values, self.residuals, strict=True))
        ended = "" if self.converged else " (not converged)"
        return f"top eigenvalues of the gradient covariance: {shown}{ended}; {self.method}, {self.conditions}"


class Covariance:
    r"""Sigma as an operator: :math:`(J^T J v - N\, G (G \cdot v)) / (N - 1)`, with G the mean gradient.

    Args:
        jacobian: J.

    Attributes:
        size: its order, P.
        dtype: of vectors.
        device: where they lie.
        products: made so far.
    """

    def __init__(self, jacobian: Jacobian) -> None:
        self.size, self.dtype, self.device = jacobian.size, jacobian.dtype, jacobian.device
        self.products = 0
        self._jacobian = jacobian
        self._mean = jacobian.transposed(torch.full((jacobian.samples,), 1 / jacobian.samples, dtype=torch.float64))

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply a vector of shape (P,)."""
        self.products += 1
        n = self._jacobian.samples
        square = self._jacobian.squared(vector)
        return square.sub_(self._mean, alpha=n * dot(self._mean, vector)).div_(n - 1)


def covariance_eigenvalues(  # noqa: PLR0913 - options, by keyword only
    loss: Problem | LossFunction,
    params: Params | Tensor,
    *,
    k: int = 5,
    rel_error: float = 1e-3,
    max_products: int = 300,
    buffers: Params | None = None,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> CovarianceEigenvalues:
    r"""Find the k largest eigenvalues of the covariance of the gradients of single samples, with their vectors.

    .. math::
        \Sigma = \frac{1}{N - 1} \sum_i (g_i - G)(g_i - G)^T

    By Lanczos on products with Sigma, which cost about as much as products with the Hessian; or, for at most 256 samples
    whose gradients fit the memory limit, from the N x N matrix of the inner products of the written-out gradients.

    Args:
        loss: a problem, of which the training set is taken, or a loss that knows its samples.
        params: the weights by name; not modified.
        k: how many, >= 1 and below the number of samples.
        rel_error: tolerance relative to each value, > 0.
        max_products: the most products to spend.
        buffers: of the trained network, for a problem.
        seed: of the random start.
        only: patterns of names; gradients are by the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for graphs, chunks and vectors.
        listen: is told after every product.

    Returns:
        The eigenvalues with their residuals.

    Raises:
        BadInput: an argument is out of range, or the loss has no single samples.
        FloatingPointError: a product is not finite.

    Source:
        Jastrzebski et al. 2020, arXiv:2002.09572, section 3 (the covariance of gradients and its N x N form).
    """
    check_search(k, rel_error, max_products)
    function = loss_of(loss, buffers, None)
    check_apart_in_batch_norm(function)
    with measuring(
        function,
        params,
        passes="product",
        vectors=2 * (k + SPARE) + k,
        only=only,
        check=check,
        memory_limit=memory_limit,
    ) as session:
        check_few_apart(session, WHAT)
        jacobian = Jacobian(session, WHAT, session.memory.free)
        if k > min(jacobian.samples - 1, session.weights):
            raise BadInput(
                f"k is {k}, but the gradients of {jacobian.samples} samples by {session.weights} weights have at most "
                f"{min(jacobian.samples - 1, session.weights)} eigenvalues above zero; ask for at most that many"
            )
        if jacobian.samples <= GRAM and 3 * jacobian.samples * ravel(session.params).nbytes <= session.memory.free:
            return by_gram(session, k)
        operator = Covariance(jacobian)
        pairs = extreme_pairs(
            operator, random_start(operator, seed), k=k, rel_error=rel_error, most=max_products, listen=listen
        )
        return CovarianceEigenvalues(
            values=tuple(map(float, pairs.values)),
            residuals=tuple(map(float, pairs.residuals)),
            vectors=tuple(unravel(v, session.params) for v in pairs.vectors),
            products=operator.products,
            converged=pairs.converged,
            method="lanczos",
            conditions=session.conditions(),
        )


def by_gram(session: Session, k: int) -> CovarianceEigenvalues:
    """Take the eigenvalues from the inner products of all centred gradients, which have the same ones but for zeros."""
    names = frozenset(session.params)
    found = [as_matrix(rows(p, session.params, names)) for p in sample_pieces(session.loss, session.params, WHAT)]
    centred = torch.cat(found)
    centred -= centred.mean(0)
    n = len(centred)
    gram = torch.zeros(n, n, dtype=torch.float64, device=centred.device)
    for columns in centred.split(BLOCK, 1):
        gram += (columns @ columns.mT).double()
    values, turned = torch.linalg.eigh(gram.cpu() / (n - 1))
    values, turned = values.flip(0)[:k], turned.flip(1)[:, :k]
    vectors = turned.mT.to(centred) @ centred
    vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True, dtype=torch.float64).to(vectors)
    moved = (vectors @ centred.mT) @ centred / (n - 1) - values.to(vectors)[:, None] * vectors
    return CovarianceEigenvalues(
        values=tuple(values.tolist()),
        residuals=tuple(torch.linalg.vector_norm(moved, dim=1, dtype=torch.float64).tolist()),
        vectors=tuple(unravel(v, session.params) for v in vectors),
        products=0,
        converged=True,
        method="gram",
        conditions=session.conditions(),
    )


def subspace_overlap(first: Sequence[Params], second: Sequence[Params]) -> float:
    """Measure how much two spaces spanned by orthonormal vectors have in common.

    Args:
        first: for example the `.vectors` of the gradient covariance.
        second: for example those of the Hessian at the same weights.

    Returns:
        The mean squared cosine between the smaller space and the other, from 0 (orthogonal) to 1 (contained). Two random
        spaces of k among P dimensions have about k / P.

    Raises:
        BadInput: one holds no vector, or they belong to different weights.
    """
    if not first or not second:
        raise BadInput(f"there are {len(first)} and {len(second)} vectors; give at least one each")
    if first[0].keys() != second[0].keys():
        raise BadInput("the vectors belong to different weights; measure both with the same only")
    inner = [dot(ravel(a), ravel({name: b[name] for name in a})) for a in first for b in second]
    return math.fsum(x * x for x in inner) / min(len(first), len(second))


def check_search(k: int, rel_error: float, max_products: int) -> None:
    """Refuse what cannot be searched for.

    Args:
        k: how many.
        rel_error: tolerance.
        max_products: the most to spend.

    Raises:
        BadInput: one of them is out of range.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BadInput(f"k is {k!r}; give a whole number of at least 1")
    if not (math.isfinite(rel_error) and rel_error > 0):
        raise BadInput(f"rel_error is {rel_error!r}; give a positive number, for example 1e-3")
    if max_products <= k:
        raise BadInput(f"max_products is {max_products!r}, which cannot find {k} values; give more than k")
