"""The loss on the plane through three checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import finite
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.landscape.grid import POINTS, Grid, axis, survey_grid
from gengap.measures.landscape.positions import Flat, Position
from gengap.measures.landscape.spans import buffer_flat, combinations, gram
from gengap.measures.landscape.survey import (
    Losses,
    Manner,
    SurveyConditions,
    Values,
    check_positions,
    surveying,
)
from gengap.measures.protocols import Params
from gengap.measures.session import DEFAULT_LIMIT
from gengap.measures.trees import Vector, as_tree, check_same_layout, norm, resolution

NAMES = ("a", "b", "c")
THINNEST = 1e-5  # height of a triangle relative to its sides, below which float64 inner products lose it


@dataclass(frozen=True, slots=True)
class Corner(Record):
    """One of the three checkpoints.

    Attributes:
        name: "a", "b" or "c".
        x: its first coordinate.
        y: its second coordinate.
        losses: of each loss function there, nats per sample; None where not finite.
        accuracies: in percent, None where none is counted.
    """

    name: str
    x: float
    y: float
    losses: Values
    accuracies: Values


@dataclass(frozen=True, slots=True)
class Plane(Record):
    """The loss on the plane through three checkpoints.

    Coordinates are lengths: the distance of two points of the plane is the Euclidean distance of their weights. a is at
    (0, 0), b at (distance of a and b, 0), c above that axis.

    Attributes:
        corners: the three checkpoints, with the losses at their weights, bit for bit.
        grid: losses on the grid.
        x_direction: unit vector of the first axis, by name.
        y_direction: unit vector of the second axis.
        conditions: on what it was measured, and the cost.
    """

    corners: tuple[Corner, Corner, Corner]
    grid: Grid
    x_direction: dict[str, Tensor]
    y_direction: dict[str, Tensor]
    conditions: SurveyConditions

    def __str__(self) -> str:
        shown = [
            f"{c.name} ({c.x:.4g}, {c.y:.4g}) loss "
            + ", ".join("not finite" if v is None else f"{v:.4g}" for v in c.losses)
            for c in self.corners
        ]
        return f"plane through three checkpoints: {self.grid}; " + "; ".join(shown) + f"; {self.conditions}"


def plane(  # noqa: PLR0913 - options, by keyword only
    losses: Losses,
    *,
    a: Params | Tensor,
    b: Params | Tensor,
    c: Params | Tensor,
    points: int = POINTS,
    x: Sequence[float] | None = None,
    y: Sequence[float] | None = None,
    buffers: Sequence[Params] | None = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    resume: str | PathLike[str] | None = None,
    listen: Listener = silent,
) -> Plane:
    r"""Evaluate losses on a grid of the plane through three checkpoints.

    With :math:`u = (b - a)/|b - a|` and v the unit vector along what :math:`c - a` has beside u, the weights at (x, y) are
    :math:`a + x\,u + y\,v`. Inner products are taken in float64. Costs one forward pass of each loss at each grid point
    and at each of the three; less behind a first linear layer, see `interpolate`. Memory for three copies of the weights.

    Args:
        losses: one loss or several; each maps weights by name to a scalar tensor in nats per sample.
        a: weights at the origin, by name or as one tensor; not modified.
        b: weights on the first axis, of the same names and shapes.
        c: weights beside that axis.
        points: grid points along each axis, where `x` or `y` is not given: they cover the three and a quarter more on
            every side.
        x: positions along the first axis, in units of weight distance.
        y: positions along the second axis.
        buffers: those of a, b and c: running statistics then follow the plane as the weights do. None: those of the loss
            are used everywhere.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for a forward pass and for what is kept; chunks are made to fit.
        resume: a file that keeps every finished point: run again, only missing points are evaluated.
        listen: is told after every point.

    Returns:
        The three checkpoints in the plane, and the grid.

    Raises:
        BadInput: the three do not fit each other or lie on a line, an axis or buffers cannot be used, a loss is not
            deterministic, the limit is too small, or the file holds another measurement.
        Interrupted: Ctrl-C, where `resume` keeps the points that are done.

    Source:
        Garipov et al. 2018, arXiv:1802.10026, whose figures show such planes.
    """
    trees = [as_tree(tree, name) for tree, name in zip((a, b, c), NAMES, strict=True)]
    for tree, name in zip(trees[1:], NAMES[1:], strict=True):
        check_same_layout(trees[0], tree, ("a", name))
    places, coefficients = triangle(gram(trees[1:], trees[0]), grain(trees))
    xs = axis(min(p[0] for p in places), max(p[0] for p in places), points) if x is None else check_positions(x, "x")
    ys = axis(0.0, places[2][1], points) if y is None else check_positions(y, "y")
    given: dict[Position, dict[str, Tensor]] = dict(zip(places, trees, strict=True))
    flat = Flat(trees[0], combinations(trees[1:], trees[0], coefficients), given)
    with surveying(
        losses,
        a,
        flat,
        base=places[0],
        points=len(xs) * len(ys),
        settings={"measure": "plane"},
        manner=Manner(check, memory_limit, resume, listen),
        buffers=buffer_flat(buffers, 0, places, coefficients),
    ) as survey:
        rows = survey.visit(places, "checkpoints", listen, axis="at")
        grid = survey_grid(survey, xs, ys, "plane", listen)
        account = survey.conditions()
    first, second, third = (
        Corner(name, *at, tuple(finite(r.loss) for r in row), tuple(r.accuracy for r in row))
        for name, at, row in zip(NAMES, places, rows, strict=True)
    )
    return Plane((first, second, third), grid, dict(flat.parts[1]), dict(flat.parts[2]), account)


def triangle(inner: Vector, grain: float) -> tuple[list[tuple[float, float]], Vector]:
    """Lay a triangle into the plane.

    Args:
        inner: inner products of b - a and c - a, shape (2, 2).
        grain: distance that rounding of the weights makes.

    Returns:
        Coordinates of a, b and c; and the axes as combinations of b - a and c - a, shape (2, 2).

    Raises:
        BadInput: two of the three are equal, or all lie on a line.
    """
    base, far = math.sqrt(inner[0, 0]), math.sqrt(inner[1, 1])
    if min(base, far) <= grain:
        raise BadInput(
            f"a and {'b' if base <= grain else 'c'} are the same weights but for rounding; give three different checkpoints, "
            f"or use gengap.interpolate for two"
        )
    along = float(inner[0, 1]) / base
    height = math.sqrt(max(0.0, float(inner[1, 1]) - along**2))
    if height <= max(grain, THINNEST * max(base, far)):
        raise BadInput(
            f"a, b and c lie on a line: c is {height:.3g} away from the one through a and b, which are {base:.3g} apart; use "
            f"gengap.interpolate along the line"
        )
    axes = np.array([[1 / base, 0.0], [-along / (base * height), 1 / height]])
    return [(0.0, 0.0), (base, 0.0), (along, height)], axes


def grain(trees: Sequence[dict[str, Tensor]]) -> float:
    """Return the distance between weights that rounding to their dtype makes."""
    return max(resolution(tree) * math.hypot(*(norm(p) for p in tree.values())) for tree in trees)
