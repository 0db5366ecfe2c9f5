"""The way of a training run through the space of the weights, on its two principal components."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import cast

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.landscape.grid import POINTS, Grid, axis, survey_grid
from gengap.measures.landscape.positions import Flat
from gengap.measures.landscape.spans import buffer_flat, combinations, gram
from gengap.measures.landscape.survey import Losses, Manner, SurveyConditions, check_positions, surveying
from gengap.measures.protocols import Params
from gengap.measures.session import DEFAULT_LIMIT, Names, divided
from gengap.measures.trees import Vector, as_tree, check_same_layout

FLATTEST = 1e-10  # variance of the second component relative to the first, below which float64 inner products lose it


@dataclass(frozen=True, slots=True)
class Trajectory(Record):
    """Checkpoints projected on the plane through the last one along their two principal components.

    Attributes:
        coordinates: (x, y) of every checkpoint in order, in units of weight distance; the last is (0, 0).
        off_plane: how far each checkpoint is from the plane, in the same unit: what the projection leaves out.
        shares: of the variance around the mean checkpoint that each principal component has, largest first, T - 1 of them.
        random_walk_shares: what they would be for a random walk of as many steps in a space of very many dimensions.
        grid: losses on a grid of the plane, or None where no loss was given.
        checkpoints: how many, T.
        weights: how many numbers of each were used, P.
        x_direction: unit vector of the first component, by name.
        y_direction: unit vector of the second component.
        conditions: on what the losses were measured, and the cost; None without losses.
    """

    coordinates: tuple[tuple[float, float], ...]
    off_plane: tuple[float, ...]
    shares: tuple[float, ...]
    random_walk_shares: tuple[float, ...]
    grid: Grid | None
    checkpoints: int
    weights: int
    x_direction: dict[str, Tensor]
    y_direction: dict[str, Tensor]
    conditions: SurveyConditions | None

    def __str__(self) -> str:
        ours, walk = (100 * sum(shares[:2]) for shares in (self.shares, self.random_walk_shares))
        text = (
            f"two components hold {ours:.3g} % of the variance of {self.checkpoints} checkpoints (a random walk of that "
            f"length: {walk:.3g} %); farthest from the plane: {max(self.off_plane):.4g}"
        )
        return text if self.grid is None else f"{text}; {self.grid}; {self.conditions}"


def trajectory(  # noqa: PLR0913 - options, by keyword only
    checkpoints: Sequence[Params | Tensor],
    *,
    losses: Losses | None = None,
    points: int = POINTS,
    x: Sequence[float] | None = None,
    y: Sequence[float] | None = None,
    buffers: Sequence[Params] | None = None,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    resume: str | PathLike[str] | None = None,
    listen: Listener = silent,
) -> Trajectory:
    r"""Project checkpoints on their two principal components, and evaluate losses on that plane.

    With the differences :math:`D_t = w_t - w_T` from the last checkpoint, the components are those of the rows of D around
    their mean; the plane passes through the last checkpoint. They come from the T x T matrix :math:`D D^\top`, summed in
    float64, so that nothing larger than the checkpoints themselves is formed; shares below about 1e-10 of the largest are
    rounding. Costs T² P operations, and one forward pass of each loss at each grid point. Memory beside the checkpoints:
    three copies of the weights.

    A random walk in many dimensions gives smooth curves with large shares too: see `random_walk_shares`.

    Args:
        checkpoints: weights in the order of training, T >= 3, by name or as one tensor each; not modified.
        losses: one loss or several, or None for the projection alone.
        points: grid points along each axis, where `x` or `y` is not given: they cover the trajectory and a quarter more on
            every side.
        x: positions along the first component, in units of weight distance from the last checkpoint.
        y: positions along the second component.
        buffers: those of every checkpoint: running statistics then follow the plane as the weights do. None: those of the
            loss are used everywhere.
        only: patterns of names; the others count in no distance and stay those of the last checkpoint.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for a forward pass and for what is kept; chunks are made to fit.
        resume: a file that keeps every finished point: run again, only missing points are evaluated.
        listen: is told after every point.

    Returns:
        Coordinates, shares and the grid.

    Raises:
        BadInput: there are too few checkpoints, they do not fit each other or lie on a line, an axis or buffers cannot be
            used, a loss is not deterministic, the limit is too small, or the file holds another measurement.
        Interrupted: Ctrl-C, where `resume` keeps the points that are done.

    Source:
        Li et al. 2018, arXiv:1712.09913, section 7.2; random walks: Antognini & Sohl-Dickstein 2018, arXiv:1806.08805.
    """
    trees = checked(checkpoints)
    last, moving = trees[-1], divided(trees[-1], only, frozenset())[0]
    parts = components(gram(trees, moving))
    x_direction, y_direction = combinations(trees, moving, parts.coefficients)
    walk = random_walk_shares(len(trees))
    grid, account = None, None
    if losses is not None:
        xs, ys = grid_axes(parts.coordinates, (x, y), points)
        flat = Flat(last, (x_direction, y_direction), {(0.0, 0.0): last})
        with surveying(
            losses,
            checkpoints[-1],
            flat,
            base=(0.0, 0.0),
            points=len(xs) * len(ys),
            settings={"measure": "trajectory"},
            manner=Manner(check, memory_limit, resume, listen),
            buffers=buffer_flat(buffers, len(trees) - 1, [(0.0, 0.0)], parts.coefficients[:, :-1]),
        ) as survey:
            grid = survey_grid(survey, xs, ys, "trajectory", listen)
            account = survey.conditions()
    return Trajectory(
        coordinates=tuple((float(i), float(j)) for i, j in parts.coordinates),
        off_plane=tuple(parts.off_plane.tolist()),
        shares=tuple(parts.shares.tolist()),
        random_walk_shares=walk,
        grid=grid,
        checkpoints=len(trees),
        weights=sum(p.numel() for p in moving.values()),
        x_direction=x_direction,
        y_direction=y_direction,
        conditions=account,
    )


@dataclass(frozen=True, slots=True)
class Components:
    """Principal components of T checkpoints, as far as their inner products tell.

    Attributes:
        coefficients: the first two as combinations of the differences from the last checkpoint, shape (2, T).
        coordinates: of the checkpoints, shape (T, 2).
        off_plane: distances from the plane through the last one, shape (T,).
        shares: of the variance, shape (T - 1,).
    """

    coefficients: Vector
    coordinates: Vector
    off_plane: Vector
    shares: Vector


def components(inner: Vector) -> Components:
    """Find principal components from inner products.

    Args:
        inner: D D^T of the differences D from the last checkpoint, shape (T, T).

    Returns:
        The components; the sign is such that the first checkpoint has no negative coordinate.

    Raises:
        BadInput: the checkpoints span no plane.
    """
    count = len(inner)
    centring = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(centring @ inner @ centring)
    values, vectors = values[::-1][: count - 1], vectors[:, ::-1]
    if not values[1] > FLATTEST * values[0]:
        raise BadInput(
            "the checkpoints lie on a line or are all the same, so that they span no plane; give others, or use "
            "gengap.interpolate along the line"
        )
    # A component is (centring D)' v / sqrt(value); its product with D needs nothing but D D'.
    coefficients = (centring @ vectors[:, :2] / np.sqrt(values[:2])).T
    coefficients *= np.where(inner[0] @ coefficients.T < 0, -1.0, 1.0)[:, None]
    coordinates = inner @ coefficients.T
    coordinates[-1] = 0.0
    rest = np.diag(inner) - (coordinates**2).sum(1)
    positive = np.clip(values, 0, None)
    return Components(coefficients, coordinates, np.sqrt(np.clip(rest, 0, None)), positive / positive.sum())


def random_walk_shares(count: int) -> tuple[float, ...]:
    r"""Return the shares of variance of a random walk of `count` points in a space of very many dimensions.

    The k-th of count - 1 is proportional to :math:`1 / \sin^2(\pi k / (2\,\mathrm{count}))`: for many points 61 %, 15 %,
    7 %, ... (Antognini & Sohl-Dickstein 2018, arXiv:1806.08805).
    """
    heights = [1 / math.sin(math.pi * k / (2 * count)) ** 2 for k in range(1, count)]
    return tuple(height / sum(heights) for height in heights)


def checked(checkpoints: Sequence[Params | Tensor]) -> list[dict[str, Tensor]]:
    """Read checkpoints.

    Args:
        checkpoints: as the user gave them.

    Returns:
        Trees.

    Raises:
        BadInput: there are fewer than three, or they are not of one network.
    """
    if isinstance(checkpoints, Tensor | Mapping) or len(checkpoints) < 3:
        count = 1 if isinstance(checkpoints, Tensor | Mapping) else len(checkpoints)
        raise BadInput(f"checkpoints holds {count} of them; give a list of at least three, in the order of training")
    trees = [as_tree(tree, f"checkpoints[{i}]") for i, tree in enumerate(checkpoints)]
    for i, tree in enumerate(trees[1:], 1):
        check_same_layout(trees[0], tree, ("checkpoints[0]", f"checkpoints[{i}]"))
    return trees


def grid_axes(
    coordinates: Vector, given: tuple[Sequence[float] | None, Sequence[float] | None], points: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the axes of the grid: the user's, or ones that cover the coordinates."""
    found = [
        axis(float(column.min()), float(column.max()), points) if own is None else check_positions(own, name)
        for column, own, name in zip(coordinates.T, given, ("x", "y"), strict=True)
    ]
    return cast(tuple[tuple[float, ...], tuple[float, ...]], tuple(found))
