"""Keskar's sharpness in random subspaces: how far the loss climbs in a box of a hundred random directions."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, measuring
from gengap.measures.sharpness.box_search import Box, Search, search_box
from gengap.measures.sharpness.climb import Start, check_count, check_positive, check_search, summary
from gengap.measures.sharpness.columns import Columns, Law
from gengap.measures.sharpness.surface import Height, Surface, View, check_base, doubles
from gengap.measures.trees import Vector, as_tree, flatten

VECTORS = 8  # float64 vectors as long as the weights that are held at once


@dataclass(frozen=True, slots=True)
class Draw:
    """The sharpness in one random subspace.

    Attributes:
        percent: 100 * (peak - base) / (1 + base), >= 0.
        peak: highest finite loss met, nats per sample.
        starts: every search made, in order.
        evaluations: loss-and-gradient evaluations, that of the point not counted.
        share_at_bound: share of the p coordinates on a face of the box at the peak, 0 to 1.
        agreement: second best percent over the best; None for a single search, and where nothing climbed.
        nonfinite: evaluations whose loss or gradient was not finite.
    """

    percent: float
    peak: float
    starts: tuple[Start, ...]
    evaluations: int
    share_at_bound: float
    agreement: float | None
    nonfinite: int


@dataclass(frozen=True, slots=True)
class SubspaceSharpness(Record):
    """The sharpness of one point in several random subspaces.

    Attributes:
        percent: mean over the subspaces, each a lower bound of its own maximum; `stdev` is their scatter.
        draws: each of them.
        base: loss at the point, nats per sample.
        radius: eps of the box, no unit.
        dim: p, columns of A.
        entries: the law of A.
        search: "robust" or "paper".
        evaluations: loss-and-gradient evaluations in all.
        stored: whether A was kept in memory; else it was drawn again at every use.
        conditions: on what it was measured, and what it cost.
        bound: always "lower".
    """

    percent: Estimate
    draws: tuple[Draw, ...]
    base: float
    radius: float
    dim: int
    entries: Law
    search: Search
    evaluations: int
    stored: bool
    conditions: Conditions
    bound: str = "lower"

    @property
    def values(self) -> tuple[float, ...]:
        """The percentage of every subspace."""
        return tuple(draw.percent for draw in self.draws)

    def __str__(self) -> str:
        agreed = [draw.agreement for draw in self.draws if draw.agreement is not None]
        agreement = f", searches agree to {min(agreed):.2g} or better" if agreed else ""
        return (
            f"sharpness in random subspaces of dimension {self.dim} >= {self.percent} % at radius {self.radius:g}: "
            f"A with {self.entries}{' entries' if self.entries != 'unit columns' else ''}, {self.search} search, "
            f"{self.evaluations} evaluations{agreement}; {self.conditions}"
        )


@dataclass(frozen=True, slots=True)
class Span:
    """The points x + A z.

    Attributes:
        centre: x, shape (P,).
        columns: A.
    """

    centre: Vector
    columns: Columns

    def weights(self, z: Vector) -> Vector:
        """Return x + A z, shape (P,)."""
        return self.centre + self.columns.times(z)

    def gradient(self, slope: Vector) -> Vector:
        """Return the gradient by z, A^T times the one by the weights."""
        return self.columns.transposed(slope)


def subspace_sharpness(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: float = 1e-3,
    dim: int = 100,
    repeats: int = 5,
    entries: Law = "normal",
    search: Search = "robust",
    iterations: int = 10,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> SubspaceSharpness:
    r"""Measure the relative climb of `loss` in boxes of random subspaces.

    .. math::
        \phi = 100\,\frac{\max_{z \in C} L(x + A z) - L(x)}{1 + L(x)},
        \qquad C = \{z \in R^p : |z_i| \le \varepsilon\,(|(A^+ x)_i| + 1)\},
        \qquad A^+ x = (A^T A)^{-1} A^T x.

    A has P rows and p random columns; several are drawn, and mean and scatter over them reported. The law of its entries
    decides how far the box reaches, and so the value: an entry of A of size s moves a weight by s eps for each of the p
    coordinates. With N(0, 1) entries the corners lie about :math:`\sqrt{p}` times farther out than the full box of the
    same radius; with unit columns the box is too small to matter for a large network.

    The searches are those of `gengap.sharpness`, in p coordinates; the gradient by z is A^T times the one by the
    weights. Costs up to 47 evaluations for each subspace with "robust", 11 to 23 with "paper".

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic, and
            differentiable once.
        params: the weights x, P in all, by name or as one tensor; not modified.
        radius: eps of the box, no unit, > 0.
        dim: p, at most P.
        repeats: subspaces drawn, >= 1.
        entries: "normal": N(0, 1); "unit columns": the same, each column divided by its norm; "uniform": in [0, 1), whose
            columns share a mean direction, along which most networks climb without end.
        search: "robust" or "paper".
        iterations: of every search, >= 1.
        seed: of A and of the signs that break ties; the same for every network of the same size.
        only: patterns of names; the weights they match are measured, the others held.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes; A takes 4 P p of them and is drawn again at every use where they are not there.
        listen: is told after every evaluation.

    Returns:
        Mean and scatter, and what was found in each subspace.

    Raises:
        BadInput: an argument is out of range, or the loss is not deterministic, or not finite or not above -1 at the
            point.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, Metric 2.1 and table 4 (p = 100). The law of A is not given there.
    """
    tree = as_tree(params)
    check_arguments(radius, dim, repeats, entries)
    check_search(search, iterations)
    with measuring(
        loss,
        params,
        passes="gradient",
        vectors=doubles(tree, VECTORS),
        moves=True,
        only=only,
        check=check,
        memory_limit=memory_limit,
    ) as session:
        if dim > session.weights:
            raise BadInput(f"dim is {dim}, but there are only {session.weights} weights; give at most that many")
        surface, centre = Surface(session.loss, session.params, listen, "subspace sharpness"), flatten(session.params)
        first = surface.at(centre)
        check_base(first.value)
        draws = []
        for i in range(repeats):
            drawn = stream(seed, "subspace", i)
            columns = Columns(session.weights, dim, law=entries, seed=drawn, room=session.memory.free)
            found = climb(
                surface, Span(centre, columns), first, radius, search=search, iterations=iterations, seed=drawn
            )
            draws.append(found)
        return SubspaceSharpness(
            percent=mean([draw.percent for draw in draws]),
            draws=tuple(draws),
            base=first.value,
            radius=radius,
            dim=dim,
            entries=entries,
            search=search,
            evaluations=surface.evaluations,
            stored=columns.stored,
            conditions=session.conditions(),
        )


def climb(
    surface: Surface, span: Span, first: Height, radius: float, *, search: Search, iterations: int, seed: int
) -> Draw:
    """Search one subspace, given the height at its centre."""
    spent, odd = surface.evaluations, surface.nonfinite
    view, along = View(surface, span), span.columns.pseudo_inverse(span.centre)
    box = Box.within(np.zeros_like(along), radius * (np.abs(along) + 1))
    found = search_box(view, box, view.seen(first), search, iterations=iterations, seed=seed)
    facts: dict[str, Any] = summary(found, first.value)
    facts.pop("base")
    return Draw(**facts, evaluations=surface.evaluations - spent, nonfinite=surface.nonfinite - odd)


def check_arguments(radius: float, dim: int, repeats: int, entries: str) -> None:
    """Refuse what gives no subspace.

    Args:
        radius: of the box.
        dim: columns.
        repeats: subspaces.
        entries: law of the entries.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    check_positive("radius", radius, "1e-3")
    check_count("dim", dim)
    check_count("repeats", repeats)
    if entries not in get_args(Law):
        raise BadInput(f"entries is {entries!r}; choose one of {', '.join(get_args(Law))}")
