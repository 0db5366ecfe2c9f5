"""From a sweep to runs: its cells, the runs of each, and which grids of learning rates should grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe, batch_samples
from gengap.fitting.table import RunRecord, record_of
from gengap.problem.problem import Problem
from gengap.schedules.lr import rule_factor
from gengap.store.rows import RunRow, canonical
from gengap.studies.grid import BATCH, SIZE, snapped
from gengap.studies.sweep import Sweep
from gengap.sweeps.lr_growth import NOWHERE, Growth, grown, wanted
from gengap.sweeps.plan import Task, check_left_over, run_key
from gengap.sweeps.problem_sizes import Problems
from gengap.sweeps.resizing import has_accuracy
from gengap.training.rehearsal import rehearse

TUNED = {BATCH, SIZE, "momentum"}  # fields whose value does not decide whether a recipe fits the network


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything of a run but its learning rate and seed.

    Attributes:
        name: its fields as canonical JSON.
        fields: of the grid, with the batch size as a number.
        problem: with the training set of the cell's size.
        rates: learning rates of the grid for this cell, ascending.
        tasks: its runs so far, by learning rate and seed.
    """

    name: str
    fields: Mapping[str, Any]
    problem: Problem
    rates: tuple[float, ...]
    tasks: dict[tuple[float, int], Task] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a sweep trains.

    Attributes:
        sweep: with its metric chosen.
        cells: in the order of the grid.
        measure: of a run's last evaluation, what chooses learning rates: "validation_accuracy", "test_loss", ...
        notes: sentences about what was left out or decided.
    """

    sweep: Sweep
    cells: tuple[Cell, ...]
    measure: str
    notes: tuple[str, ...]

    def rates_of(self, cell: Cell, growth: Mapping[str, Growth]) -> list[float]:
        """Give the learning rates of a cell, ascending."""
        return grown(cell.rates, growth.get(cell.name, NOWHERE))

    def tasks(self, growth: Mapping[str, Growth]) -> list[tuple[Cell, Task]]:
        """List all runs, seeds outermost, so that the whole grid is seen early."""
        return [
            (cell, self.task(cell, lr, seed))
            for seed in self.sweep.seeds
            for cell in self.cells
            for lr in self.rates_of(cell, growth)
        ]

    def task(self, cell: Cell, lr: float, seed: int) -> Task:
        """Give one run of a cell."""
        if (lr, seed) not in cell.tasks:
            recipe = resolved(self.sweep, cell, lr, seed)
            cell.tasks[lr, seed] = Task(run_key(cell.problem, recipe), recipe)
        return cell.tasks[lr, seed]

    def steps(self, growth: Mapping[str, Growth], rows: Mapping[str, RunRow]) -> dict[str, Growth]:
        """Say for each cell where its grid should grow, from the runs that are there."""
        return {cell.name: wanted(self.records(cell, growth, rows), self.measure) for cell in self.cells}

    def records(self, cell: Cell, growth: Mapping[str, Growth], rows: Mapping[str, RunRow]) -> list[RunRecord]:
        """Give the runs of a cell that are there."""
        samples = len(cell.problem.samples("train"))
        keys = [self.task(cell, lr, seed).key for lr in self.rates_of(cell, growth) for seed in self.sweep.seeds]
        return [record_of(rows[key], samples) for key in keys if key in rows]


def resolved(sweep: Sweep, cell: Cell, lr: float, seed: int) -> Recipe:
    """Give the recipe of one run of a cell, with numbers for its training set."""
    return sweep.recipe_of(cell.fields, lr=lr, seed=seed).resolved(len(cell.problem.samples("train")))


def make_plan(sweep: Sweep, problems: Problems) -> SweepPlan:
    """Write out the cells of a sweep, and refuse what would only be found when its turn comes.

    Args:
        sweep: grid and rules.
        problems: makes the problem of every training-set size.

    Returns:
        The plan. Batches that are larger than their training set are left out, with a note.

    Raises:
        BadInput: a recipe cannot be used, does not fit the problem, or no cell is left.
    """
    first = problems.of(sweep.cells()[0].get(SIZE))
    first.check()
    metric = sweep.metric or ("accuracy" if has_accuracy(first) else "loss")
    if metric == "accuracy" and not has_accuracy(first):
        raise BadInput(f"metric is accuracy, but {first.name} has no right answers to count; choose loss")
    sweep = sweep.model_copy(update={"metric": metric})
    cells, too_large = make_cells(sweep, problems)
    notes = [
        f"batch {', '.join(f'{size:,}' for size in sorted(sizes))}: larger than the {samples:,} training samples, left out"
        for samples, sizes in sorted(too_large.items())
    ]
    if not cells:
        raise BadInput(f"no batch size of the sweep is left ({'; '.join(notes)}); choose smaller ones")
    held = "validation" in first.splits
    if not held:
        notes.append("learning rates are chosen on the test set, which makes their test results a little too good")
    check_fit(sweep, cells)
    return SweepPlan(sweep, tuple(cells), f"{'validation' if held else 'test'}_{metric}", tuple(notes))


def make_cells(sweep: Sweep, problems: Problems) -> tuple[list[Cell], dict[int, set[int]]]:
    """Make the cells; give the batch sizes that are too large beside them, by the size of the training set."""
    cells: dict[str, Cell] = {}
    too_large: dict[int, set[int]] = {}
    for fields in sweep.cells():
        problem = problems.of(fields.get(SIZE))
        samples = len(problem.samples("train"))
        size = batch_samples(fields[BATCH] if BATCH in fields else sweep.recipe[BATCH], samples)
        if size > samples:
            too_large.setdefault(samples, set()).add(size)
            continue
        whole = {**fields, BATCH: size} if BATCH in fields else fields
        factor = rule_factor(sweep.lr_follows, size, whole.get("momentum", sweep.recipe.get("momentum", 0.0)))
        name = canonical(whole)
        cells[name] = Cell(name, whole, problem, tuple(snapped(lr * factor) for lr in sweep.rates))
    return list(cells.values()), too_large


def check_fit(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Refuse recipes that leave one sample over for batch norm, or that the network cannot have.

    Args:
        sweep: their sweep.
        cells: all.

    Raises:
        BadInput: one cannot be trained.
    """
    rehearsed = set()
    for cell in cells:
        recipe = resolved(sweep, cell, cell.rates[0], sweep.seeds[0])
        check_left_over(cell.problem, recipe)
        kind = canonical({name: value for name, value in cell.fields.items() if name not in TUNED})
        if kind not in rehearsed:
            rehearse(cell.problem, recipe)
            rehearsed.add(kind)
