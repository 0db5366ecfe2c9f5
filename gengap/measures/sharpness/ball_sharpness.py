"""The worst climb of the loss in a ball around a point, and its forms that do not depend on the scale of the weights."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, measuring
from gengap.measures.sharpness.climb import check_count, check_positive, percent
from gengap.measures.sharpness.perturbations import Unit, units
from gengap.measures.sharpness.surface import Height, Scaled, Surface, View, check_finite, doubles
from gengap.measures.trees import Vector, as_tree, flatten

VECTORS = 14  # float64 vectors as long as the weights that are held at once
SETTLED = 1e-9  # the search ends where the slope promises less than this share of what was climbed
FORMS: dict[bool | str, Unit] = {False: "absolute", True: "element", "element": "element", "filter": "filter"}


@dataclass(frozen=True, slots=True)
class Ascent:
    """What one search in the ball found.

    Attributes:
        name: "gradient" (begins at one step along the gradient) or "random" (at a random point of the sphere).
        rise: of the highest finite loss it met above the base, nats; nan where it met none.
        steps: taken upwards.
        evaluations: loss-and-gradient evaluations it spent.
        length: norm of the displacement at its peak, relative to the radius: 0 to 1.
    """

    name: str
    rise: float
    steps: int
    evaluations: int
    length: float


@dataclass(frozen=True, slots=True)
class BallSharpness(Record):
    """The worst-case sharpness of one point.

    Attributes:
        rise: peak - base, nats per sample, >= 0.
        base: loss at the point, nats per sample.
        peak: highest finite loss met in the ball, nats per sample.
        one_step: rise at one step of the full radius along the gradient, nats, as in sharpness-aware training; may be
            negative; None where the gradient is zero or not finite.
        radius: rho; of the displacement itself, or of the displacement in units of the weights.
        form: "absolute", "element" or "filter".
        starts: every search made.
        evaluations: loss-and-gradient evaluations in all.
        agreement: second best rise over the best; None for a single search, and where nothing climbed.
        nonfinite: evaluations whose loss or gradient was not finite.
        conditions: on what it was measured, and what it cost.
        bound: always "lower".
    """

    rise: float
    base: float
    peak: float
    one_step: float | None
    radius: float
    form: Unit
    starts: tuple[Ascent, ...]
    evaluations: int
    agreement: float | None
    nonfinite: int
    conditions: Conditions
    bound: str = "lower"

    @property
    def percent(self) -> float:
        """The rise relative to 1 + base, in percent, as in `gengap.sharpness`."""
        return percent(self.peak, self.base)

    def __str__(self) -> str:
        agreement = "" if self.agreement is None else f", searches agree to {self.agreement:.2g}"
        one = "" if self.one_step is None else f" (one step {self.one_step:.4g})"
        form = (
            "" if self.form == "absolute" else f" in units of each {'weight' if self.form == 'element' else 'filter'}"
        )
        return (
            f"loss rises by >= {self.rise:.4g} nats{one} from {self.base:.4g} in a ball of radius {self.radius:g}{form}; "
            f"{self.evaluations} evaluations{agreement}; {self.conditions}"
        )


def ball_sharpness(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: float = 0.05,
    adaptive: bool | str = False,
    steps: int = 20,
    restarts: int = 1,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> BallSharpness:
    r"""Measure the worst climb of `loss` in a ball around a point.

    .. math::
        \max_{\|T^{-1} \delta\|_2 \le \rho} L(x + \delta) - L(x)

    with T = 1, or with T diagonal and as large as the weights, which makes the number the same for all rescalings of the
    layers of a ReLU network. Projected gradient ascent with normalised steps searches from one step along the
    gradient and from random points of the sphere: the step is doubled after every climb and quartered after a
    failure, so that it turns into the power method. The best point met counts: a lower bound.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic, and
            differentiable once.
        params: the weights x, by name or as one tensor; not modified.
        radius: rho, > 0. Usual values are 0.05 without, and 0.5 to 2 with `adaptive`, where it has no unit.
        adaptive: False; True or "element": T_i = |x_i|; "filter": T_i is the norm of the filter that x_i belongs to, and
            |x_i| for vectors. A weight of zero whose T is zero does not move.
        steps: evaluations of each search after its first, >= 1.
        restarts: random starts, >= 0; at a point without gradient at least one is made.
        seed: of the random starts.
        only: patterns of names; the weights they match are measured, the others held.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for vectors and for the chunks that go through the network.
        listen: is told after every evaluation.

    Returns:
        The rise with its searches and its cost: at most 1 + (1 + restarts) (1 + steps) evaluations.

    Raises:
        BadInput: an argument is out of range, or the loss is not deterministic, or not finite at the point.

    Source:
        Foret et al. 2021, arXiv:2010.01412, eq. 1; Kwon et al. 2021, arXiv:2102.11600, eq. 3, p = 2, without the small
        number that training adds to T.
    """
    tree = as_tree(params)
    check_positive("radius", radius, "0.05")
    check_count("steps", steps)
    check_count("restarts", restarts, least=0)
    if adaptive not in FORMS:
        raise BadInput(f"adaptive is {adaptive!r}; choose False, True, 'element' or 'filter'")
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
        surface, centre = Surface(session.loss, session.params, listen, "ball sharpness"), flatten(session.params)
        unit = flatten({n: u.expand_as(session.params[n]) for n, u in units(session.params, FORMS[adaptive]).items()})
        first = surface.at(centre)
        check_finite(first.value)
        ball = Ball(View(surface, Scaled(centre, unit)), first, radius, steps)
        starts, one_step = ball.searched(restarts, seed)
        return BallSharpness(
            **summed_up(starts, first.value),
            one_step=one_step,
            radius=radius,
            form=FORMS[adaptive],
            evaluations=surface.evaluations,
            nonfinite=surface.nonfinite,
            conditions=session.conditions(),
        )


class Ball:
    """A ball in the coordinates of a view, and searches for its highest point.

    Args:
        view: the loss; its coordinates are 0 at the centre.
        first: the height of the centre, by the weights.
        radius: in those coordinates.
        steps: of each search.
    """

    def __init__(self, view: View, first: Height, radius: float, steps: int) -> None:
        self._view, self._radius, self._steps = view, radius, steps
        self._first, self._base = view.seen(first), first.value

    def searched(self, restarts: int, seed: int) -> tuple[tuple[Ascent, ...], float | None]:
        """Search from every start; the rise at one step along the gradient is given beside."""
        slope, found, one_step = self._first.gradient, [], None
        if self._first.usable and np.any(slope):
            there = self._at(self._on_sphere(slope), "gradient")
            one_step = there[1].value - self._base
            found.append(self._ascend("gradient", *there))
        for i in range(max(restarts, not found)):
            drawn = np.random.default_rng(stream(seed, "ball", i)).standard_normal(len(slope))
            found.append(self._ascend("random", *self._at(self._on_sphere(drawn), "random")))
        return tuple(found), one_step

    def _ascend(self, name: str, z: Vector, height: Height) -> Ascent:
        """Climb from z, whose height is known."""
        best, size, spent, climbed, stride = height.value, np.linalg.norm(z), 1, 0, 1.0
        while spent <= self._steps and height.usable:
            ahead = self._ahead(z, height.gradient, stride)
            if height.gradient @ (ahead - z) <= SETTLED * abs(height.value - self._base):
                break
            _, there = self._at(ahead, name)
            spent += 1
            if there.value > height.value:  # not where it is not a number
                z, height, climbed, stride = ahead, there, climbed + 1, 2 * stride
            else:
                stride /= 4
            if np.isfinite(there.value) and not there.value <= best:
                best, size = there.value, np.linalg.norm(ahead)
        rise = best - self._base if np.isfinite(best) else math.nan
        return Ascent(name, rise, climbed, spent, float(size / self._radius))

    def _ahead(self, z: Vector, slope: Vector, stride: float) -> Vector:
        """Step by `stride` radii along the slope, and back into the ball."""
        steepness = np.linalg.norm(slope)
        if not steepness > 0:
            return z
        moved = z + (stride * self._radius / steepness) * slope
        return self._on_sphere(moved) if np.linalg.norm(moved) > self._radius else moved

    def _on_sphere(self, z: Vector) -> Vector:
        return z * (self._radius / np.linalg.norm(z))

    def _at(self, z: Vector, note: str) -> tuple[Vector, Height]:
        return z, self._view.at(z, note)


def summed_up(starts: tuple[Ascent, ...], base: float) -> dict[str, Any]:
    """Turn what the searches found into the fields of the record; the centre is in the ball, so no rise is below 0."""
    rises = sorted((0.0 if math.isnan(s.rise) else max(0.0, s.rise) for s in starts), reverse=True)
    agreement = rises[1] / rises[0] if len(rises) > 1 and rises[0] > 0 else None
    return {"rise": rises[0], "base": base, "peak": base + rises[0], "starts": starts, "agreement": agreement}
