"""Keskar's sharpness: how far the loss climbs in a box around a minimum."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import Names, Session, measuring
from gengap.measures.sharpness.box_search import VECTORS, Box, Search, search_box
from gengap.measures.sharpness.climb import Start, check_positive, check_search, summary
from gengap.measures.sharpness.groups import Groups, grouped, positions
from gengap.measures.sharpness.surface import Entries, Landscape, Surface, View, check_base, doubles
from gengap.measures.trees import as_tree, dtype_name, flatten, resolution

NO_GROUPS: Mapping[str | None, tuple[str, ...]] = {None: ()}
LIMIT = "8 GiB"  # twice the usual: the search alone holds 42 float64 vectors, 5 GB for 15 million weights


@dataclass(frozen=True, slots=True)
class Sharpness(Record):
    """The sharpness of one point; `percent` is the number papers quote.

    Attributes:
        percent: 100 * (peak - base) / (1 + base), no unit, >= 0.
        base: loss at the point, nats per sample.
        peak: highest finite loss met in the box, nats per sample.
        radius: eps of the box, no unit.
        search: "robust" or "paper".
        starts: every search made, in order.
        evaluations: loss-and-gradient evaluations in all; the two plain evaluations of the check are not counted.
        share_at_bound: share of coordinates on a face of the box at the peak, 0 to 1.
        agreement: second best percent over the best, 0 to 1; None for a single search, and where nothing climbed. Searches
            that follow the same slope may agree on the same wrong corner: it speaks for the search, and proves nothing.
        nonfinite: evaluations whose loss or gradient was not finite; where there are some, the true maximum is
            infinite or unknown.
        conditions: on what it was measured, and what it cost. Batch-norm statistics change the value by a factor up to 100.
        bound: always "lower": the search may have missed a higher point of the box.
        group: the weights whose box was open, the others held; None for all that were measured.
    """

    percent: float
    base: float
    peak: float
    radius: float
    search: str
    starts: tuple[Start, ...]
    evaluations: int
    share_at_bound: float
    agreement: float | None
    nonfinite: int
    conditions: Conditions
    bound: str = "lower"
    group: str | None = None

    @property
    def seconds(self) -> float:
        """Wall clock."""
        return self.conditions.seconds

    @property
    def dtype(self) -> str:
        """Of the weights, in which the loss was evaluated."""
        return self.conditions.dtype

    @property
    def batch_norm(self) -> str:
        """Which statistics batch norm used."""
        return self.conditions.batch_norm

    @property
    def data(self) -> str:
        """Which split."""
        return self.conditions.data

    @property
    def samples(self) -> int | None:
        """How many of its samples, or None where unknown."""
        return self.conditions.samples

    def __str__(self) -> str:
        where = "" if self.group is None else f" of {self.group}"
        if self.percent == 0:
            return (
                f"sharpness{where} 0 found at radius {self.radius:g}: in {self.evaluations} evaluations ({self.search} search) "
                f"the loss never exceeded {self.base:.4g}, its value at the point; {self.dtype} may not resolve the climb"
            )
        agreement = "" if self.agreement is None else f", searches agree to {self.agreement:.2g}"
        odd = f", {self.nonfinite} of them not finite" if self.nonfinite else ""
        return (
            f"sharpness{where} >= {self.percent:.4g} % at radius {self.radius:g}: "
            f"loss {self.base:.4g} climbs to {self.peak:.4g} nats; "
            f"{self.search} search, {self.evaluations} evaluations{odd}, "
            f"{100 * self.share_at_bound:.3g} % of weights at the bound{agreement}; {self.conditions}"
        )


@dataclass(frozen=True, slots=True)
class SharpnessProfile(Record):
    """The sharpness of one point for several radii, or several groups of weights: a sequence of `Sharpness`.

    Attributes:
        records: one for each radius of each group, the radii of the first group first; each counts the evaluation of the
            point, which they share, and its own seconds.
        evaluations: loss-and-gradient evaluations in all.
        conditions: on what they were measured, and what all of them cost together.
    """

    records: tuple[Sharpness, ...]
    evaluations: int
    conditions: Conditions

    def __iter__(self) -> Iterator[Sharpness]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sharpness:
        return self.records[index]

    def __str__(self) -> str:
        lines = [
            f"{r.percent:10.4g} % at radius {r.radius:g}" + ("" if r.group is None else f", {r.group} alone")
            for r in self.records
        ]
        first = f"sharpness of at least ({self.records[0].search} search, {self.evaluations} evaluations; {self.conditions})"
        return "\n".join([first, *lines])


@overload
def sharpness(
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: float = 1e-3,
    groups: None = None,
    search: Search = "robust",
    iterations: int = 10,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = LIMIT,
    listen: Listener = silent,
) -> Sharpness: ...


@overload
def sharpness(
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: Sequence[float],
    groups: Groups | None = None,
    search: Search = "robust",
    iterations: int = 10,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = LIMIT,
    listen: Listener = silent,
) -> SharpnessProfile: ...


@overload
def sharpness(
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: float | Sequence[float] = 1e-3,
    groups: Groups,
    search: Search = "robust",
    iterations: int = 10,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = LIMIT,
    listen: Listener = silent,
) -> SharpnessProfile: ...


def sharpness(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: float | Sequence[float] = 1e-3,
    groups: Groups | None = None,
    search: Search = "robust",
    iterations: int = 10,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = LIMIT,
    listen: Listener = silent,
) -> Sharpness | SharpnessProfile:
    r"""Measure the relative climb of `loss` in a box that scales with the weights.

    .. math::
        \phi = 100\,\frac{\max_{|z_i| \le b_i} L(x + z) - L(x)}{1 + L(x)},
        \qquad b_i = \varepsilon\,(|x_i| + 1).

    The maximum is searched, so `percent` is a lower bound, and the best of everything evaluated counts.

    - "robust" divides the loss by its largest gradient entry at the point, and runs L-BFGS-B from the point and from
      the corner along the signs of the gradient, then sign ascent as a check. Entries whose gradient is zero get random
      signs; where no entry can be divided by, only the corner is left as a start. Up to 1,000 weights another climb begins
      in the corner that the curvature at the point asks for. Usually about 32 evaluations (up to 15 more with few
      weights), up to 60 where a line search fails for want of digits.
    - "paper" runs L-BFGS-B from the point on the loss as it is, both tolerances open. Near a converged minimum it
      hardly moves: its value tells how far training had converged as much as how sharp the minimum is. Usually 11 to 23
      evaluations.

    Both searches run in float64; the loss is evaluated in the dtype of `params`. A loss whose gradient is zero in every
    bit all over the box gives 0: use float64 where float32 saturates. Memory: 42 float64 vectors as long as the weights.
    A search adds some 0.2 s an iteration on 1.5 million weights beside its evaluations.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic, and
            differentiable once. A `LossFunction` is evaluated in chunks.
        params: the weights x, P floating numbers in all, by name or as one tensor; not modified.
        radius: half-width eps of the box relative to |x_i| + 1, no unit, > 0; or several of them.
        groups: "layer", or patterns of names by group name: measures each group with its box open and all other weights
            held. The largest group is usually not as sharp as all together, and the groups do not add up.
        search: "robust" or "paper".
        iterations: L-BFGS-B iterations from each start, and ascent steps, >= 1.
        seed: of the signs that break ties.
        only: patterns of names; the weights they match are measured, the others held.
        check: evaluate twice first and refuse a loss that is not deterministic. Switch it off only for one that differs
            in its last bits; noise larger than that is reported as sharpness.
        memory_limit: bytes for the search and for the chunks that go through the network.
        listen: is told after every evaluation.

    Returns:
        The climb with its searches and its cost; a profile where several radii or groups were asked for.

    Raises:
        BadInput: an argument is out of range, or the loss is not deterministic, or not finite or not above -1 at the
            point.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, Metric 2.1 with A = I. The paper says L-BFGS-B, 10 iterations; start,
        scaling and tolerances are not given there.
    """
    radii = (radius,) if isinstance(radius, int | float) else tuple(radius)
    tree = as_tree(params)
    check_search(search, iterations)
    check_radii(radii)
    with measuring(
        *(loss, params),
        passes="gradient",
        vectors=doubles(tree, VECTORS),
        moves=True,
        only=only,
        check=check,
        memory_limit=memory_limit,
    ) as session:
        check_resolution(session.params, radii)
        named = NO_GROUPS if groups is None else grouped(session.params, groups)
        climber = Climber(session, search, iterations, seed, listen)
        climbed = [climber.climb(r, group, names) for group, names in named.items() for r in radii]
        conditions = session.conditions()
    if groups is None and isinstance(radius, int | float):
        return Sharpness(**climbed[0][0], conditions=conditions)
    records = tuple(Sharpness(**found, conditions=replace(conditions, seconds=own)) for found, own in climbed)
    return SharpnessProfile(records, climber.surface.evaluations, conditions)


class Climber:
    """Climbs from one point in several boxes; the point is evaluated once.

    Args:
        session: loss and weights.
        search: how.
        iterations: of each search.
        seed: of the signs that break ties.
        listen: is told after every evaluation.

    Attributes:
        surface: what is climbed, with the count of evaluations.

    Raises:
        BadInput: the loss at the point is not finite, or not above -1.
    """

    def __init__(self, session: Session, search: Search, iterations: int, seed: int, listen: Listener) -> None:
        self._params, self._search, self._iterations = session.params, search, iterations
        self._seed = stream(seed, "sharpness")
        self.surface = Surface(session.loss, session.params, listen)
        self._centre = flatten(session.params)
        self._first = self.surface.at(self._centre)
        check_base(self._first.value)

    def climb(self, radius: float, group: str | None, names: Sequence[str]) -> tuple[dict[str, Any], float]:
        """Search the box of some weights, or of all where there is no group: the record's fields, and seconds."""
        began, spent, odd = time.perf_counter(), self.surface.evaluations, self.surface.nonfinite
        ground: Landscape = self.surface
        centre, first = self._centre, self._first
        if group is not None:
            index = positions(self._params, names)
            ground = view = View(self.surface, Entries(centre, index))
            centre, first = centre[index], view.seen(first)
        box = Box.around(centre, radius)
        found = search_box(ground, box, first, self._search, iterations=self._iterations, seed=self._seed)
        facts = {
            **summary(found, first.value),
            "radius": radius,
            "search": self._search,
            "evaluations": 1 + self.surface.evaluations - spent,
            "nonfinite": (not self._first.usable) + self.surface.nonfinite - odd,
            "group": group,
        }
        return facts, time.perf_counter() - began


def check_radii(radii: Sequence[float]) -> None:
    """Refuse radii that give no box.

    Args:
        radii: of the boxes.

    Raises:
        BadInput: there is none, or one of them is not positive.
    """
    if not radii:
        raise BadInput("radius holds no number; give a positive number or several, for example (5e-4, 1e-3)")
    for radius in radii:
        check_positive("radius", radius, "1e-3")


def check_resolution(tree: Params, radii: Sequence[float]) -> None:
    """Refuse radii that are lost in the rounding of the weights.

    Args:
        tree: the weights.
        radii: of the boxes.

    Raises:
        BadInput: the smallest is below four times the relative spacing of their numbers.
    """
    if min(radii) < 4 * resolution(tree):
        raise BadInput(
            f"radius is {min(radii)!r}, which {dtype_name(tree)} cannot resolve (its relative spacing is "
            f"{resolution(tree):.2g}); convert params to a finer dtype or give a larger radius"
        )
