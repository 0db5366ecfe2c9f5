"""Finished points of a landscape in a file, so that an interrupted measurement goes on where it was."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile, OutOfSpace
from gengap.core.estimate import finite
from gengap.core.files import is_disk_full, write_text
from gengap.measures.landscape.positions import Position

FORMAT = "gengap.points/1"
SAME = 1e-4  # relative difference of a loss at the same weights that another machine or number of threads may make


@dataclass(frozen=True, slots=True)
class Reading:
    """What one loss is at one position.

    Attributes:
        loss: mean over samples, nats; may be not finite.
        accuracy: percent, or None where none was counted.
    """

    loss: float
    accuracy: float | None


Row = tuple[Reading, ...]  # of every loss


class PointFile:
    """An append-only file of JSON lines: a head that says what is measured, then a line for each finished point.

    A last line that was torn by a kill is dropped. Points are found by their coordinates, so that a grid can also be
    widened or refined.

    Args:
        path: the file; begun where it is missing or empty.
        settings: what the points depend on beside their coordinates, JSON values by name.
        base: readings at a fixed position, made now: losses that cannot be named are told apart by them.

    Attributes:
        path: the file.
        known: readings of the finished points by position.

    Raises:
        BadInput: the file holds points of another measurement, or cannot be written.
        DamagedFile: it is no such file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], base: Row) -> None:
        self.path = path
        self.known: dict[Position, Row] = {}
        if path.exists() and path.stat().st_size:
            self._read(settings, base)
        else:
            head = {"format": FORMAT, "settings": dict(settings), "base": as_json(base)}
            write_text(path, json.dumps(head, allow_nan=False) + "\n")
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise BadInput(
                f"cannot write {self.path}: {error.strerror}; name a file in a folder that you may write to"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, at: Position, row: Row) -> None:
        """Keep a finished point.

        Args:
            at: its position.
            row: the readings there.

        Raises:
            OutOfSpace: the disk is full; the points before are kept.
            OSError: the file cannot be written for another reason.
        """
        assert self._file is not None
        line = json.dumps({"at": list(at), "scores": as_json(row)}, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise OutOfSpace(
                f"the disk is full: {self.path} keeps {len(self.known):,} points; free some space, then run the same again"
            ) from error
        self.known[at] = row

    def _read(self, settings: Mapping[str, Any], base: Row) -> None:
        content = self.path.read_bytes()
        whole = content.rpartition(b"\n")[0] + b"\n"
        lines = whole.decode("utf-8", errors="replace").splitlines()
        check_head(self.path, parsed(lines[0] if lines else ""), settings, base)
        for number, line in enumerate(lines[1:], 2):
            entry = parsed(line)
            if not {"at", "scores"} <= entry.keys():
                raise DamagedFile(f"{self.path} is damaged in line {number}; remove it to begin anew")
            self.known[tuple(entry["at"])] = from_json(entry["scores"])
        if len(content) > len(whole):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))


def parsed(line: str) -> dict[str, Any]:
    """Read a line; what is no JSON object is empty."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def check_head(path: Path, head: Mapping[str, Any], settings: Mapping[str, Any], base: Row) -> None:
    """Refuse a file that holds something else.

    Args:
        path: for the message.
        head: its first line.
        settings: of the measurement that wants to go on.
        base: its readings at the fixed position.

    Raises:
        DamagedFile: it is no file of points.
        BadInput: it belongs to another measurement.
    """
    if head.get("format") != FORMAT:
        raise DamagedFile(f"{path} is not a file of points ({FORMAT}); name another file for resume")
    found = head["settings"]
    wanted = json.loads(json.dumps(dict(settings)))
    if other := [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]:
        raise BadInput(
            f"{path} holds points of another measurement: its {', '.join(other)} differ; name another file for resume, or "
            f"remove this one"
        )
    for was, now in zip(from_json(head["base"]), base, strict=True):
        if not same(was.loss, now.loss):
            raise BadInput(
                f"{path} holds points of another loss or other data: where it began the loss was {was.loss:.6g} and is "
                f"{now.loss:.6g} now; name another file for resume, or remove this one"
            )


def same(was: float, now: float) -> bool:
    """Tell whether two readings of a loss differ by rounding at most."""
    if not (math.isfinite(was) and math.isfinite(now)):
        return math.isfinite(was) == math.isfinite(now)
    return math.isclose(was, now, rel_tol=SAME, abs_tol=1e-12)


def as_json(row: Row) -> list[list[float | None]]:
    """Write readings; a loss that is not finite is null."""
    return [[finite(reading.loss), reading.accuracy] for reading in row]


def from_json(scores: Iterable[Sequence[float | None]]) -> Row:
    """Read readings back; all that is not finite is nan."""
    return tuple(Reading(math.nan if loss is None else loss, accuracy) for loss, accuracy in scores)


def digest(trees: Iterable[Mapping[str, Tensor]]) -> str:
    """Hash every name, shape, dtype and bit of some trees."""
    found = hashlib.blake2b(digest_size=16)
    for tree in trees:
        for name, p in tree.items():
            found.update(f"{name}{tuple(p.shape)}{p.dtype}".encode())
            found.update(p.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
