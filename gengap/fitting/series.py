"""Fits over what else was varied: the best batch size against lr, N and momentum; the best learning rate against the budget."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gengap.core.records import Record
from gengap.fitting.cells import Cell, Winner, rate_columns
from gengap.fitting.table import RunRecord
from gengap.theory.lr_scaling import RatePower, fit_rate_power
from gengap.theory.optimal_batch import Peak, Proportion, find_peak, fit_proportion

Axis = Literal["lr", "train_size", "momentum"]
LEAST_SIZES = 3  # batch sizes that can show a peak
LEAST_VALUES = 2  # of what is varied; two make a picture, three a fit
OTHERS: dict[Axis, tuple[str, ...]] = {
    "lr": ("optimizer", "momentum", "train_size", "budget"),
    "train_size": ("optimizer", "momentum", "lr", "budget"),
    "momentum": ("optimizer", "lr", "train_size", "budget"),
}
NAMES: dict[Axis, str] = {"lr": "the learning rate", "train_size": "the training-set size", "momentum": "1 / (1 - m)"}


@dataclass(frozen=True, slots=True)
class BestBatch(Record):
    """The best batch size at one value of what is varied.

    Attributes:
        value: of lr, N or m.
        x: what the fit is made against: lr, N or 1 / (1 - m).
        peak: the best batch size with its errors.
    """

    value: float
    x: float
    peak: Peak


@dataclass(frozen=True, slots=True)
class BestBatchSeries(Record):
    """The best batch size against lr, N or momentum, all else equal.

    Attributes:
        axis: "lr", "train_size" or "momentum".
        shared: what is equal; without the budget where each learning rate has its own, as 10,000 / lr updates.
        points: ascending in x.
        proportion: of tops of parabolas, where all peaks have one.
        on_grid: of the best batch sizes of the grid, as in the paper.
        runs: number of runs.
    """

    axis: Axis
    shared: dict[str, Any]
    points: tuple[BestBatch, ...]
    proportion: Proportion
    on_grid: Proportion
    runs: int


@dataclass(frozen=True, slots=True)
class BudgetFit(Record):
    """The best learning rate against the budget, for training loss and for the metric apart.

    Attributes:
        kind: "epochs" or "steps".
        shared: what is equal.
        train_loss: of the learning rate with the lowest final training loss.
        metric: of the one that is best by the metric's selection.
        points: budget, and the cells' best learning rates.
    """

    kind: str
    shared: dict[str, Any]
    train_loss: RatePower
    metric: RatePower
    points: tuple[dict[str, Any], ...]


def best_batches(records: Sequence[RunRecord], metric: str) -> list[BestBatchSeries]:
    """Find every series over learning rates, training-set sizes or momenta with at least three batch sizes at each value.

    Args:
        records: the runs.
        metric: "test_accuracy" or "test_loss".

    Returns:
        The series, those with the most values first within each axis.
    """
    ended = [record for record in records if getattr(record, metric) is not None or record.outcome == "diverged"]
    found = []
    for axis in OTHERS:
        series = [series_of(axis, shared, runs, metric) for shared, runs in split(axis, ended)]
        long = [each for each in series if len(each.points) >= LEAST_VALUES]
        found += sorted(long, key=lambda each: (-len(each.points), -each.runs))
    return found


def split(axis: Axis, records: Sequence[RunRecord]) -> list[tuple[dict[str, Any], list[RunRecord]]]:
    """Sort runs by all that is neither batch size, seed nor the axis."""
    others = OTHERS[axis]
    if axis == "lr" and one_budget_each(records):
        others = others[:-1]
    groups: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        if axis != "train_size" or record.train_size is not None:
            groups[tuple(getattr(record, name) for name in others)].append(record)
    return [(dict(zip(others, key, strict=True)), runs) for key, runs in groups.items()]


def one_budget_each(records: Sequence[RunRecord]) -> bool:
    """Tell whether budgets follow from learning rates, as in Smith & Le's 10,000 / lr updates."""
    budgets: dict[float, set[str]] = defaultdict(set)
    for record in records:
        budgets[record.lr].add(record.budget)
    return all(len(each) == 1 for each in budgets.values())


def series_of(axis: Axis, shared: dict[str, Any], records: Sequence[RunRecord], metric: str) -> BestBatchSeries:
    """Find the peak at each value of the axis, and fit them."""
    groups: dict[float, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[getattr(record, axis)].append(record)
    points = []
    for value in sorted(groups):
        runs = groups[value]
        kept, lost = survivors(runs, metric)
        if len({run.batch_size for run in kept}) >= LEAST_SIZES:
            x = 1 / (1 - value) if axis == "momentum" else value
            points.append(BestBatch(value, x, peak_of(kept, lost, metric)))
    at, peaks = [point.x for point in points], [point.peak for point in points]
    return BestBatchSeries(
        axis=axis,
        shared=shared,
        points=tuple(points),
        proportion=fit_proportion(at, peaks, of=NAMES[axis]),
        on_grid=fit_proportion(at, peaks, of=NAMES[axis], smooth=False),
        runs=len(records),
    )


def survivors(runs: Sequence[RunRecord], metric: str) -> tuple[list[RunRecord], list[int]]:
    """Give the runs with a value of the batch sizes at which at least half have one, and the other batch sizes."""
    groups: dict[int, list[RunRecord]] = defaultdict(list)
    for run in runs:
        groups[run.batch_size].append(run)
    there = {size: [run for run in own if getattr(run, metric) is not None] for size, own in groups.items()}
    lost = [size for size, own in groups.items() if 2 * len(there[size]) < len(own)]
    return [run for size, own in there.items() if size not in lost for run in own], lost


def peak_of(runs: Sequence[RunRecord], lost: Sequence[int], metric: str) -> Peak:
    """Find the best batch size of runs that differ in nothing else but the seed."""
    return find_peak(
        [run.batch_size for run in runs],
        [getattr(run, metric) for run in runs],
        seeds=[run.seed for run in runs],
        higher_is_better=metric.endswith("accuracy"),
        lost=lost,
    )


def budget_fits(records: Sequence[RunRecord], cells: Sequence[Cell]) -> list[BudgetFit]:
    """Fit the best learning rates of each batch size against its budgets, where there are several.

    Args:
        records: the runs, which know how large a budget is.
        cells: with their best learning rates.

    Returns:
        One pair of fits for each batch size, momentum, training-set size, optimizer and kind of budget.
    """
    budgets = {record.budget: (record.budget_kind, record.budget_size) for record in records}
    groups: dict[tuple[Any, ...], list[tuple[int, Cell]]] = defaultdict(list)
    for cell in cells:
        kind, size = budgets.get(cell.budget, ("", None))
        if size is not None and kind in {"epochs", "steps"}:
            key = (kind, cell.batch_size, cell.momentum, cell.train_size, cell.optimizer)
            groups[key].append((size, cell))
    names = ("batch_size", "momentum", "train_size", "optimizer")
    return [
        budget_fit(key[0], dict(zip(names, key[1:], strict=True)), sorted(points, key=lambda point: point[0]))
        for key, points in groups.items()
        if len(points) >= LEAST_VALUES
    ]


def budget_fit(kind: str, shared: dict[str, Any], points: Sequence[tuple[int, Cell]]) -> BudgetFit:
    """Fit both best learning rates against one kind of budget."""
    by_loss = power(kind, [(size, cell.loss_lr) for size, cell in points])
    by_metric = power(kind, [(size, cell.selected) for size, cell in points])
    rows = tuple({"budget": n, "metric_lr": c.best_lr, "train_loss_lr": c.loss_lr.best_lr} for n, c in points)
    return BudgetFit(kind, shared, by_loss, by_metric, rows)


def power(kind: str, found: Sequence[tuple[int, Winner]]) -> RatePower:
    """Fit one of the best learning rates."""
    x, best, low, high = rate_columns(found)
    return fit_rate_power(x, best, low=low, high=high, of=f"the number of {kind}")
