"""What the tables of a sweep say: a row for each batch size, a row for each run; page and terminal show the same."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gengap.report import numbers
from gengap.report.sweep.view import Cell, Line, Run, Sweep, Way, at, averaged, foremost, parts, rates

SPLITS = (("train", "training"), ("validation", "validation"), ("test", "test"))
RUN_COLUMNS = (
    "Batch",
    "lr",
    "Momentum",
    "N",
    "Seed",
    "Budget",
    "Outcome",
    "Test",
    "Train loss",
    "Updates",
    "Time",
    "Run",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One batch size, ready to be read.

    Attributes:
        batch: its size.
        lr: the best learning rate, with a mark where it is at the edge of its grid.
        result: mean and standard deviation of the metric over seeds.
        n: seeds.
        lost: runs that diverged or failed, of all.
        updates: of a run at the best learning rate.
        time: that one run took in updates.
    """

    batch: str
    lr: str
    result: str
    n: str
    lost: str
    updates: str
    time: str


@dataclass(frozen=True, slots=True)
class Block:
    """The batch sizes of one way of training.

    Attributes:
        title: the way.
        rows: batch sizes ascending.
    """

    title: str
    rows: tuple[Row, ...]


def blocks(sweep: Sweep) -> tuple[list[Block], list[Block]]:
    """Give the tables of batch sizes: the ways that stand in the first pictures, and the others."""
    front = [line.way for line in foremost(sweep) or sweep.lines]
    shown = [block(sweep, line) for line in sweep.lines if line.way in front]
    return shown, [block(sweep, line) for line in sweep.lines if line.way not in front]


def block(sweep: Sweep, line: Line) -> Block:
    """Give the table of one way of training."""
    return Block(way_said(line.way), tuple(row(sweep, line, cell) for cell in line.cells))


def way_said(way: Way) -> str:
    """Say a way of training in full."""
    return ", ".join(part for part in reversed(parts(way)) if part)


def row(sweep: Sweep, line: Line, cell: Cell) -> Row:
    """Say one batch size."""
    best = at(sweep, line.way, cell["batch_size"], cell["best_lr"])
    result, steps, seconds = cell[sweep.metric], averaged(best, "steps"), averaged(best, "seconds")
    edge = " *" if cell["best_lr"] is not None and cell["at_edge"] else ""
    return Row(
        batch=numbers.whole(cell["batch_size"]),
        lr=numbers.MISSING if cell["best_lr"] is None else f"{numbers.tick(cell['best_lr'])}{edge}",
        result=numbers.spread(result),
        n=numbers.MISSING if result is None else numbers.whole(result["n"]),
        lost=f"{lost(cell)} of {cell['runs']}",
        updates=numbers.MISSING if steps is None else numbers.whole(steps["value"]),
        time=numbers.seconds(None if seconds is None else seconds["value"]),
    )


def lost(cell: Cell) -> int:
    """Count the runs of a cell that came to nothing."""
    return int(cell["diverged"]) + int(cell.get("failed") or 0)


def run_rows(sweep: Sweep) -> list[list[str]]:
    """Give a row for each run."""
    return [run_row(sweep, run) for run in sweep.document["runs"]]


def run_row(sweep: Sweep, run: Run) -> list[str]:
    """Say one run."""
    outcome = run["outcome"] if not run["reason"] else f"{run['outcome']}: {run['reason']}"
    return [
        numbers.whole(run["batch_size"]),
        numbers.tick(run["lr"]),
        numbers.tick(run["momentum"] or 0.0),
        numbers.whole(run["train_size"]),
        str(run["seed"]),
        run["budget"],
        outcome,
        numbers.number(run[sweep.metric], 4),
        numbers.number(run["train_loss"]),
        numbers.whole(run["steps"]),
        numbers.seconds(run["seconds"]),
        run["key"][:12],
    ]


def effort(sweep: Sweep) -> list[tuple[str, str, str, str]]:
    """Say what was spent on tuning each batch size: way, batch, learning rates tried, runs."""
    rows = []
    for line in sweep.lines:
        for cell in line.cells:
            runs, tried = sweep.runs[line.way, cell["batch_size"]], rates(sweep, line.way, cell["batch_size"])
            span = " to ".join(dict.fromkeys([numbers.tick(tried[0]), numbers.tick(tried[-1])]))
            size = numbers.whole(cell["batch_size"])
            rows.append((way_said(line.way), size, f"{len(tried)} ({span})", numbers.whole(len(runs))))
    return rows


def uneven(sweep: Sweep) -> str:
    """Say where batch sizes of one way were not tuned with equal effort, or ""."""
    for line in sweep.lines:
        tried = {c["batch_size"]: len(rates(sweep, line.way, c["batch_size"])) for c in line.cells}
        if len(set(tried.values())) > 1:
            fewest, most = min(tried, key=tried.__getitem__), max(tried, key=tried.__getitem__)
            return (
                f"Batch sizes were not tuned with equal effort ({way_said(line.way)}): batch {numbers.whole(fewest)} with "
                f"{tried[fewest]} learning rates, batch {numbers.whole(most)} with {tried[most]}; the one with more has the "
                f"better chance."
            )
    return ""


def context(sweep: Sweep) -> str:
    """Say in one line what was trained, and how many runs there are."""
    problem = sweep.document.get("problem") or {}
    said = []
    if problem.get("data"):
        held = [
            f"{sizes_said(problem[f'{part}_samples'])} {word}"
            for part, word in SPLITS
            if problem.get(f"{part}_samples")
        ]
        said.append(f"{problem['data']}: {several(held)} samples" if held else str(problem["data"]))
    if problem.get("network"):
        said.append(f"{problem['network']}: {sizes_said(problem.get('parameters'))} weights")
    outcomes = Counter(run["outcome"] for run in sweep.document["runs"])
    lost_said = "".join(f", {outcomes[kind]} {kind}" for kind in ("diverged", "failed") if outcomes[kind])
    count = len(sweep.document["runs"])
    said.append(f"{numbers.whole(count)} {'run' if count == 1 else 'runs'}{lost_said}")
    return " · ".join(said)


def sizes_said(size: Any) -> str:
    """Write a count, or the range of several."""
    if isinstance(size, list):
        known = sorted(x for x in size if isinstance(x, int))
        return f"{numbers.whole(known[0])} to {numbers.whole(known[-1])}" if known else numbers.MISSING
    return numbers.whole(size)


def selection_said(sweep: Sweep) -> str:
    """Say how the best learning rates were chosen."""
    note = sweep.document.get("selection_note") or ""
    measure = "accuracy" if sweep.rises else "loss"
    if sweep.document["selection"] == "validation":
        return (
            f"Selected on validation, reported on test: for each batch size the learning rate with the best mean validation "
            f"{measure} over seeds; the test set was not looked at for the choice. {note}"
        ).strip()
    return (
        note
        or f"Selected and reported on the test set: the learning rate with the best mean test {measure} over seeds."
    )


def several(words: Sequence[str]) -> str:
    """Join words as a list is spoken."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
