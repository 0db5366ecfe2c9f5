"""What a benchmark found: raw repetitions, their medians, and the machine they were made on."""

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from gengap.core.environment import environment
from gengap.core.estimate import mean, paired_difference

FORMAT = "gengap.benchmark/1"


class Entry(Protocol):
    """One line of a benchmark."""

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        ...


@dataclass(frozen=True, slots=True)
class Faster:
    """Ours against a peer; the ratio of a repetition is peer / ours, times as fast.

    Attributes:
        name: the case.
        what: ours and the peer in words.
        ours: seconds of each repetition.
        peer: seconds of the peer in the same repetitions.
        at_least: the ratio aimed at, or None.
        notes: anything a reader should know.
    """

    name: str
    what: tuple[str, str]
    ours: Sequence[float]
    peer: Sequence[float]
    at_least: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """The ratio of every repetition."""
        return [p / o for o, p in zip(self.ours, self.peer, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "name": self.name,
            "ours": {"what": self.what[0], "seconds": summary(self.ours)},
            "peer": {"what": self.what[1], "seconds": summary(self.peer)},
            "ratio": {"what": "peer / ours", "at_least": self.at_least, **summary(self.ratios)},
            **self.notes,
        }

    def __str__(self) -> str:
        goal = "" if self.at_least is None else f", aim >= {self.at_least:.2f}"
        return (
            f"{self.name:<40} ours {unit(statistics.median(self.ours))}  {self.what[1]} "
            f"{unit(statistics.median(self.peer))}  ratio {statistics.median(self.ratios):.2f} "
            f"({min(self.ratios):.2f} to {max(self.ratios):.2f}, n={len(self.ratios)}{goal})"
        )


@dataclass(frozen=True, slots=True)
class Wall:
    """How long something of ours takes, beside a peer where there is one.

    Attributes:
        name: the case.
        ours: seconds of each repetition.
        at_most: seconds aimed at.
        what: the peer in words, or "".
        peer: its seconds.
        notes: anything a reader should know.
    """

    name: str
    ours: Sequence[float]
    at_most: float
    what: str = ""
    peer: Sequence[float] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        peer = {"what": self.what, "seconds": summary(self.peer)} if self.peer else None
        ours = {"at_most": self.at_most, "seconds": summary(self.ours)}
        return {"name": self.name, "ours": ours, "peer": peer, **self.notes}

    def __str__(self) -> str:
        beside = f"  {self.what} {unit(statistics.median(self.peer))}" if self.peer else ""
        spread = f"{unit(min(self.ours))} to {unit(max(self.ours))}, n={len(self.ours)}, aim < {unit(self.at_most)}"
        return f"{self.name:<40} ours {unit(statistics.median(self.ours))}{beside} ({spread})"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a way of computing does to a result: the same seeds both ways.

    Attributes:
        name: the quantity and its unit.
        what: the two ways in words.
        first: observations one way, in the order of the seeds.
        second: the other way.
    """

    name: str
    what: tuple[str, str]
    first: Sequence[float]
    second: Sequence[float]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        sides = [
            {"what": what, **mean(raw).to_dict(), "raw": list(raw)}
            for what, raw in zip(self.what, (self.first, self.second), strict=True)
        ]
        return {"name": self.name, "sides": sides, "difference": paired_difference(self.first, self.second).to_dict()}

    def __str__(self) -> str:
        change = paired_difference(self.first, self.second)
        interval = f", 95 % {change.interval[0]:+.2f} to {change.interval[1]:+.2f}" if change.interval else ""
        return (
            f"{self.name}: {self.what[0]} {mean(self.first)}, {self.what[1]} {mean(self.second)}, "
            f"paired difference {change.value:+.3f}{interval}"
        )


class Record:
    """Everything about one run of one benchmark.

    Args:
        name: of the benchmark.
        about: what it measures; its first line is the headline.
        quick: whether it only showed that it runs.
    """

    def __init__(self, name: str, about: str, *, quick: bool) -> None:
        self.name, self.about, self.quick = name, about, quick
        self.date = datetime.now(UTC).isoformat(timespec="seconds")
        self.load = [round(x, 2) for x in os.getloadavg()]
        self.entries: list[Entry] = []

    @property
    def headline(self) -> str:
        """What is measured, in a line."""
        return self.about.partition("\n")[0]

    def write(self, folder: Path) -> Path:
        """Write the JSON file and return its path."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "about": " ".join(self.about.split()),
            "quick": self.quick,
            "date": self.date,
            "environment": environment(),
            "threads": 1,
            "load_average_at_start": self.load,
            "entries": [entry.to_dict() for entry in self.entries],
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path


def in_turns(
    contestants: Mapping[str, Callable[[], float]], repetitions: int, *, warm: bool = True
) -> dict[str, list[float]]:
    """Time several things one after the other, again and again, so that a busy machine is busy for all.

    Args:
        contestants: functions that return their seconds.
        repetitions: measured rounds; every other one goes in reverse order.
        warm: run each once unmeasured before.

    Returns:
        Seconds of every round, by name.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for work in contestants.values() if warm else ():
        work()
    for i in range(repetitions):
        names = list(contestants) if i % 2 == 0 else list(reversed(contestants))
        for name in names:
            found[name].append(contestants[name]())
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Give median, extremes, n and the raw values."""
    rounded = [float(f"{v:.5g}") for v in values]
    middle = float(f"{statistics.median(values):.5g}")
    return {"median": middle, "min": min(rounded), "max": max(rounded), "n": len(rounded), "raw": rounded}


def unit(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
