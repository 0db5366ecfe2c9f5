"""The trace of the Hessian, in all and by layer, with a standard error."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean, t_quantile
from gengap.core.events import Listener, Progress, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.curvature import outer_trace
from gengap.measures.curvature.eigenvalues import MATRICES, Matrix, random_start
from gengap.measures.curvature.equal_traces import OuterPieces, pieces_or_none
from gengap.measures.curvature.operators import Operator
from gengap.measures.curvature.outer_trace import OuterTrace
from gengap.measures.curvature.quadrature import signs
from gengap.measures.curvature.ritz import Subspace, coefficients
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring

Method = Literal["auto", "per sample", "hutch++"]
FEWEST = 8  # probes before their scatter is believed


@dataclass(frozen=True, slots=True)
class Trace(Record):
    """The trace of a matrix as large as the weights.

    Attributes:
        value: the estimate; for a mean loss in nats per sample, per squared unit of a weight.
        stderr: its standard error, from the scatter of the probes; 0 where no probe was needed. It is itself uncertain where
            they are few: take the interval, which is wider than 1.96 of it.
        probes: how many, one product each; for "per sample" passes over the data, in each of which every sample is probed.
        interval: 95 % interval (Student's t).
        layers: the part of each weight tensor by name; they add up to `value`. Their errors come from the same probes and
            are not independent of each other.
        deflated: size of the subspace whose trace is exact.
        share_deflated: its trace over the value.
        products: products with the matrix in all.
        method: "hutch++", "hutchinson" (the same without a subspace) or "per sample".
        converged: the standard error is within rel_error of the value; else max_products ended it.
        rel_error: the tolerance.
        matrix: "hessian" or "gauss-newton".
        conditions: what it was measured on and what it cost.
    """

    value: float
    stderr: float
    probes: int
    interval: tuple[float, float]
    layers: dict[str, Estimate]
    deflated: int
    share_deflated: float
    products: int
    method: str
    converged: bool
    rel_error: float
    matrix: Matrix
    conditions: Conditions

    @property
    def samples(self) -> int:
        """The probes, which are the sample that the error is estimated from."""
        return self.probes

    def __str__(self) -> str:
        ended = "" if self.converged else f" (not within {self.rel_error:g})"
        spent = f"{self.deflated} directions exact, {self.probes} probes, {self.products} products"
        if self.method == "per sample":
            spent = f"{self.probes} passes over the data"
        number = f"trace of the {self.matrix} {self.value:.5g} ± {self.stderr:.2g}{ended}"
        return f"{number}: {self.method}, {spent}, {self.conditions}"


def trace(  # noqa: PLR0913 - options, by keyword only
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    rel_error: float = 0.02,
    method: Method = "auto",
    deflate: int = 20,
    matrix: Matrix = "hessian",
    max_products: int = 1000,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> Trace:
    r"""Estimate the trace of the second derivative of `loss`, and the share of every weight tensor in it.

    "per sample" probes the Gauss-Newton matrix sample by sample, by squared gradients that are never written out: a few
    passes give the trace to a per cent (`gengap.measures.curvature.outer_trace`). Where the network is piecewise linear in every
    single weight tensor (linear layers, convolutions, batch norm with fixed statistics, ReLU, pooling, sums; each weight used
    once), the Hessian has the same diagonal blocks and so the same trace; this is looked up by watching one forward pass.
    "auto" takes it where that holds and the loss is made of samples, else "hutch++".

    "hutch++": with an orthonormal basis Q of a Krylov space, which soon holds the outermost eigenvectors,

    .. math:: \mathrm{tr} H = \mathrm{tr}(Q^T H Q) + E[z^T (1 - QQ^T) H (1 - QQ^T) z],

    the first term is exact and the second has a small variance where few eigenvalues stand out (Hutch++). z are random
    signs; probes are added, 8 at least, until the standard error is at most rel_error times the value. The scatter of few
    probes is itself uncertain: the deviation in standard errors then has Student's t distribution, with a spread of 1.2 for
    8 probes. The interval allows for that, and covers 93 to 95 % although the rule that ends it looks at the scatter.

    Costs deflate + probes products, and memory for 2 deflate + 3 vectors as long as the weights; "per sample" some three
    gradients for each probe, and no vectors.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor; deterministic, twice differentiable.
        params: the weights, by name or as one tensor; not modified.
        rel_error: the standard error aimed at, relative to the value, > 0.
        method: "auto", "per sample" or "hutch++".
        deflate: size of the subspace of "hutch++", 0 for the plain estimator (Hutchinson).
        matrix: "hessian" or "gauss-newton"; the second needs a loss made of samples.
        max_products: the most products to spend.
        seed: of start and probes.
        only: patterns of names; the matrix is restricted to the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for graphs, chunks and vectors.
        listen: is told after every product.

    Returns:
        The trace with its error.

    Raises:
        BadInput: an argument is out of range, the loss cannot be used, or "per sample" was asked for where it is not the trace.
        FloatingPointError: a product is not finite.

    Source:
        Hutchinson 1990; Meyer, Musco, Musco & Woodruff 2021, arXiv:2010.09649.
    """
    check_arguments(rel_error, deflate, matrix, max_products, method)
    if method != "hutch++":
        with measuring(loss, params, passes="gradient", only=only, check=check, memory_limit=memory_limit) as session:
            pieces = pieces_or_none(session, matrix, refuse=method == "per sample")
            if pieces is not None:
                return by_samples(session, pieces, matrix, rel_error, seed=seed, most=max_products, listen=listen)
        if method == "per sample":
            raise BadInput(
                "method is 'per sample', but the network bends in a single weight, or its loss is not convex in few outputs of "
                "single samples; take method='hutch++'"
            )
    with measuring(
        loss, params, passes="product", vectors=2 * deflate + 3, only=only, check=check, memory_limit=memory_limit
    ) as session:
        operator = MATRICES[matrix](session)
        counts = [p.numel() for p in session.params.values()]
        space = krylov(operator, min(deflate, operator.size), seed, listen)
        exact = by_layer(space.basis, space.images, counts)
        probes = Probes(operator, space, counts, seed)
        while not probes.enough(exact, rel_error) and operator.products < max_products:
            probes.add()
            listen(Progress("trace", operator.products, None, "products", f"{probes.total(exact)}"))
        total = probes.total(exact)
        return Trace(
            value=total.value,
            stderr=total.stderr or 0.0,
            probes=len(probes.rows),
            interval=total.interval or (total.value, total.value),
            layers=probes.layers(exact, list(session.params)),
            deflated=space.count,
            share_deflated=float(exact.sum()) / total.value if total.value else 0.0,
            products=operator.products,
            method="hutch++" if space.count else "hutchinson",
            converged=probes.enough(exact, rel_error),
            rel_error=rel_error,
            matrix=matrix,
            conditions=session.conditions(),
        )


def by_samples(
    session: Session,
    pieces: OuterPieces,
    matrix: Matrix,
    rel_error: float,
    *,
    seed: int,
    most: int,
    listen: Listener,
) -> Trace:
    """Estimate the trace sample by sample, where that is the trace."""
    parts, factors = pieces
    found = OuterTrace(seed)
    while found.passes < outer_trace.FEWEST or (found.stderr > rel_error * found.value and found.passes < most):
        found.add(parts, session.params, factors)
        listen(Progress("trace", found.passes, None, "passes", f"{found.value:.5g}" if found.passes else ""))
    half = t_quantile(max(1, found.passes - 1)) * found.stderr
    return Trace(
        value=found.value,
        stderr=found.stderr,
        probes=found.passes,
        interval=(found.value - half, found.value + half),
        layers=found.estimates(list(session.params)),
        deflated=0,
        share_deflated=0.0,
        products=0,
        method="per sample",
        converged=found.stderr <= rel_error * found.value,
        rel_error=rel_error,
        matrix=matrix,
        conditions=session.conditions(),
    )


class Probes:
    """Random probes of what a subspace has left over.

    Args:
        operator: the matrix.
        space: the subspace whose trace is known.
        counts: numbers in each weight tensor.
        seed: of the signs.

    Attributes:
        rows: the quadratic form of each probe by tensor, each of shape (L,), float64.
    """

    def __init__(self, operator: Operator, space: Subspace, counts: list[int], seed: int) -> None:
        self._operator, self._space, self._counts, self._seed = operator, space, counts, seed
        self.rows: list[Tensor] = []

    def add(self) -> None:
        """Make one probe; one product.

        Raises:
            FloatingPointError: the product is not finite.
        """
        z = signs(self._operator, stream(self._seed, "trace", len(self.rows)))
        basis = self._space.basis
        for _ in range(2 if len(basis) else 0):
            z = z - coefficients(basis, z).to(z) @ basis
        row = by_layer(z[None], self._operator(z)[None], self._counts)
        if not bool(row.isfinite().all()):
            raise FloatingPointError("a product with the second derivative is not finite; look for overflow at params")
        self.rows.append(row)

    def enough(self, exact: Tensor, rel_error: float) -> bool:
        """Tell whether the standard error is small enough, or nothing is left to probe."""
        if self._space.count == self._operator.size:
            return True
        if len(self.rows) < FEWEST:
            return False
        found = self.total(exact)
        return (found.stderr or 0.0) <= rel_error * abs(found.value)

    def total(self, exact: Tensor) -> Estimate:
        """Estimate the trace."""
        return shifted([float(row.sum()) for row in self.rows], float(exact.sum()))

    def layers(self, exact: Tensor, names: list[str]) -> dict[str, Estimate]:
        """Estimate the part of every weight tensor."""
        columns = torch.stack(self.rows).T.tolist() if self.rows else [[] for _ in names]
        return {n: shifted(column, float(e)) for n, column, e in zip(names, columns, exact, strict=True)}


def shifted(values: list[float], exact: float) -> Estimate:
    """Estimate a mean plus something known."""
    if not values:
        return Estimate(exact, 0.0, 1, (exact, exact), "exact")
    found = mean([exact + v for v in values])
    return Estimate(found.value, found.stdev, found.n, found.interval, found.method)


def by_layer(left: Tensor, right: Tensor, counts: list[int]) -> Tensor:
    """Sum the products of two stacks of vectors, shape (K, P), over the entries of each weight tensor: shape (L,)."""
    parts = zip(left.split(counts, 1), right.split(counts, 1), strict=True)
    return torch.stack([(a * b).sum(dtype=torch.float64) for a, b in parts]).cpu()


def krylov(operator: Operator, count: int, seed: int, listen: Listener) -> Subspace:
    """Build a Krylov space from a random start; it ends early where it is invariant."""
    space = Subspace(operator, max(count, 1))
    fresh = random_start(operator, seed)
    for step in range(count):
        if not space.add(fresh):
            break
        fresh = space.images[-1]
        listen(Progress("trace", step + 1, None, "products", "outer directions"))
    return space


def check_arguments(rel_error: float, deflate: int, matrix: str, max_products: int, method: str) -> None:
    """Refuse what cannot be estimated.

    Args:
        rel_error: tolerance.
        deflate: size of the subspace.
        matrix: its name.
        max_products: the most to spend.
        method: its name.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    if method not in get_args(Method):
        raise BadInput(f"method is {method!r}; choose one of {', '.join(get_args(Method))}")
    if not (math.isfinite(rel_error) and rel_error > 0):
        raise BadInput(f"rel_error is {rel_error!r}; give a positive number, for example 0.02")
    if isinstance(deflate, bool) or not isinstance(deflate, int) or deflate < 0:
        raise BadInput(f"deflate is {deflate!r}; give a whole number, 0 for the plain estimator")
    if matrix not in MATRICES:
        raise BadInput(f"matrix is {matrix!r}; choose one of {', '.join(MATRICES)}")
    if max_products < deflate + FEWEST:
        raise BadInput(f"max_products is {max_products!r}; give at least deflate + {FEWEST} = {deflate + FEWEST}")
