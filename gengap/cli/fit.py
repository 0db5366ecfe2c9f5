"""gengap fit: the laws that the runs of a sweep follow."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gengap.cli import options as o
from gengap.cli.output import print_json, sentences

Cell = Mapping[str, Any]
WAYS = {"momentum": "momentum", "train_size": "samples", "optimizer": "optimizer", "budget": "budget"}


@sentences
def fit(
    *,
    folder: Annotated[
        Path, typer.Argument(help="A folder of runs, for example of gengap sweep, or a sweep's document.")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="What the critical batch size is about, as MEASURE=VALUE: test_accuracy=95. Default: what all but the worst "
            "fifth of the batch sizes reach."
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="test_accuracy or test_loss. Default: the accuracy, where there is one.")
    ] = None,
    selection: Annotated[
        str, typer.Option(help="What the best learning rates are selected on: validation, where there is one, or test.")
    ] = "validation",
    json: o.Json = False,
) -> None:
    """Fit regimes, critical batch, best batch and learning-rate rules to runs, with intervals or the reason why not."""
    from gengap.fitting.fit import fit as fitted

    found = fitted(folder, target=target, metric=metric, selection=selection)
    if json:
        print_json(found.to_dict())
        return
    console = Console()
    for sentence in found.answers or ["Nothing could be concluded."]:
        console.print(Text(sentence, style="bold"))
    console.print()
    if found.target is not None:
        console.print(Text(f"Target: {found.target} ({found.target.origin})", style="dim"))
    console.print(table_of([cell.to_dict() for cell in found.cells], found.metric))
    if found.unresolved:
        console.print(Text("\nWhat could not be concluded", style="bold"))
        for sentence in found.unresolved:
            console.print(Text(f"  {sentence}"))


def table_of(cells: list[Cell], metric: str) -> Table:
    """Lay out the cells: what they are, their best learning rate, and what it reached."""
    from gengap.report import numbers

    columns: dict[str, Callable[[Cell], str]] = {
        "batch": lambda cell: numbers.whole(cell["batch_size"]),
        **{head: described(name) for name, head in WAYS.items() if len({cell[name] for cell in cells}) > 1},
        "best lr": best_lr,
        "test accuracy, %" if metric == "test_accuracy" else "test loss": lambda cell: numbers.spread(cell[metric]),
        "training loss": lambda cell: numbers.number((cell["train_loss"] or {}).get("value")),
        "samples to target": samples_to_target,
        "runs": lambda cell: numbers.whole(cell["runs"]),
        "diverged": lambda cell: numbers.whole(cell["diverged"]),
    }
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for head in columns:
        table.add_column(head, justify="left" if head in {"optimizer", "budget"} else "right", overflow="fold")
    for cell in cells:
        table.add_row(*(Text(write(cell)) for write in columns.values()))
    return table


def described(name: str) -> Callable[[Cell], str]:
    """Write what distinguishes a cell."""
    return lambda cell: f"{cell[name]:,}" if isinstance(cell[name], int | float) else str(cell[name] or "")


def best_lr(cell: Cell) -> str:
    """Write the best learning rate; an arrow says that it is at the edge of its grid, and where the better may lie."""
    from gengap.report import numbers

    if cell["best_lr"] is None:
        return numbers.MISSING
    below, above = cell["lr_low"] is None, cell["lr_high"] is None
    return (
        f"{cell['best_lr']:.4g}" + (" \N{DOWNWARDS ARROW}" if below else "") + (" \N{UPWARDS ARROW}" if above else "")
    )


def samples_to_target(cell: Cell) -> str:
    """Write the samples to target, rounded."""
    from gengap.report import numbers

    estimate = cell["samples_to_target"]
    return numbers.MISSING if estimate is None else numbers.significant(estimate["value"], 3)
