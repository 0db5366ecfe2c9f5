"""A sweep in a terminal: the sentence, the table, what could not be concluded."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gengap.report.sweep import sentence, tables
from gengap.report.sweep.view import Sweep, read
from gengap.report.terminal import listed

Document = Mapping[str, Any]


def render(document: Document) -> RenderableType:
    """Lay a sweep out for a terminal.

    Args:
        document: in the form `gengap.sweep/1`.

    Returns:
        The sentence, the table of batch sizes, and what could not be concluded.
    """
    sweep = read(document)
    parts: list[RenderableType] = [Text(sentence.answer(sweep), style="bold"), Text(tables.context(sweep), style="dim")]
    if sweep.lines:
        front, more = tables.blocks(sweep)
        for block in [*front, *more]:
            parts += [
                Text(""),
                *([Text(block.title, style="bold")] if len(sweep.lines) > 1 else []),
                batch_sizes(sweep, block),
            ]
        parts.append(Text(f"*: at the edge of its grid. {tables.selection_said(sweep)}", style="dim"))
    parts += listed("What could not be concluded", sentence.unresolved(sweep))
    return Group(*parts)


def print_sweep(document: Document, console: Console | None = None) -> None:
    """Print a sweep.

    Args:
        document: in the form `gengap.sweep/1`.
        console: where to; None: standard output.
    """
    (console or Console()).print(render(document))


def batch_sizes(sweep: Sweep, block: tables.Block) -> Table:
    """Lay out the batch sizes of one way of training."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    result = "test accuracy (%)" if sweep.rises else "test loss (nats)"
    for heading in ("batch", "best lr", result, "n", "lost", "updates", "time"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in block.rows:
        table.add_row(row.batch, row.lr, row.result, row.n, row.lost, row.updates, row.time)
    return table
