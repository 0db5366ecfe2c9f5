"""How the best learning rate moves with the budget: the one for training loss and the one for test results."""

from collections import defaultdict
from collections.abc import Sequence

from gengap.report.shapes import Figure, Key
from gengap.report.sweep import parts
from gengap.report.sweep.fits import Fit
from gengap.report.sweep.fitted import budget_lines
from gengap.report.sweep.view import KINDS, Cell, Line, Sweep, size_of

NAMES = {"epochs": "Epochs", "steps": "Updates"}
LEAST = 2  # budgets


def figures(sweep: Sweep) -> list[Figure]:
    """Draw the best learning rates of the batch size that has most budgets, for each kind of budget."""
    drawn = (best_lr(sweep, kind) for kind in KINDS if kind in NAMES)
    return [figure for figure in drawn if figure is not None]


def best_lr(sweep: Sweep, kind: str) -> Figure | None:
    """Draw both best learning rates against the budget."""
    found = longest([line for line in sweep.lines if line.kind == kind])
    if len(found) < LEAST:
        return None
    line, cell = found[0]
    x = [size_of(line.way.budget) for line, _ in found]
    word = "test accuracy" if sweep.rises else "test loss"
    accuracy = parts.on_grid(word, x, [cell for _, cell in found], "accuracy")
    loss = parts.on_grid("training loss", x, [cell["loss_lr"] for _, cell in found], "loss")
    fitted = fit_of(sweep, kind, cell)
    series = (*budget_lines(fitted, x), *loss, *accuracy)
    said = " Dashed: fitted powers of the budget." if len(series) > len(loss) + len(accuracy) else ""
    way = line.way._replace(budget="")
    return Figure(
        f"best_lr_by_{kind}",
        f"Best learning rate against {NAMES[kind].lower()}",
        f"Batch {cell['batch_size']:,}, {parts.setting(way, alone=True)}. {parts.bars_said(series)}{said}",
        parts.at_values(NAMES[kind], x),
        parts.around("Learning rate that is best", parts.reach(series)),
        series,
        key=(Key(word, "accuracy", "solid"), Key("training loss", "loss", "solid")),
    )


def fit_of(sweep: Sweep, kind: str, cell: Cell) -> Fit | None:
    """Find the fit of one batch size and way over its budgets."""
    wanted = {"kind": kind, **{name: cell.get(name) for name in ("batch_size", "momentum", "train_size", "optimizer")}}
    every = sweep.fits.get("optimal_lr", ())
    return next((fit for fit in every if all(fit.get(name) == found for name, found in wanted.items())), None)


def longest(lines: Sequence[Line]) -> list[tuple[Line, Cell]]:
    """Choose the batch size and way with most budgets, and give its cells, budgets ascending."""
    groups: dict[tuple[object, ...], list[tuple[Line, Cell]]] = defaultdict(list)
    for line in lines:
        for cell in line.trained:
            groups[(*line.way[1:], cell["batch_size"])].append((line, cell))
    found: list[tuple[Line, Cell]] = max(groups.values(), key=len, default=[])
    return sorted(found, key=lambda one: size_of(one[0].way.budget))
