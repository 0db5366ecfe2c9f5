"""Make the runs of a sweep by an engine, keep them in a store, and let grids of learning rates grow until the best is inside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gengap.core.events import Listener, Message, silent
from gengap.problem.problem import Problem
from gengap.store.rows import RunRow
from gengap.store.store import Store
from gengap.sweeps.claims import share_out
from gengap.sweeps.lr_growth import NOWHERE, Growth, next_growth
from gengap.sweeps.measuring import describe
from gengap.sweeps.plan import Task, facts, is_usable, usable_run
from gengap.sweeps.standing import Standing
from gengap.sweeps.sweep_plan import Cell, SweepPlan
from gengap.sweeps.work import Engine, Group, Made, Pack


def one_by_one(problem: Problem, tasks: Sequence[Task]) -> list[Group]:  # noqa: ARG001 - one way to group among others
    """Let every run be a pack of its own."""
    return [("solo", (task,)) for task in tasks]


@dataclass(frozen=True, slots=True)
class Way:
    """How runs of one problem are made.

    Attributes:
        engine: makes them.
        groups: parts the runs of a problem into packs, each one after the other or as one program.
        together: runs that are claimed and handed to the engine at once: what another process cannot take meanwhile.
        chosen: where the way was picked by timing: what, with "why", a sentence.
    """

    engine: Engine
    groups: Callable[[Problem, Sequence[Task]], list[Group]] = one_by_one
    together: int = 1
    chosen: Mapping[str, Any] = field(default_factory=dict)


def together(parts: Sequence[list[str]], least: int) -> list[list[str]]:
    """Join neighbouring parts until each has at least so many members, the last one perhaps fewer."""
    joined: list[list[str]] = []
    for part in parts:
        if joined and len(joined[-1]) < least:
            joined[-1] = joined[-1] + part
        else:
            joined.append(part)
    return joined


Chooser = Callable[[Problem, Sequence[Task]], Way]


@dataclass(slots=True)
class SweepTally:
    """What a call of `run_sweep` did.

    Attributes:
        trained: runs made now.
        reused: runs that were there already, or that another process made meanwhile.
        diverged: runs of the sweep that diverged.
        failures: sentences about runs that failed.
        growth: by how much the grid of each cell grew, by the cell's name.
        ways: how the runs of each problem were made and why, where that was picked by timing.
    """

    trained: int = 0
    reused: int = 0
    diverged: int = 0
    failures: list[str] = field(default_factory=list)
    growth: dict[str, Growth] = field(default_factory=dict)
    ways: list[dict[str, Any]] = field(default_factory=list)


def run_sweep(
    plan: SweepPlan,
    store: Store,
    choose: Chooser,
    *,
    device: str = "cpu",
    data_root: str | Path | None = None,
    listen: Listener = silent,
) -> SweepTally:
    """Make what is missing, round by round, until every cell's best learning rate lies inside its grid or the limit is reached.

    A finished or diverged run of the store is never made again; one that failed is. Several processes may work on the same
    store. What the grids grow by follows from the runs alone: a sweep that was killed goes on where it was, and a larger grid
    uses what is there.

    Args:
        plan: cells and rules.
        store: where runs are looked up and kept.
        choose: says how the runs of a problem are made; asked once for each problem with runs to make.
        device: where to train.
        data_root: folder with the data, for engines that make the problem elsewhere.
        listen: told of the progress.

    Returns:
        What was done.

    Raises:
        Interrupted: Ctrl-C; finished runs are kept.
    """
    return Driver(plan, store, choose, device=device, data_root=data_root, listen=listen).run()


def usable_rows(store: Store, *, weights: bool) -> dict[str, RunRow]:
    """Give the runs of a store that need not be made again, by key."""
    return {row.key: row for row in store.runs() if is_usable(row, store, weights=weights)}


class Driver:
    """One process at work on a sweep; see `run_sweep`."""

    def __init__(
        self,
        plan: SweepPlan,
        store: Store,
        choose: Chooser,
        *,
        device: str,
        data_root: str | Path | None,
        listen: Listener,
    ) -> None:
        self.plan, self.store, self.choose, self.listen = plan, store, choose, listen
        self.how: dict[str, Any] = {
            "evaluations": plan.sweep.evaluations,
            "weights": plan.sweep.weights,
            "device": device,
            "data_root": None if data_root is None else str(data_root),
        }
        self.tally, self.standing = SweepTally(), Standing(plan.measure, listen)
        self.rows: dict[str, RunRow] = {}
        self.todo: dict[str, tuple[Cell, Task]] = {}
        self.ways: dict[str, Way] = {}

    def run(self) -> SweepTally:
        """Go round by round."""
        for problem in {cell.problem.fingerprint: cell.problem for cell in self.plan.cells}.values():
            self.store.add_problem(problem.fingerprint, facts(problem))
        for note in self.plan.notes:
            self.listen(Message(note))
        self.rows = usable_rows(self.store, weights=self.plan.sweep.weights)
        growth = dict.fromkeys((cell.name for cell in self.plan.cells), NOWHERE)
        while True:
            self._round(growth)
            larger = next_growth(growth, self.plan.steps(growth, self.rows), self.plan.sweep.extend)
            if larger == growth:
                return self._finished(growth)
            self.listen(Message(self._said(growth, larger)))
            growth = larger

    def _round(self, growth: dict[str, Growth]) -> None:
        """Make the runs of all grids as they are now."""
        self.todo = {task.key: (cell, task) for cell, task in self.plan.tasks(growth)}
        self._remember(growth)
        left = [key for key in self.todo if key not in self.rows]
        if not self.tally.trained + self.tally.reused:
            self.tally.reused = len(self.todo) - len(left)
            for key, (cell, _) in self.todo.items():
                if key in self.rows:
                    self.standing.take(cell.fields, self.rows[key], made=False)
        self.standing.begin(len(self.todo), len(self.todo) - len(left))
        by_problem: dict[str, list[str]] = {}
        for key in left:
            by_problem.setdefault(self.todo[key][0].problem.fingerprint, []).append(key)
        for fingerprint, keys in by_problem.items():
            way = self._way(fingerprint, keys)
            parts = together([[task.key for task in tasks] for _, tasks in self._groups(way, keys)], way.together)
            share_out(parts, self.store, partial(self._make, way), listen=self.listen)

    def _way(self, fingerprint: str, keys: Sequence[str]) -> Way:
        """Choose once for each problem how its runs are made, and say so."""
        if fingerprint not in self.ways:
            cell, _ = self.todo[keys[0]]
            self.ways[fingerprint] = way = self.choose(cell.problem, [self.todo[key][1] for key in keys])
            if way.chosen:
                self.tally.ways.append({"problem": fingerprint, **way.chosen})
                self.listen(Message(str(way.chosen["why"])))
        return self.ways[fingerprint]

    def _make(self, way: Way, granted: Sequence[str]) -> None:
        """Make those of the runs that no other process made meanwhile."""
        left = []
        for key in granted:
            row = usable_run(self.store, key, weights=self.plan.sweep.weights)
            if row is None:
                left.append(key)
            else:
                self.tally.reused += 1
                self._note(row)
        if not left:
            return
        problem = self.todo[left[0]][0].problem
        packs = [Pack(problem, tasks, form, **self.how) for form, tasks in self._groups(way, left)]
        self.standing.hand_out()
        way.engine.run(packs, self._keep, self.standing.hear)

    def _groups(self, way: Way, keys: Sequence[str]) -> list[Group]:
        return way.groups(self.todo[keys[0]][0].problem, [self.todo[key][1] for key in keys])

    def _keep(self, made: Made) -> None:
        """Put a run that came out into the store."""
        self.store.add_run(made.row, made.weights)
        self.tally.trained += 1
        if made.row.outcome == "failed":
            said = f"{describe(made.row.recipe)}, lr {made.row.recipe['lr']:.4g}: failed: {made.row.reason}"
            self.tally.failures.append(said)
            self.standing.hear(Message(made.row.reason, warning=True))
        self._note(made.row)

    def _note(self, row: RunRow) -> None:
        """Count a run that has come out."""
        self.rows[row.key] = row
        self.standing.take(self.todo[row.key][0].fields, row)

    def _remember(self, growth: dict[str, Growth]) -> None:
        """Note in the store which runs belong to the sweep, and how far its grids grew."""
        grids = [
            {**cell.fields, "lr": self.plan.rates_of(cell, growth), **growth[cell.name]._asdict()}
            for cell in self.plan.cells
        ]
        self.store.remember("sweep_keys", list(self.todo))
        self.store.remember("sweep_grids", grids)
        self.store.remember("sweep_ways", self.tally.ways)

    def _said(self, before: dict[str, Growth], after: dict[str, Growth]) -> str:
        """Say which grids grow."""
        larger = [cell for cell in self.plan.cells if after[cell.name] != before[cell.name]]
        batches = {self.plan.task(cell, cell.rates[0], self.plan.sweep.seeds[0]).recipe.batch_size for cell in larger}
        return (
            f"the best learning rate is at the edge of the grid in {len(larger)} of {len(self.plan.cells)} cells (batch "
            f"{', '.join(f'{size:,}' for size in sorted(map(int, batches)))}): their grids grow by one value"
        )

    def _finished(self, growth: dict[str, Growth]) -> SweepTally:
        """Sum up."""
        self._remember(growth)
        self.tally.growth = growth
        self.tally.diverged = sum(self.rows[key].outcome == "diverged" for key in self.todo if key in self.rows)
        return self.tally
