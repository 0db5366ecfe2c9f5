"""Losses evaluated at many positions: checked, in bounded memory, and resumable."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gengap.core.errors import BadInput, Interrupted
from gengap.core.estimate import finite
from gengap.core.events import Listener, Progress, silent
from gengap.measures import memory as m
from gengap.measures.determinism import check_deterministic
from gengap.measures.landscape.first_layer import FirstLayer, stored_samples
from gengap.measures.landscape.point_file import PointFile, Reading, Row, digest
from gengap.measures.landscape.positions import Place, Position
from gengap.measures.pass_cost import pass_cost
from gengap.measures.protocols import (
    Chunked,
    LossFunction,
    Params,
    PlainFunction,
    Rebuffered,
    Reread,
    as_loss_function,
)
from gengap.measures.random_state import kept
from gengap.measures.second_order import consistent_kernels
from gengap.measures.session import DEFAULT_LIMIT
from gengap.measures.trees import dtype_name, size
from gengap.problem.samples import parse_bytes

Losses = PlainFunction | Sequence[PlainFunction]
Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Manner:
    """How to go about it, whatever is surveyed.

    Attributes:
        check: refuse a loss that is not deterministic.
        memory_limit: bytes, or a text such as "2 GiB".
        resume: a file that keeps finished points, or None.
        listen: is told after every point.
    """

    check: bool = True
    memory_limit: str | int = DEFAULT_LIMIT
    resume: str | os.PathLike[str] | None = None
    listen: Listener = silent


@dataclass(frozen=True, slots=True)
class SurveyConditions:
    """Under which conditions losses were evaluated at many points.

    Attributes:
        descriptions: for each loss function what it was measured on (data, samples, batch_norm).
        points: how many.
        resumed: how many of them came from a file.
        forward_samples: samples that all points take through the network, without what recomputed statistics need; None
            where a loss function does not say how many it has.
        dtype: of the weights.
        weights: how many numbers they are, P.
        seconds: wall clock of this call.
        memory_limit: bytes the measure was allowed.
        peak_memory: bytes it was seen to take above what the process held before; None where the system does not tell.
    """

    descriptions: tuple[dict[str, Any], ...]
    points: int
    resumed: int
    forward_samples: int | None
    dtype: str
    weights: int
    seconds: float
    memory_limit: int
    peak_memory: int | None

    def __str__(self) -> str:
        said = [f"{d.get('data', 'unknown')} (batch norm {d.get('batch_norm', 'unknown')})" for d in self.descriptions]
        return f"{self.points} points, data {', '.join(said)}, {self.dtype}, {self.seconds:.3g} s"


class Survey:
    """A survey in progress; made by `surveying`."""

    def __init__(
        self,
        place: Place,
        functions: list[LossFunction],
        move: Callable[[Position], list[LossFunction]],
        limit: int,
        began: float,
    ) -> None:
        self._place, self._functions, self._move, self._limit = place, functions, move, limit
        self._began = began
        self.peak = m.PeakMemory(next(iter(place.point.values())).device)
        self.points = self.resumed = 0
        self.file: PointFile | None = None
        self.shortcut: AbstractContextManager[Any] = nullcontext()

    def visit(self, positions: Sequence[Position], what: str, listen: Listener, axis: str = "position") -> list[Row]:
        """Evaluate every loss at every position that the file does not know.

        Args:
            positions: in the order to go through them.
            what: the task, for the listener.
            listen: is told after every point.
            axis: what the coordinates are called.

        Returns:
            The readings of all losses, in the order of the positions.

        Raises:
            Interrupted: Ctrl-C; the points in the file are kept.
            KeyboardInterrupt: Ctrl-C, where there is no file.
        """
        rows = []
        try:
            for done, at in enumerate(positions, 1):
                rows.append(self._row(at))
                where = ", ".join(f"{x:g}" for x in at)
                values = ", ".join(f"{reading.loss:.4g}" for reading in rows[-1])
                listen(Progress(what, done, len(positions), "points", f"{axis} {where}: loss {values}"))
        except KeyboardInterrupt as error:
            if self.file is None:
                raise
            kept_points = len(self.file.known)
            raise Interrupted(
                f"interrupted; {kept_points:,} points are kept in {self.file.path}, run the same again to go on"
            ) from error
        return rows

    def _row(self, at: Position) -> Row:
        self.points += 1
        if self.file is not None and at in self.file.known:
            self.resumed += 1
            return self.file.known[at]
        row = self.read(at)
        if self.file is not None:
            self.file.add(at, row)
        return row

    def read(self, at: Position) -> Row:
        """Evaluate every loss at a position."""
        self._place.move(at)
        functions = self._move(at)
        with self.shortcut:
            scores = [f.score(self._place.point) for f in functions]
        return tuple(Reading(float(s.loss), s.accuracy) for s in scores)

    def close(self) -> None:
        """Take the last reading of the memory."""
        if self.peak in m.PeakMemory.active:
            self.peak.__exit__(None, None, None)

    def conditions(self) -> SurveyConditions:
        """Close the account."""
        self.close()
        descriptions = tuple(f.describe() for f in self._functions)
        return SurveyConditions(
            descriptions=descriptions,
            points=self.points,
            resumed=self.resumed,
            forward_samples=forward_samples(descriptions, self.points),
            dtype=dtype_name(self._place.point),
            weights=size(self._place.point),
            seconds=time.perf_counter() - self._began,
            memory_limit=self._limit,
            peak_memory=self.peak.bytes,
        )


@contextmanager
def surveying(
    losses: Losses,
    params: Params | Tensor,
    place: Place,
    *,
    base: Position,
    points: int,
    settings: Mapping[str, Any],
    manner: Manner,
    buffers: Place | None = None,
) -> Iterator[Survey]:
    """Open a survey; the global random generators and the buffers of the losses are put back when it ends.

    Args:
        losses: one or several.
        params: weights as the user gave them: a function of one tensor is called with one.
        place: fills the weights.
        base: a position of weights that the user gave, where the losses are checked.
        points: how many are to come, to choose what pays.
        settings: what the points depend on beside losses, weights and coordinates.
        manner: check, memory limit, file and listener.
        buffers: fills the buffers, or None to leave the losses as they are.

    Yields:
        The survey.

    Raises:
        BadInput: there is no loss, one is not deterministic or takes no buffers, the limit is too small, or the file holds
            something else.
    """
    began = time.perf_counter()
    given = list(losses) if isinstance(losses, Sequence) else [losses]
    if not given:
        raise BadInput("losses is empty; give at least one loss")
    functions = [as_loss_function(f, params) for f in given]
    limit = parse_bytes(manner.memory_limit)
    with ExitStack() as stack:
        stack.enter_context(kept())
        stack.enter_context(consistent_kernels(twice=False))
        place.move(base)
        fit, free = fitted(functions, place, limit)
        move = stack.enter_context(moving_buffers(fit, buffers))
        survey = Survey(place, fit, move, limit, began)
        survey.peak.__enter__()
        stack.callback(survey.close)
        for f in move(base) if manner.check else ():
            check_deterministic(cast(LossFunction, Rehearsal(f)), place.point)
        if points > 2 * len(place.parts):  # as many multiplications as there are parts come first
            survey.shortcut = FirstLayer(place, stored_samples(fit, place.point), free)
        if manner.resume is not None:
            full = {**settings, "weights or directions": digest(place.parts), "losses": [f.describe() for f in fit]}
            full["buffers"] = None if buffers is None else digest(buffers.parts)
            survey.file = stack.enter_context(PointFile(Path(manner.resume), full, survey.read(base)))
        yield survey


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A part of a loss that shows whether it is deterministic: its first piece, or all where it has no pieces.

    Attributes:
        loss: any.
    """

    loss: LossFunction

    def value(self, params: Params) -> float:
        """Return the mean loss over the part, without a graph."""
        if not isinstance(self.loss, Chunked):
            return float(self.loss.score(params).loss)
        with torch.no_grad():
            return float(next(iter(self.loss.chunks(params)))(params))

    def changed_sample(self) -> int | None:
        """Return the index of a sample that differs between two readings, or None."""
        return self.loss.changed_sample() if isinstance(self.loss, Reread) else None


def fitted(functions: Sequence[LossFunction], place: Place, limit: int) -> tuple[list[LossFunction], int]:
    """Choose chunks that keep the forward passes below a limit.

    Args:
        functions: the losses. A plain function is taken as it is: its memory is its own.
        place: what is held meanwhile, at any position.
        limit: bytes.

    Returns:
        The losses, and the bytes that are left.

    Raises:
        BadInput: not even one sample fits, or batch norm forbids smaller chunks.
    """
    found, free = [], m.plan(limit, 0.0, place.bytes, 1)[1]
    for f in functions:
        if not isinstance(f, Chunked):
            found.append(f)
            continue
        chunk, left = m.plan(limit, pass_cost(f, place.point, "value").peak, place.bytes, f.chunk_size)
        found.append(f.with_chunk(chunk) if chunk < f.chunk_size else f)
        free = min(free, left)
    return found, free


@contextmanager
def moving_buffers(
    functions: Sequence[LossFunction], place: Place | None
) -> Iterator[Callable[[Position], list[LossFunction]]]:
    """Give a function that returns the losses with the buffers of a position; the losses get back what they had.

    Args:
        functions: the losses.
        place: fills the buffers, or None to leave the losses as they are.

    Yields:
        The function from position to losses.

    Raises:
        BadInput: a loss takes no buffers.
    """
    if place is None:
        yield lambda _: list(functions)
        return
    takers = [f for f in functions if isinstance(f, Rebuffered)]
    if len(takers) < len(functions):
        raise BadInput(
            "buffers were given, but a loss has no method with_buffers; leave them out or bind them in the loss"
        )
    before = [{k: v.detach().clone() for k, v in getattr(f, "buffers", {}).items()} for f in takers]

    def move(at: Position) -> list[LossFunction]:
        place.move(at)
        return [f.with_buffers(place.point) for f in takers]

    try:
        yield move
    finally:
        for f, own in zip(takers, before, strict=True):
            f.with_buffers(own)


def losses_of(rows: Sequence[Row]) -> tuple[Values, ...]:
    """List for each loss its values, None where not finite."""
    return tuple(tuple(finite(reading.loss) for reading in column) for column in zip(*rows, strict=True))


def accuracies_of(rows: Sequence[Row]) -> tuple[Values | None, ...]:
    """List for each loss its accuracies, or None where none was counted."""
    columns = [tuple(reading.accuracy for reading in column) for column in zip(*rows, strict=True)]
    return tuple(None if all(x is None for x in column) else column for column in columns)


def forward_samples(descriptions: Sequence[Mapping[str, Any]], points: int) -> int | None:
    """Count samples over all points and losses, or None where a loss does not say how many it has."""
    sizes = [d.get("samples") for d in descriptions]
    return None if None in sizes else points * sum(size for size in sizes if size is not None)


def check_positions(positions: Sequence[float], name: str) -> tuple[float, ...]:
    """Refuse an axis that cannot be walked along.

    Args:
        positions: along it.
        name: of the argument, for the message.

    Returns:
        The positions as floats.

    Raises:
        BadInput: there are none, or one is not finite.
    """
    found = tuple(float(x) for x in positions)
    if not found:
        raise BadInput(f"{name} is empty; give at least one position")
    if odd := [x for x in found if not math.isfinite(x)]:
        raise BadInput(f"{name} holds {odd[0]!r}; give finite positions")
    return found
