"""Fits over batch sizes: critical batch, regimes and learning-rate rule of runs that share everything else."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gengap.core.records import Record
from gengap.fitting.cells import Cell, CellKey, Winner, at_rate, key_of, rate_columns
from gengap.fitting.table import RunRecord
from gengap.theory.critical_batch import CriticalBatch, fit_critical_batch
from gengap.theory.lr_scaling import RateRegimes, fit_rate_regimes
from gengap.theory.regimes import Separation, Transition, find_separation, find_transition


class GroupKey(NamedTuple):
    """What runs over batch sizes share."""

    momentum: float
    train_size: int | None
    optimizer: str
    budget: str

    def __str__(self) -> str:
        size = "" if self.train_size is None else f", {self.train_size:,} samples"
        budget = f", {self.budget}" if self.budget else ""
        return f"{self.optimizer} with momentum {self.momentum:g}{size}{budget}"


@dataclass(frozen=True, slots=True)
class GroupFit(Record):
    """What the batch sizes of one momentum, training-set size, optimizer and budget say.

    Attributes:
        momentum: m.
        train_size: N.
        optimizer: by its name.
        budget: as a recipe prints it.
        batch_sizes: of its cells.
        runs: number of runs.
        critical: samples to target against batch size; None without a target.
        transition: where the metric begins to fall, each batch size at its best learning rate.
        rates: how the best learning rate goes with the batch size, by the metric.
        loss_rates: the same of the learning rate with the lowest final training loss.
    """

    momentum: float
    train_size: int | None
    optimizer: str
    budget: str
    batch_sizes: tuple[int, ...]
    runs: int
    critical: CriticalBatch | None
    transition: Transition
    rates: RateRegimes
    loss_rates: RateRegimes

    @property
    def key(self) -> GroupKey:
        """What its runs share."""
        return GroupKey(self.momentum, self.train_size, self.optimizer, self.budget)


@dataclass(frozen=True, slots=True)
class MomentumFit(Record):
    """A momentum against a larger one, each at its best learning rates, all else equal.

    Attributes:
        lower: the smaller m; 0 is plain SGD.
        higher: the larger one.
        train_size: N.
        optimizer: by its name.
        budget: as a recipe prints it.
        separation: from which batch size on the smaller one is worse.
    """

    lower: float
    higher: float
    train_size: int | None
    optimizer: str
    budget: str
    separation: Separation


@dataclass(frozen=True, slots=True)
class Chosen:
    """The runs of a cell at its best learning rate."""

    cell: Cell
    runs: tuple[RunRecord, ...]


def choose(records: Sequence[RunRecord], cells: Sequence[Cell]) -> dict[GroupKey, list[Chosen]]:
    """Sort the cells that have a best learning rate by what they share over batch sizes."""
    members: dict[CellKey, list[RunRecord]] = defaultdict(list)
    for record in records:
        members[key_of(record)].append(record)
    groups: dict[GroupKey, list[Chosen]] = defaultdict(list)
    for cell in cells:
        if cell.best_lr is not None:
            key = key_of(cell)
            groups[GroupKey(*key[1:])].append(Chosen(cell, tuple(members[key])))
    return groups


def fit_group(key: GroupKey, chosen: Sequence[Chosen], metric: str, *, target: bool, tolerance: float) -> GroupFit:
    """Fit what one group says.

    Args:
        key: what it shares.
        chosen: its cells.
        metric: "test_accuracy" or "test_loss".
        target: whether the runs were put to a target.
        tolerance: a difference of the metric that does not matter.

    Returns:
        The fits.
    """
    cells = [each.cell for each in chosen]
    sizes, values, seeds = observations(chosen, metric)
    transition = find_transition(
        sizes, values, seeds=seeds, tolerance=tolerance, higher_is_better=metric.endswith("accuracy")
    )
    return GroupFit(
        **key._asdict(),
        batch_sizes=tuple(cell.batch_size for cell in cells),
        runs=sum(len(each.runs) for each in chosen),
        critical=fit_critical_batch(*costs(chosen)) if target else None,
        transition=transition,
        rates=rates_of([(cell.batch_size, cell.selected) for cell in cells]),
        loss_rates=rates_of([(cell.batch_size, cell.loss_lr) for cell in cells]),
    )


def observations(chosen: Sequence[Chosen], metric: str) -> tuple[list[float], list[float], list[int]]:
    """Give batch size, metric and seed of every run at the best learning rate of its batch size."""
    found = [
        (float(run.batch_size), value, run.seed)
        for each in chosen
        for run in at_rate(each.runs, each.cell.best_lr)
        if (value := getattr(run, metric)) is not None
    ]
    return [b for b, _, _ in found], [v for _, v, _ in found], [s for _, _, s in found]


def costs(chosen: Sequence[Chosen]) -> tuple[list[float], list[float]]:
    """Give batch size and samples to target of every run at the learning rate that was fastest; nan for a miss."""
    sizes, samples = [], []
    for each in chosen:
        fastest = each.cell.target_lr.best_lr
        for run in at_rate(each.runs, each.cell.best_lr if fastest is None else fastest):
            sizes.append(float(run.batch_size))
            samples.append(np.nan if not run.samples_to_target else run.samples_to_target)
    return sizes, samples


def rates_of(found: Sequence[tuple[int, Winner]]) -> RateRegimes:
    """Fit best learning rates against batch sizes."""
    sizes, best, low, high = rate_columns(found)
    return fit_rate_regimes(sizes, best, low=low, high=high)


def fit_momenta(groups: dict[GroupKey, list[Chosen]], metric: str, *, tolerance: float) -> list[MomentumFit]:
    """Put each momentum against the largest one, where they share three batch sizes and the seeds.

    Args:
        groups: the cells.
        metric: what is compared.
        tolerance: a difference that does not matter.

    Returns:
        One fit for each pair.
    """
    found = []
    for key in groups:
        momenta = [k.momentum for k in groups if k[1:] == key[1:]]
        if key.momentum == max(momenta):
            continue
        rival = key._replace(momentum=max(momenta))
        first, second = (paired_values(groups[k], metric) for k in (key, rival))
        shared = sorted(first.keys() & second.keys())
        if len({size for size, _ in shared}) < 3:
            continue
        separation = find_separation(
            [size for size, _ in shared],
            [first[each] for each in shared],
            [second[each] for each in shared],
            seeds=[seed for _, seed in shared],
            tolerance=tolerance,
            higher_is_better=metric.endswith("accuracy"),
        )
        found.append(MomentumFit(key.momentum, rival.momentum, *key[1:], separation=separation))
    return found


def paired_values(chosen: Sequence[Chosen], metric: str) -> dict[tuple[float, int], float]:
    """Give the metric by batch size and seed."""
    sizes, values, seeds = observations(chosen, metric)
    return dict(zip(zip(sizes, seeds, strict=True), values, strict=True))
