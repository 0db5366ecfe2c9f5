"""How long a sweep will take, from a few updates of every batch size on this machine."""

from gengap.store.store import Store
from gengap.sweeps.drive import usable_rows
from gengap.sweeps.forecast import Row, runs_row
from gengap.sweeps.plan import Task
from gengap.sweeps.sweep_plan import Cell, SweepPlan


def forecast_sweep(plan: SweepPlan, store: Store | None, *, device: str = "cpu") -> list[Row]:
    """Estimate the time of the runs that are still to be made, one after the other in one process.

    Args:
        plan: of the sweep.
        store: runs that are there already are not counted; None: nothing is there.
        device: where it would run.

    Returns:
        A row for each batch size, training-set size and budget. Runs by which grids of learning rates may grow are not in it.
        Costs some updates of each.
    """
    there = usable_rows(store, weights=plan.sweep.weights) if store else {}
    kinds: dict[str, list[tuple[Cell, Task]]] = {}
    for cell, task in plan.tasks({}):
        kinds.setdefault(kind(plan, cell, task), []).append((cell, task))
    rows = []
    for what, alike in kinds.items():
        left = [task for _, task in alike if task.key not in there]
        problem = alike[0][0].problem
        rows.append(runs_row(what, left, problem, device=device, evaluations=plan.sweep.evaluations))
    return rows


def kind(plan: SweepPlan, cell: Cell, task: Task) -> str:
    """Say what decides the time of a run."""
    parts = [f"training, batch {task.recipe.batch_size:,}"]
    if len(plan.sweep.grid.get("train_size", [])) > 1:
        parts.append(f"N {len(cell.problem.samples('train')):,}")
    if len(plan.sweep.grid.get("budget", [])) > 1:
        parts.append(str(task.recipe.budget))
    return ", ".join(parts)


def most_growth(plan: SweepPlan) -> int:
    """Count the runs by which grids of learning rates may grow."""
    growing = sum(len(cell.rates) > 1 for cell in plan.cells)
    return growing * plan.sweep.extend.limit * len(plan.sweep.seeds)
