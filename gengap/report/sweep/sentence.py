"""The answer in one sentence, and what could not be concluded."""

from collections import Counter
from typing import NamedTuple

from gengap.core.estimate import paired_difference
from gengap.report import numbers
from gengap.report.sweep import fits
from gengap.report.sweep.tables import lost, several, uneven
from gengap.report.sweep.view import Cell, Line, Run, Sweep, Way, at, averaged, foremost, interval, rule, value


class Best(NamedTuple):
    """The batch size and learning rate that did best, and where."""

    line: Line
    cell: Cell


def best(sweep: Sweep) -> Best | None:
    """Choose the cell of the first pictures that is best on what learning rates were selected on; None where none is there."""
    selected = sweep.metric if sweep.document["selection"] == "test" else sweep.metric.replace("test", "validation")
    found = None
    # other budgets and training sets are left out: longer and larger ones win, which says nothing of the batch size
    for line in foremost(sweep):
        for cell in line.trained:
            score = value(averaged(at(sweep, line.way, cell["batch_size"], cell["best_lr"]), selected))
            if score is not None and (found is None or sweep.better(score, found[0])):
                found = (score, Best(line, cell))
    return found and found[1]


def answer(sweep: Sweep) -> str:
    """Say the main numbers of a sweep.

    Args:
        sweep: the sweep.

    Returns:
        One sentence: the best batch size and learning rate, then what was fitted.
    """
    found = best(sweep)
    if found is None:
        return nothing_said(sweep)
    return "; ".join([first_clause(sweep, found), *fits.clauses(sweep, found.line.way)]) + "."


def first_clause(sweep: Sweep, found: Best) -> str:
    """Say what did best."""
    cell, way = found.cell, found.line.way
    batch, lr = numbers.whole(cell["batch_size"]), numbers.tick(cell["best_lr"])
    batches = {c["batch_size"] for line in sweep.lines for c in line.cells}
    beside = ways_apart(sweep, way)
    held = sweep.document["selection"] == "validation"  # then the best need not be the one with the best test result
    verb, result = (
        "does best on validation" if held else "tests best",
        result_said(sweep, cell, on=" on test" if held else ""),
    )
    if len(batches) == 1:
        return f"Learning rate {lr}{beside} {verb} at batch {batch}, with {result}"
    return f"Batch {batch} at learning rate {lr}{beside} {verb}, with {result}"


def ways_apart(sweep: Sweep, way: Way) -> str:
    """Say what else the best was trained with, where other ways were tried."""
    ways = {line.way for line in sweep.lines}
    said = []
    if len({(each.optimizer, each.momentum) for each in ways}) > 1:
        said.append(rule(way))
    if len({each.train_size for each in ways}) > 1 and way.train_size:
        said.append(f"{numbers.whole(way.train_size)} samples")
    if len({each.budget for each in ways}) > 1:
        said.append(way.budget)
    return f" ({', '.join(said)})" if said else ""


def result_said(sweep: Sweep, cell: Cell, *, on: str) -> str:
    """Say a result with its interval, and what it is one on."""
    estimate = cell[sweep.metric]
    if estimate is None:
        return "no result on the test set"
    estimate = numbers.share(estimate) if sweep.rises else estimate
    bounds = interval(estimate)
    between = f" ({numbers.interval(estimate)})" if bounds else " (one seed)" if estimate["n"] == 1 else ""
    if not sweep.rises:
        return f"a loss of {numbers.significant(estimate['value'], 3)}{between}{on}"
    text = numbers.beside(estimate["value"], bounds[1] - bounds[0]) if bounds else numbers.number(estimate["value"], 4)
    return f"{text} %{between}{on}"


def nothing_said(sweep: Sweep) -> str:
    """Say that nothing finished."""
    runs = sweep.document["runs"]
    if not runs:
        return "The sweep holds no run yet."
    outcomes = Counter(run["outcome"] for run in runs)
    words = [f"{n} {kind}" for kind, n in outcomes.most_common() if kind != "finished"]
    if not words:
        return f"None of the {len(runs)} runs has a result to compare."
    return f"None of the {len(runs)} runs can be compared: {several(words)}."


def unresolved(sweep: Sweep) -> list[str]:
    """List what could not be concluded, and why.

    Args:
        sweep: the sweep.

    Returns:
        Sentences: fits that were refused with their reasons, and what makes the numbers weaker than they look.
    """
    refused = fits.refused(sweep)
    at_edges = [] if any(sentence.startswith("Grids:") for sentence in refused) else edges(sweep)
    said = [*refused, *at_edges, *diverged(sweep), ties(sweep), uneven(sweep), seeds(sweep)]
    if sweep.document["selection"] == "test":
        said.append(sweep.document.get("selection_note") or "Learning rates were selected on the test set itself.")
    return list(dict.fromkeys(sentence for sentence in said if sentence))


def edges(sweep: Sweep) -> list[str]:
    """Name the batch sizes whose best learning rate is at the edge of the grid."""
    said = []
    for word, end, further in (("lowest", "lr_low", "lower"), ("highest", "lr_high", "higher")):
        sizes = sorted({
            cell["batch_size"]
            for line in sweep.lines
            for cell in line.trained
            if cell["at_edge"] and cell[end] is None and (cell["lr_low"], cell["lr_high"]) != (None, None)
        })
        if sizes:
            batches = several([numbers.whole(size) for size in sizes])
            verb, plural = ("is", "") if len(sizes) == 1 else ("are", "s")
            said.append(
                f"The best learning rate{plural} of batch {batches} {verb} the {word} tried, so the true best may be "
                f"{further}: extend the grid."
            )
    return said


def diverged(sweep: Sweep) -> list[str]:
    """Name the batch sizes of which no run can be used."""
    sizes = sorted({c["batch_size"] for line in sweep.lines for c in line.cells if c["runs"] and lost(c) == c["runs"]})
    batches = several([numbers.whole(size) for size in sizes]) if sizes else ""
    return [f"Every run of batch {batches} diverged or failed; try lower learning rates."] if sizes else []


def ties(sweep: Sweep) -> str:
    """Name the batch sizes that cannot be told from the best."""
    found = best(sweep)
    top = found and found.cell[sweep.metric]
    if not found or not top:
        return ""
    others = [cell for cell in found.line.trained if cell is not found.cell]
    alike = [cell["batch_size"] for cell in others if cannot_be_told(sweep, found.line.way, found.cell, cell)]
    if not alike:
        return ""
    batches = several([numbers.whole(size) for size in sorted(alike)])
    return (
        f"Batch {numbers.whole(found.cell['batch_size'])} cannot be told from batch {batches}: the difference between runs of "
        f"equal seeds holds 0 in its 95 % interval."
    )


def cannot_be_told(sweep: Sweep, way: Way, first: Cell, second: Cell) -> bool:
    """Tell whether the difference between two cells may be nothing, by pairs of equal seeds."""
    both = [
        {
            run["seed"]: run[sweep.metric]
            for run in at(sweep, way, cell["batch_size"], cell["best_lr"])
            if has(run, sweep)
        }
        for cell in (first, second)
    ]
    shared = sorted(both[0].keys() & both[1].keys())
    difference = paired_difference(*([own[seed] for seed in shared] for own in both)) if shared else None
    return bool(difference and difference.interval and difference.interval[0] <= 0 <= difference.interval[1])


def has(run: Run, sweep: Sweep) -> bool:
    """Tell whether a run has a result."""
    return run["outcome"] == "finished" and run.get(sweep.metric) is not None


def seeds(sweep: Sweep) -> str:
    """Say that one seed gives no error."""
    counts = [cell[sweep.metric]["n"] for line in sweep.lines for cell in line.trained if cell[sweep.metric]]
    if counts and max(counts) == 1:
        return "There is one seed for each setting, so no difference has an error bar; run --seeds 3 or more."
    return ""
