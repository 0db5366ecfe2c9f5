"""From runs to cells: the best learning rate of each batch size, and what it reached over the seeds."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.records import Record
from gengap.fitting.table import RunRecord
from gengap.theory.least_squares import Floats


class CellKey(NamedTuple):
    """What the runs of a cell have in common; learning rates and seeds are theirs."""

    batch_size: int
    momentum: float
    train_size: int | None
    optimizer: str
    budget: str


@dataclass(frozen=True, slots=True)
class Winner(Record):
    """The learning rate that did best on a grid.

    Attributes:
        best_lr: it; None where no run has a value.
        lr_low: the next lower one that was tried, diverged runs included; None at the lower edge.
        lr_high: the next higher one; None at the upper edge.
        at_edge: whether a neighbour is missing: the best may then lie outside the grid.
    """

    best_lr: float | None
    lr_low: float | None = None
    lr_high: float | None = None
    at_edge: bool = True


@dataclass(frozen=True, slots=True)
class Cell(Record):
    """One batch size under one momentum, training-set size, optimizer and budget, at its best learning rate.

    Attributes:
        batch_size: B.
        momentum: m.
        train_size: N.
        optimizer: by its name.
        budget: as a recipe prints it.
        best_lr: best by the selection's measure, mean over seeds.
        lr_low: neighbour below, or None.
        lr_high: neighbour above, or None.
        at_edge: whether one of them is missing.
        loss_lr: the learning rate with the lowest final training loss, in the same form.
        target_lr: the one that reached the target with the fewest samples, in the same form.
        test_accuracy: at best_lr, over seeds, percent.
        test_loss: likewise, nats per sample.
        train_loss: likewise.
        best_train_loss: the training loss at loss_lr.
        steps_to_target: at target_lr; None where no learning rate reached the target with every seed.
        samples_to_target: likewise.
        runs: all runs, of every learning rate.
        diverged: how many of them diverged.
        failed: how many failed.
    """

    batch_size: int
    momentum: float
    train_size: int | None
    optimizer: str
    budget: str
    best_lr: float | None
    lr_low: float | None
    lr_high: float | None
    at_edge: bool
    loss_lr: Winner
    target_lr: Winner
    test_accuracy: Estimate | None
    test_loss: Estimate | None
    train_loss: Estimate | None
    best_train_loss: Estimate | None
    steps_to_target: Estimate | None
    samples_to_target: Estimate | None
    runs: int
    diverged: int
    failed: int

    @property
    def selected(self) -> Winner:
        """The best learning rate by the selection's measure with its neighbours, as `loss_lr` is by the training loss."""
        return Winner(self.best_lr, self.lr_low, self.lr_high, self.at_edge)


def key_of(one: RunRecord | Cell) -> CellKey:
    """Name the cell of a run, or a cell."""
    return CellKey(one.batch_size, one.momentum, one.train_size, one.optimizer, one.budget)


def parted(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Part runs that would share a cell although fields of their recipes differ: the values go behind the optimizer's name.

    Args:
        records: the runs.

    Returns:
        The runs, "sgd, weight_decay 0.0005" for some of them; they share cells where they may.
    """
    first: dict[CellKey, RunRecord] = {}
    differing: dict[str, None] = {}
    for record in records:
        shared = first.setdefault(key_of(record), record).shared
        differing |= {n: None for n, v in record.shared.items() if n != "problem" and n in shared and shared[n] != v}
    if not differing:
        return list(records)
    found = []
    for record in records:
        values = [f"{name} {record.shared.get(name)}" for name in differing]
        shared = {name: value for name, value in record.shared.items() if name not in differing}
        found.append(replace(record, optimizer=", ".join([record.optimizer, *values]), shared=shared))
    return found


def cells_of(records: Sequence[RunRecord], measure: str) -> list[Cell]:
    """Gather runs into cells.

    Args:
        records: the runs.
        measure: by which the best learning rate is selected: an accuracy (highest mean) or a loss (lowest mean).

    Returns:
        One cell for each batch size, momentum, training-set size, optimizer and budget, in this order of sorting.

    Raises:
        BadInput: runs of one cell differ in something that is neither learning rate nor seed.
    """
    groups: dict[CellKey, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[key_of(record)].append(record)
    length = {key: (found[0].budget_kind, found[0].budget_size or 0) for key, found in groups.items()}
    order = sorted(groups, key=lambda key: (key.optimizer, length[key], key.train_size or 0, key.momentum, key[0]))
    return [cell_of(key, groups[key], measure) for key in order]


def cell_of(key: CellKey, records: Sequence[RunRecord], measure: str) -> Cell:
    """Make one cell; see `cells_of`."""
    check_alike(key, records)
    selected, by_loss = winner(records, measure), winner(records, "train_loss")
    fastest = winner(records, "samples_to_target", every=True)
    best, lowest = at_rate(records, selected.best_lr), at_rate(records, by_loss.best_lr)
    quickest = at_rate(records, fastest.best_lr)
    return Cell(
        **key._asdict(),
        best_lr=selected.best_lr,
        lr_low=selected.lr_low,
        lr_high=selected.lr_high,
        at_edge=selected.at_edge,
        loss_lr=by_loss,
        target_lr=fastest,
        test_accuracy=over_seeds(best, "test_accuracy"),
        test_loss=over_seeds(best, "test_loss"),
        train_loss=over_seeds(best, "train_loss"),
        best_train_loss=over_seeds(lowest, "train_loss"),
        steps_to_target=over_seeds(quickest, "steps_to_target"),
        samples_to_target=over_seeds(quickest, "samples_to_target"),
        runs=len(records),
        diverged=sum(record.outcome == "diverged" for record in records),
        failed=sum(record.outcome == "failed" for record in records),
    )


def winner(records: Sequence[RunRecord], measure: str, *, every: bool = False) -> Winner:
    """Find the best learning rate of a cell.

    Args:
        records: the cell's runs.
        measure: of the runs: highest is best for an accuracy, lowest for anything else.
        every: whether each run of a learning rate must have a value; otherwise half of them, so that a learning rate at
            which most runs diverge is not chosen for its survivor.

    Returns:
        The learning rate with its neighbours.
    """
    rates = sorted({record.lr for record in records})
    means = {}
    for rate in rates:
        runs = at_rate(records, rate)
        found = values(runs, measure)
        if found and len(found) >= (len(runs) if every else len(runs) / 2):
            means[rate] = math.fsum(found) / len(found)
    if not means:
        return Winner(None)
    best = (max if measure.endswith("accuracy") else min)(means, key=means.__getitem__)
    i = rates.index(best)
    low, high = rates[i - 1] if i else None, rates[i + 1] if i + 1 < len(rates) else None
    return Winner(best, low, high, low is None or high is None)


def at_rate(records: Sequence[RunRecord], rate: float | None) -> list[RunRecord]:
    """Give the runs of one learning rate."""
    return [record for record in records if record.lr == rate]


def values(records: Iterable[RunRecord], measure: str) -> list[float]:
    """List the values that are there."""
    return [value for record in records if (value := getattr(record, measure)) is not None]


def over_seeds(records: Sequence[RunRecord], measure: str) -> Estimate | None:
    """Take the mean over the runs that have a value; None where none has."""
    found = values(records, measure)
    return mean(found) if found else None


def rate_columns(found: Iterable[tuple[int, Winner]]) -> tuple[Floats, Floats, Floats, Floats]:
    """Give x, the best learning rate and its neighbours as columns, of those that have a best one; nan for no neighbour."""
    rows = [(x, one.best_lr, one.lr_low, one.lr_high) for x, one in found if one.best_lr is not None]
    x, best, low, high = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return x, best, low, high


def check_alike(key: CellKey, records: Sequence[RunRecord]) -> None:
    """Refuse to average over runs that differ in more than learning rate and seed.

    Args:
        key: of the cell.
        records: its runs.

    Raises:
        BadInput: they do.
    """
    first = records[0].shared
    for record in records[1:]:
        for name, value in record.shared.items():
            if name in first and value != first[name]:
                raise BadInput(
                    f"runs of batch {key.batch_size:,} differ in {name} ({first[name]!r} and {value!r}), which a fit cannot "
                    "average over; keep them in stores of their own"
                )
