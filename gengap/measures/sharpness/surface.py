"""The loss as a landscape over float64 vectors: its height and slope, in all weights or in coordinates of one's own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, Progress
from gengap.measures.memory import tree_bytes
from gengap.measures.protocols import LossFunction
from gengap.measures.trees import Vector, empty_like, fill, flatten, size

SMALLEST_SCALE = 1e-100  # a gradient below it leaves no digits when the loss is divided by it


@dataclass(frozen=True, slots=True)
class Height:
    """Loss and gradient at one point.

    Attributes:
        value: nats per sample; may be infinite or nan.
        gradient: shape (P,).
        usable: value and gradient are all finite.
    """

    value: float
    gradient: Vector
    usable: bool

    @property
    def scale(self) -> float | None:
        """The largest gradient entry, or None where the loss cannot be divided by it."""
        largest = float(np.max(np.abs(self.gradient))) if self.usable else 0.0
        return largest if largest >= SMALLEST_SCALE else None


class Landscape(Protocol):
    """What a search walks on."""

    def at(self, x: Vector, note: str = "") -> Height:
        """Evaluate loss and gradient at a point, and say `note` to the listener."""
        ...


class Surface:
    """The loss over float64 vectors, with a count of what was spent.

    Args:
        loss: is evaluated.
        params: decide names, shapes, dtypes and device of what it is evaluated on.
        listen: is told after every evaluation.
        what: the task, for the listener.

    Attributes:
        evaluations: loss-and-gradient evaluations so far.
        nonfinite: how many of them gave a loss or gradient that is not finite.
    """

    def __init__(
        self, loss: LossFunction, params: Mapping[str, Tensor], listen: Listener, what: str = "sharpness"
    ) -> None:
        self._loss, self._listen, self._what = loss, listen, what
        self._point = empty_like(params)
        self.evaluations = self.nonfinite = 0
        self._highest = -np.inf

    def at(self, x: Vector, note: str = "") -> Height:
        """Evaluate at x, shape (P,), rounded to the dtype of the weights."""
        fill(self._point, x)
        value, tree = self._loss.value_and_grad(self._point)
        gradient = flatten({name: tree[name] for name in self._point})
        # A sum is not finite when an entry is not; the other way round only by overflow, looked at more closely.
        usable = bool(np.isfinite(value) and (np.isfinite(gradient.sum()) or np.isfinite(gradient).all()))
        self.evaluations += 1
        self.nonfinite += not usable
        self._highest = max(self._highest, value) if np.isfinite(value) else self._highest
        told = f"{note}, highest loss {self._highest:.6g}" if note else f"loss {value:.6g}"
        self._listen(Progress(self._what, self.evaluations, None, "evaluations", told))
        return Height(value, gradient, usable)


class Chart(Protocol):
    """Coordinates z, and the weights they stand for."""

    def weights(self, z: Vector) -> Vector:
        """Return the weights, shape (P,), at z."""
        ...

    def gradient(self, slope: Vector) -> Vector:
        """Turn a gradient by weights, shape (P,), into the gradient by z."""
        ...


@dataclass(frozen=True, slots=True)
class Entries:
    """Some of the weights, the others held.

    Attributes:
        centre: all weights, shape (P,).
        index: positions of those that move, shape (p,).
    """

    centre: Vector
    index: npt.NDArray[np.intp]

    def weights(self, z: Vector) -> Vector:
        """Return the weights at z, shape (p,)."""
        x = self.centre.copy()
        x[self.index] = z
        return x

    def gradient(self, slope: Vector) -> Vector:
        """Return the entries of the gradient that belong to z."""
        return slope[self.index]


@dataclass(frozen=True, slots=True)
class Scaled:
    """Displacements from a point, each weight's in a unit of its own.

    Attributes:
        centre: the point, shape (P,).
        unit: shape (P,), >= 0; a weight whose unit is 0 cannot move.
    """

    centre: Vector
    unit: Vector

    def weights(self, z: Vector) -> Vector:
        """Return the weights displaced by z units, shape (P,)."""
        return self.centre + self.unit * z

    def gradient(self, slope: Vector) -> Vector:
        """Return the gradient by z."""
        return self.unit * slope


@dataclass(frozen=True, slots=True)
class View:
    """A surface in the coordinates of a chart.

    Attributes:
        surface: is evaluated.
        chart: the coordinates.
    """

    surface: Surface
    chart: Chart

    def at(self, x: Vector, note: str = "") -> Height:
        """Evaluate at the coordinates x."""
        return self.seen(self.surface.at(self.chart.weights(x), note))

    def seen(self, height: Height) -> Height:
        """Turn a height of the surface into one by the coordinates."""
        with np.errstate(invalid="ignore", over="ignore"):  # of a height that is not usable
            return replace(height, gradient=self.chart.gradient(height.gradient))


def doubles(tree: Mapping[str, Tensor], count: int) -> int:
    """Return how many vectors in the dtype of the weights take the room of `count` float64 vectors."""
    return math.ceil(count * 8 * size(tree) / max(1, tree_bytes(tree)))


def check_base(base: float) -> None:
    """Refuse a point whose loss a climb cannot be relative to.

    Args:
        base: the loss there, nats per sample.

    Raises:
        BadInput: it is not finite, or 1 + base is not positive.
    """
    check_finite(base)
    if base <= -1:
        raise BadInput(f"the loss is {base!r} at params; sharpness is relative to 1 + loss, which must be positive")


def check_finite(base: float) -> None:
    """Refuse a point whose loss cannot be compared with.

    Args:
        base: the loss there, nats per sample.

    Raises:
        BadInput: it is not finite.
    """
    if not math.isfinite(base):
        raise BadInput(f"the loss is {base!r} at params; sharpness needs a point where it is finite")
