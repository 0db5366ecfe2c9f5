"""The loss around one point, along one or two directions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.landscape.directions import (
    Scaling,
    Tree,
    Vectors,
    cosine,
    given_direction,
    length_of,
    random_direction,
    scaled,
)
from gengap.measures.landscape.grid import POINTS, Grid, survey_grid
from gengap.measures.landscape.loss_table import column_names, loss_table
from gengap.measures.landscape.positions import Flat
from gengap.measures.landscape.survey import (
    Losses,
    Manner,
    SurveyConditions,
    Values,
    accuracies_of,
    check_positions,
    losses_of,
    surveying,
)
from gengap.measures.protocols import Params
from gengap.measures.session import DEFAULT_LIMIT, Names, divided
from gengap.measures.trees import as_tree

LINE = tuple(np.linspace(-1, 1, 25).tolist())
SIDE = tuple(np.linspace(-1, 1, POINTS).tolist())


@dataclass(frozen=True, slots=True)
class Axes(Record):
    """The directions of a slice.

    Attributes:
        source: "random" or "given".
        scaling: "filter", "layer", "unit" or "none".
        vectors: what became of biases and norm parameters: "zero" or "whole"; with "unit" and "none" they are kept.
        seed: of random directions, None of given ones.
        lengths: Euclidean lengths of the directions, in units of the weights.
        cosine: of the angle between the two, None for a single one.
        moved: how many weights move, P.
        directions: by name, as they were used; names that do not move are left out.
    """

    source: str
    scaling: str
    vectors: str
    seed: int | None
    lengths: tuple[float, ...]
    cosine: float | None
    moved: int
    directions: tuple[Tree, ...]

    def __str__(self) -> str:
        what = f"{self.source} direction{'s' if len(self.lengths) > 1 else ''}, scaling {self.scaling}"
        shown = ", ".join(f"{length:.4g}" for length in self.lengths)
        return f"{what}, length {shown}" + ("" if self.cosine is None else f", cosine {self.cosine:.2g}")


@dataclass(frozen=True, slots=True)
class Slice1D(Record):
    """The loss along a direction.

    Attributes:
        positions: multiples of the direction; 0 is the point itself.
        losses: for each loss function the loss at each position, nats per sample; None where it is not finite.
        accuracies: the same in percent, or None for a loss function that counts none.
        axes: the direction.
        conditions: on what it was measured, and the cost.
    """

    positions: tuple[float, ...]
    losses: tuple[Values, ...]
    accuracies: tuple[Values | None, ...]
    axes: Axes
    conditions: SurveyConditions

    def __str__(self) -> str:
        names = column_names(self.conditions.descriptions)
        rows = loss_table("position", names, self.positions, self.losses)
        return "\n".join([f"loss in nats along a {self.axes}", *rows])


@dataclass(frozen=True, slots=True)
class Slice2D(Record):
    """The loss along two directions.

    Attributes:
        grid: losses; x and y are multiples of the first and second direction, (0, 0) is the point itself.
        axes: the directions.
        conditions: on what it was measured, and the cost.
    """

    grid: Grid
    axes: Axes
    conditions: SurveyConditions

    def __str__(self) -> str:
        return f"slice along {self.axes}: {self.grid}; {self.conditions}"


def slice_1d(  # noqa: PLR0913 - options, by keyword only
    losses: Losses,
    params: Params | Tensor,
    *,
    direction: Params | Tensor | None = None,
    positions: Sequence[float] = LINE,
    scaling: Scaling | None = None,
    vectors: Vectors = "zero",
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    resume: str | PathLike[str] | None = None,
    listen: Listener = silent,
) -> Slice1D:
    r"""Evaluate losses at :math:`w + t\,d` along one direction d.

    A random direction is scaled by default so that each of its filters has the norm of the same filter of the weights:
    the picture then does not change when a layer with batch norm, or a pair of layers around a ReLU, is rescaled. A filter
    is an entry of the first axis of a tensor with two axes or more: what makes one output of a linear or convolutional
    layer, and one row of an embedding. Frozen weights do not move, nor do rows that an embedding does not train
    (padding_idx). Costs one forward pass of each loss at each position.

    Batch norm is that of the losses: "batch" and "recompute" adapt to each point, the running averages of "running" are
    those of the point in the middle.

    Args:
        losses: one loss or several; each maps weights by name to a scalar tensor in nats per sample.
        params: the weights w, by name or as one tensor; not modified.
        direction: d, by name or as a vector of shape (P,) (an eigenvector of `top_eigenvalues`, a gradient). None: random,
            standard normal.
        positions: t, without unit; by default 25 in [-1, 1].
        scaling: "filter" (default of random directions), "layer", "unit" (length 1: t is then a distance) or "none" (default
            of given ones).
        vectors: with "filter" and "layer", "zero" leaves biases and norm parameters where they are, "whole" scales each such
            tensor to the norm of the weights.
        seed: of the random direction.
        only: patterns of names; the others do not move.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for a forward pass and for what is kept; chunks are made to fit.
        resume: a file that keeps every finished point: run again, only missing points are evaluated.
        listen: is told after every point.

    Returns:
        The losses in the order of `positions`, with the direction.

    Raises:
        BadInput: a direction or position cannot be used, a loss is not deterministic, the limit is too small, or the file
            holds another measurement.
        Interrupted: Ctrl-C, where `resume` keeps the points that are done.

    Source:
        Li et al. 2018, arXiv:1712.09913, section 4.
    """
    along = check_positions(positions, "positions")
    tree = as_tree(params)
    given = None if direction is None else [direction]
    axes = axes_of(losses, tree, given, 1, scaling=scaling, vectors=vectors, seed=seed, only=only)
    with surveying(
        losses,
        params,
        Flat(tree, axes.directions, {(0.0,): tree}),
        base=(0.0,),
        points=len(along),
        settings={"measure": "slice"},
        manner=Manner(check, memory_limit, resume, listen),
    ) as survey:
        rows = survey.visit([(t,) for t in along], "slice", listen)
        return Slice1D(along, losses_of(rows), accuracies_of(rows), axes, survey.conditions())


def slice_2d(  # noqa: PLR0913 - options, by keyword only
    losses: Losses,
    params: Params | Tensor,
    *,
    directions: Sequence[Params | Tensor] | Tensor | None = None,
    x: Sequence[float] = SIDE,
    y: Sequence[float] = SIDE,
    scaling: Scaling | None = None,
    vectors: Vectors = "zero",
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    resume: str | PathLike[str] | None = None,
    listen: Listener = silent,
) -> Slice2D:
    r"""Evaluate losses at :math:`w + x\,d_1 + y\,d_2` on a grid; see `slice_1d` for the directions.

    Two random directions are nearly orthogonal, because there are many weights; nothing makes them exactly so, and
    the record has the cosine of their angle. Costs one forward pass of each loss at each grid point: 225 by default.

    Args:
        losses: one loss or several; each maps weights by name to a scalar tensor in nats per sample.
        params: the weights w, by name or as one tensor; not modified.
        directions: two of them, by name or as vectors of shape (P,). None: random, standard normal.
        x: positions along the first, without unit; by default 15 in [-1, 1].
        y: positions along the second.
        scaling: "filter" (default of random directions), "layer", "unit" or "none" (default of given ones).
        vectors: with "filter" and "layer", what becomes of biases and norm parameters: "zero" or "whole".
        seed: of the random directions; the first is that of `slice_1d`.
        only: patterns of names; the others do not move.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for a forward pass and for what is kept; chunks are made to fit.
        resume: a file that keeps every finished point: run again, only missing points are evaluated.
        listen: is told after every point.

    Returns:
        The grid, with the directions.

    Raises:
        BadInput: directions or positions cannot be used, a loss is not deterministic, the limit is too small, or the file
            holds another measurement.
        Interrupted: Ctrl-C, where `resume` keeps the points that are done.

    Source:
        Li et al. 2018, arXiv:1712.09913, sections 4 and 6.
    """
    xs, ys = check_positions(x, "x"), check_positions(y, "y")
    tree = as_tree(params)
    given = None if directions is None else list(directions)
    axes = axes_of(losses, tree, given, 2, scaling=scaling, vectors=vectors, seed=seed, only=only)
    with surveying(
        losses,
        params,
        Flat(tree, axes.directions, {(0.0, 0.0): tree}),
        base=(0.0, 0.0),
        points=len(xs) * len(ys),
        settings={"measure": "slice"},
        manner=Manner(check, memory_limit, resume, listen),
    ) as survey:
        grid = survey_grid(survey, xs, ys, "slice", listen)
        return Slice2D(grid, axes, survey.conditions())


def axes_of(
    losses: Losses,
    params: Mapping[str, Tensor],
    given: Sequence[Any] | None,
    count: int,
    *,
    scaling: Scaling | None,
    vectors: Vectors,
    seed: int,
    only: Names,
) -> Axes:
    """Make the directions of a slice.

    Args:
        losses: whose frozen weights do not move.
        params: the weights.
        given: directions of the user's, or None for random ones.
        count: how many there must be.
        scaling: of their length; None: the default.
        vectors: what becomes of tensors with one axis.
        seed: of random ones.
        only: patterns of names.

    Returns:
        The directions.

    Raises:
        BadInput: they cannot be used, or do not span `count` dimensions.
    """
    moving = moved(losses, params, only)
    if given is not None and len(given) != count:
        raise BadInput(f"directions holds {len(given)} of them; give {count}")
    how: Scaling = scaling or ("filter" if given is None else "none")
    found = []
    for i in range(count):
        name = "direction" if count == 1 else f"directions[{i}]"
        raw = drawn(losses, moving, seed, i) if given is None else given_direction(given[i], moving, name)
        found.append(scaled(raw, moving, how, vectors))
    angle = cosine(*found) if count == 2 else None
    if angle is not None and 1 - abs(angle) < 1e-9:
        raise BadInput(f"the two directions are parallel (cosine {angle:.9f}); give two that span a plane")
    return Axes(
        source="random" if given is None else "given",
        scaling=how,
        vectors=vectors if how in {"filter", "layer"} else "whole",
        seed=seed if given is None else None,
        lengths=tuple(length_of(d) for d in found),
        cosine=angle,
        moved=sum(p.numel() for p in found[0].values()),
        directions=tuple(found),
    )


def drawn(losses: Losses, moving: Mapping[str, Tensor], seed: int, index: int) -> Tree:
    """Draw a random direction, without the rows that an embedding does not train."""
    found = random_direction(moving, seed, index)
    for function in losses if isinstance(losses, Sequence) else [losses]:
        rows: Mapping[str, int] = getattr(function, "untrained_rows", {})
        for name in rows.keys() & found.keys():
            found[name][rows[name]] = 0
    return found


def moved(losses: Losses, params: Mapping[str, Tensor], only: Names) -> dict[str, Tensor]:
    """Return the weights that may move: those that `only` matches, or that no loss holds frozen.

    Args:
        losses: one or several.
        params: all weights.
        only: patterns of names, or None.

    Returns:
        The weights.

    Raises:
        BadInput: none is left, or one is not finite.
    """
    functions = losses if isinstance(losses, Sequence) else [losses]
    frozen = frozenset(name for f in functions for name in getattr(f, "frozen", ()))
    active, _ = divided(params, only, frozen)
    if not math.isfinite(length_of(active)):
        raise BadInput("params holds a weight that is not finite; measure a run that did not diverge")
    return active
