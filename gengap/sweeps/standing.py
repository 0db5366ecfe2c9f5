"""How a sweep stands while it goes on: runs done, the best so far, the time left."""

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from gengap.core.events import Event, Listener, Message, Progress
from gengap.store.rows import RunRow

MINUTE, HOUR = 60, 3600
LOOK_SECONDS = 0.5  # between two looks for the best, which go through all cells


class Standing:
    """Counts the runs of a sweep and tells a listener of them.

    Args:
        measure: of a run's last evaluation, what decides which is best.
        listen: told of the progress; of equal messages of different runs it hears one.
    """

    def __init__(self, measure: str, listen: Listener) -> None:
        self.measure, self.listen = measure, listen
        self.done = self.total = 0
        self._values: dict[str, list[float]] = defaultdict(list)
        self._heard: set[str] = set()
        self._best, self._part, self._base, self._made = "", 0.0, 0, 0
        self._began, self._looked, self._stale = time.monotonic(), 0.0, False

    def begin(self, total: int, done: int) -> None:
        """Begin a round of runs, some of which are there already."""
        self.total, self.done, self._made, self._began = total, done, 0, time.monotonic()
        self.tell()

    def take(self, fields: Mapping[str, Any], row: RunRow, *, made: bool = True) -> None:
        """Count a run, and look whether its cell and learning rate are now the best."""
        value = row.history[-1].get(self.measure) if row.history and row.outcome == "finished" else None
        if value is not None:
            self._values[described(fields, row.recipe["lr"])].append(value)
            self._stale = True
        if made:
            self.done, self._made, self._part = self.done + 1, self._made + 1, 0.0
            self.tell()

    def hand_out(self) -> None:
        """Note that runs are handed to an engine, which counts them from 0."""
        self._base, self._part = self.done, 0.0

    def hear(self, event: Event) -> None:
        """Take what an engine says: parts of runs move the count, messages are passed on once."""
        if isinstance(event, Message):
            if event.text not in self._heard:
                self._heard.add(event.text)
                self.listen(event)
            return
        if event.unit == "runs":
            self._part = max(0.0, self._base + event.done - self.done)
        elif event.total:
            self._part = min(1.0, event.done / event.total)
        self.tell()

    def tell(self) -> None:
        """Say how far the sweep is."""
        done, now = min(self.done + self._part, self.total), time.monotonic()
        if self._stale and (now - self._looked > LOOK_SECONDS or done >= self.total):
            self._best, self._looked, self._stale = self._leader(), now, False
        note = "; ".join(part for part in (self._best, self._left(done)) if part)
        self.listen(Progress("sweep", done, self.total, "runs", note))

    def _leader(self) -> str:
        best = max if self.measure.endswith("accuracy") else min
        means = {name: math.fsum(values) / len(values) for name, values in self._values.items()}
        name = best(means, key=means.__getitem__)
        unit = " %" if self.measure.endswith("accuracy") else ""
        return f"best so far {name}: {self.measure.replace('_', ' ')} {means[name]:.4g}{unit}"

    def _left(self, done: float) -> str:
        made = self._made + self._part
        if not self._made or done >= self.total:
            return ""
        return f"{duration((time.monotonic() - self._began) / made * (self.total - done))} left"


def described(fields: Mapping[str, Any], lr: float) -> str:
    """Name a cell at one learning rate in words."""
    words = {"batch_size": "batch", "train_size": "training set"}
    parts = [
        f"{words.get(name, name)} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in fields.items()
    ]
    return ", ".join([*parts, f"lr {lr:.4g}"])


def duration(seconds: float) -> str:
    """Write a time roughly."""
    if seconds < 2 * MINUTE:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
