"""A sweep as its figures and tables read it: cells side by side in lines, runs by what they were trained with."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gengap.core.estimate import mean
from gengap.report import numbers

Document = Mapping[str, Any]
Cell = Mapping[str, Any]
Run = Mapping[str, Any]
KINDS = ("epochs", "steps", "converged")  # of budgets, in the order they are shown


class Way(NamedTuple):
    """Everything that a run was trained with besides batch size, learning rate and seed."""

    budget: str
    train_size: int | None
    optimizer: str
    momentum: float


@dataclass(frozen=True, slots=True)
class Line:
    """Cells of one way of training, batch sizes ascending.

    Attributes:
        way: the way.
        cells: as in the document.
    """

    way: Way
    cells: tuple[Cell, ...]

    @property
    def kind(self) -> str:
        """What the budget counts: "epochs", "steps" or "converged"."""
        return kind_of(self.way.budget)

    @property
    def trained(self) -> tuple[Cell, ...]:
        """The cells that have a best learning rate: not every run of them diverged or failed."""
        return tuple(cell for cell in self.cells if cell.get("best_lr") is not None)


@dataclass(frozen=True, slots=True)
class Sweep:
    """The document with its cells and runs in order.

    Attributes:
        document: as it is.
        lines: one for each way of training; those with most batch sizes first.
        runs: of each way and batch size.
    """

    document: Document
    lines: tuple[Line, ...]
    runs: Mapping[tuple[Way, int], Sequence[Run]]

    @property
    def metric(self) -> str:
        """What is looked at: "test_accuracy" or "test_loss"."""
        return str(self.document["metric"])

    @property
    def rises(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric.endswith("accuracy")

    @property
    def fits(self) -> Mapping[str, Any]:
        """What was fitted."""
        found: Mapping[str, Any] = self.document.get("fits") or {}
        return found

    def better(self, first: float, second: float) -> bool:
        """Tell whether one value of the metric is better than another."""
        return first > second if self.rises else first < second


def read(document: Document) -> Sweep:
    """Put a sweep's document into the order of its figures.

    Args:
        document: in the form `gengap.sweep/1`.

    Returns:
        The sweep; its lines are sorted by the number of their batch sizes, then by budget, training set and momentum.
    """
    cells: dict[Way, list[Cell]] = defaultdict(list)
    for cell in document["cells"]:
        cells[way_of(cell)].append(cell)
    runs: dict[tuple[Way, int], list[Run]] = defaultdict(list)
    for run in document["runs"]:
        runs[way_of(run), run["batch_size"]].append(run)
    lines = [Line(way, tuple(sorted(own, key=lambda cell: cell["batch_size"]))) for way, own in cells.items()]
    return Sweep(document, tuple(sorted(lines, key=rank)), runs)


def way_of(entry: Mapping[str, Any]) -> Way:
    """Say how a run or the runs of a cell were trained."""
    momentum = float(entry.get("momentum") or 0.0)
    return Way(entry.get("budget") or "", entry.get("train_size"), entry.get("optimizer") or "sgd", momentum)


def rank(line: Line) -> tuple[Any, ...]:
    """Sort lines."""
    way = line.way
    kind = KINDS.index(line.kind)
    sizes = (-size_of(way.budget), -(way.train_size or 0))
    return -len(line.trained), kind, *sizes, way.optimizer, way.momentum


def kind_of(budget: str) -> str:
    """Say what a budget counts."""
    return next((kind for kind in ("converged", "steps") if kind in budget), "epochs")


def size_of(budget: str) -> float:
    """Read the number of a budget, "30 epochs"; 0 where there is none."""
    found = re.search(r"\d[\d,]*", budget)
    return float(found[0].replace(",", "")) if found else 0.0


def shown_together(sweep: Sweep) -> list[tuple[Line, ...]]:
    """Choose the lines of each kind of budget that stand in one picture.

    Args:
        sweep: the sweep.

    Returns:
        For each kind, the lines of the budget and training-set size whose batch sizes are most, momentum ascending.
    """
    groups = []
    for kind in KINDS:
        own = [line for line in sweep.lines if line.kind == kind and line.trained]
        if own:
            first = own[0].way[:2]
            same = [line for line in own if line.way[:2] == first]
            groups.append(tuple(sorted(same, key=lambda line: (line.way.optimizer, line.way.momentum))))
    return groups


def foremost(sweep: Sweep) -> tuple[Line, ...]:
    """Give the lines of the first pictures; none where nothing was trained."""
    return next(iter(shown_together(sweep)), ())


def named(ways: Sequence[Way]) -> dict[Way, str]:
    """Name ways of training by what tells them apart.

    Args:
        ways: those that stand side by side.

    Returns:
        A name for each: "SGD", "momentum 0.9", "N = 1,000"; where all is equal, how the only one trains.
    """
    every = [parts(way) for way in ways]
    differing = [i for i in range(3) if len({row[i] for row in every}) > 1] or [2]
    return {way: ", ".join(row[i] for i in differing) for way, row in zip(ways, every, strict=True)}


def parts(way: Way) -> tuple[str, str, str]:
    """Say budget, training-set size and rule of a way of training."""
    size = f"N = {numbers.whole(way.train_size)}" if way.train_size else ""
    return way.budget, size, rule(way)


def rule(way: Way) -> str:
    """Name the optimizer with its momentum."""
    name, comma, rest = way.optimizer.partition(",")
    if name == "sgd":
        return (f"momentum {numbers.tick(way.momentum)}" if way.momentum else "SGD") + comma + rest
    return f"{way.optimizer}, m = {numbers.tick(way.momentum)}" if way.momentum else way.optimizer


def at(sweep: Sweep, way: Way, batch_size: int, lr: float | None) -> list[Run]:
    """List the runs with one batch size and learning rate."""
    return [run for run in sweep.runs.get((way, batch_size), ()) if lr is not None and math.isclose(run["lr"], lr)]


def rates(sweep: Sweep, way: Way, batch_size: int) -> list[float]:
    """List the learning rates that one batch size was tried with, ascending."""
    return sorted({run["lr"] for run in sweep.runs.get((way, batch_size), ())})


def averaged(runs: Iterable[Run], name: str) -> Mapping[str, Any] | None:
    """Estimate the mean of a measure over finished runs; None where there is none."""
    known = [run[name] for run in runs if run["outcome"] == "finished" and run.get(name) is not None]
    return mean(known).to_dict() if known else None


def value(estimate: Mapping[str, Any] | None) -> float | None:
    """Give the value of an estimate that may be missing."""
    return None if estimate is None else estimate.get("value")


def interval(estimate: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Give a finite interval of an estimate, or None."""
    if estimate is None or estimate.get("value") is None:
        return None
    found = estimate.get("interval")
    if not found or None in found:
        return None
    return float(found[0]), float(found[1])
