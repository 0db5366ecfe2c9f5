"""Extreme eigenvalues of the Hessian or of the Gauss-Newton matrix, each with its residual and its error."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, Progress, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.curvature.operators import Curvature, Operator, gauss_newton, hessian
from gengap.measures.curvature.ritz import Pairs, Subspace
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.trees import ravel, size, unravel

Matrix = Literal["hessian", "gauss-newton"]
End = Literal["top", "bottom"]
MATRICES: Mapping[str, Callable[[Session], Curvature]] = {"hessian": hessian, "gauss-newton": gauss_newton}
SPARE = 20  # vectors that the subspace may hold beside the wanted ones before it is restarted


@dataclass(frozen=True, slots=True)
class Eigenvalues(Record):
    """Eigenvalues at one end of the spectrum.

    Attributes:
        values: outermost first; for a mean loss in nats per sample, per squared unit of a weight.
        residuals: norms of H v - value v; an eigenvalue lies within that distance of each value.
        errors: estimated distances from the eigenvalues, residual squared over the gap to the next value found.
        vectors: unit eigenvectors by weight name, one mapping for each value; not part of the JSON form.
        products: products with the matrix in all.
        converged: all errors are within rel_error; else max_products ended the search.
        rel_error: the tolerance.
        which: "top" or "bottom".
        matrix: "hessian" or "gauss-newton".
        conditions: what it was measured on and what it cost.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    errors: tuple[float, ...]
    vectors: tuple[dict[str, Tensor], ...]
    products: int
    converged: bool
    rel_error: float
    which: End
    matrix: Matrix
    conditions: Conditions

    def __str__(self) -> str:
        shown = ", ".join(f"{v:.6g} ± {e:.1g}" for v, e in zip(self.values, self.errors, strict=True))
        ended = "" if self.converged else f" (not converged to {self.rel_error:g})"
        return f"{self.which} eigenvalues of the {self.matrix}: {shown}{ended}; {self.products} products, {self.conditions}"


def top_eigenvalues(  # noqa: PLR0913 - options, by keyword only
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    k: int = 5,
    rel_error: float = 1e-3,
    which: End = "top",
    matrix: Matrix = "hessian",
    start: Sequence[Params | Tensor] | None = None,
    max_products: int = 300,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> Eigenvalues:
    r"""Find the k largest (or smallest) eigenvalues of the second derivative of `loss`, with their vectors.

    Lanczos with full orthogonalisation, in the form that adds the residual farthest from its tolerance to an orthonormal
    basis: from one start the two are the same, and this one takes several starts and restarts. It ends when the estimated
    error of every value, :math:`\min(r, r^2/d)` with residual norm r and gap d, is at most rel_error times the value. A
    single start meets each eigenvalue once: of equal ones it finds one copy.

    Inner products are summed in float64 whatever the dtype of the weights; in float32 values are right to about 1e-6 of
    the largest one. Costs one product per basis vector, about 15 to 20 for five separated values of a trained network;
    memory for 2 (k + 20) vectors as long as the weights.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor; deterministic, twice differentiable.
        params: the weights, by name or as one tensor; not modified.
        k: how many, >= 1.
        rel_error: tolerance relative to each value, > 0.
        which: "top" for the largest, "bottom" for the smallest (most negative) ones.
        matrix: "hessian" or "gauss-newton"; the second needs a loss made of samples.
        start: vectors to begin from, by name or as tensors of shape (P,), for example `.vectors` of an earlier checkpoint;
            their sum is the start. None: a random one.
        max_products: the most products to spend.
        seed: of the random start.
        only: patterns of names; the matrix is restricted to the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for graphs, chunks and vectors.
        listen: is told after every product.

    Returns:
        The eigenvalues with their errors.

    Raises:
        BadInput: an argument is out of range, or the loss cannot be used.
        FloatingPointError: a product is not finite.

    Source:
        Lanczos 1950; Ghorbani, Krishnan & Xiao 2019, arXiv:1901.10159, for networks.
    """
    check_arguments(k, rel_error, which, matrix, max_products)
    with measuring(
        loss, params, passes="product", vectors=2 * (k + SPARE) + k, only=only, check=check, memory_limit=memory_limit
    ) as session:
        if k > session.weights:
            raise BadInput(f"k is {k}, but there are only {session.weights} weights; ask for at most that many")
        operator = MATRICES[matrix](session)
        first = random_start(operator, seed) if start is None else joined(start, session.params)
        pairs = extreme_pairs(operator, first, k=k, rel_error=rel_error, which=which, most=max_products, listen=listen)
        return Eigenvalues(
            values=tuple(map(float, pairs.values)),
            residuals=tuple(map(float, pairs.residuals)),
            errors=tuple(map(float, pairs.errors)),
            vectors=tuple(unravel(v, session.params) for v in pairs.vectors),
            products=operator.products,
            converged=pairs.converged,
            rel_error=rel_error,
            which=which,
            matrix=matrix,
            conditions=session.conditions(),
        )


def extreme_pairs(
    operator: Operator,
    start: Tensor,
    *,
    k: int,
    rel_error: float,
    which: End = "top",
    most: int = 300,
    listen: Listener = silent,
) -> Pairs:
    """Find eigenpairs at one end of the spectrum of any symmetric operator.

    Args:
        operator: multiplies vectors.
        start: shape (P,), not zero.
        k: how many, 1 to P.
        rel_error: tolerance relative to each value.
        which: which end.
        most: products.
        listen: is told after every product.

    Returns:
        At most k pairs, outermost first; fewer where `most` was reached before there were k.

    Raises:
        FloatingPointError: a product is not finite.
    """

    def wanted(count: int) -> range:
        return range(min(k, count)) if which == "bottom" else range(count - 1, max(count - k, 0) - 1, -1)

    space, spent, fresh = Subspace(operator, min(k + SPARE, operator.size)), operator.products, start
    for i in range(most):
        if not space.add(fresh):  # an invariant subspace: what is missing lies across it
            space.add(random_start(operator, i + 1))
        pairs = space.pairs(wanted, rel_error)
        if not math.isfinite(float(pairs.residuals.sum())):
            raise FloatingPointError("a product with the second derivative is not finite; look for overflow at params")
        shown = ", ".join(f"{v:.4g}" for v in pairs.values[:3])
        listen(Progress(f"{which} eigenvalues", operator.products - spent, None, "products", shown))
        if pairs.converged and len(pairs.values) == k and (space.count > k or space.count == operator.size):
            break
        fresh = pairs.worst
        if space.full:
            space.restart([*wanted(space.count), *spare(wanted(space.count), space.count, SPARE // 4)])
    return pairs


def spare(wanted: range, count: int, more: int) -> list[int]:
    """List the positions of the Ritz values next to the wanted ones: kept over a restart, they speed it up."""
    last = wanted[-1]
    following = range(last + wanted.step, -1 if wanted.step < 0 else count, wanted.step)
    return list(following[:more])


def random_start(operator: Operator, seed: int) -> Tensor:
    """Draw a normal vector of shape (P,): the same on every device."""
    generator = torch.Generator().manual_seed(stream(seed, "eigenvalues"))
    return torch.randn(operator.size, generator=generator, dtype=torch.float64).to(operator.device, operator.dtype)


def joined(start: Sequence[Params | Tensor], params: Mapping[str, Tensor]) -> Tensor:
    """Join several start vectors into one.

    Args:
        start: by name, or of shape (P,).
        params: the weights they belong to.

    Returns:
        Their sum, each with unit norm, shape (P,).

    Raises:
        BadInput: there is none, or one is not as long as the weights, not finite or zero.
    """
    count, like = size(params), ravel(params)
    total = torch.zeros_like(like)
    for i, one in enumerate(start):
        if not isinstance(one, Tensor) and (missing := [name for name in params if name not in one]):
            raise BadInput(f"start[{i}] lacks {missing[0]!r}; give vectors of the same weights")
        vector = one.detach().reshape(-1) if isinstance(one, Tensor) else ravel({n: one[n] for n in params})
        length = float(vector.double().norm())
        if vector.numel() != count or not (math.isfinite(length) and length > 0):
            raise BadInput(
                f"start[{i}] has {vector.numel():,} entries and norm {length:.3g}; give finite, non-zero vectors of the "
                f"{count:,} weights"
            )
        total += (vector / length).to(like)
    if not len(start) or not bool(total.any()):
        raise BadInput(f"start holds {len(start)} vectors that add up to nothing; give at least one")
    return total


def check_arguments(k: int, rel_error: float, which: str, matrix: str, max_products: int) -> None:
    """Refuse what cannot be searched for.

    Args:
        k: how many.
        rel_error: tolerance.
        which: end of the spectrum.
        matrix: its name.
        max_products: the most to spend.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BadInput(f"k is {k!r}; give a whole number of at least 1")
    if not (math.isfinite(rel_error) and rel_error > 0):
        raise BadInput(f"rel_error is {rel_error!r}; give a positive number, for example 1e-3")
    if which not in {"top", "bottom"}:
        raise BadInput(f"which is {which!r}; choose top or bottom")
    if matrix not in MATRICES:
        raise BadInput(f"matrix is {matrix!r}; choose one of {', '.join(MATRICES)}")
    if max_products <= k:
        raise BadInput(f"max_products is {max_products!r}, which cannot find {k} values; give more than k")
