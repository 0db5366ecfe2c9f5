"""A minimum in a terminal: the sentence, the table, what was not measured."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gengap.report import numbers
from gengap.report.minimum import tables
from gengap.report.minimum.sentence import context
from gengap.report.terminal import listed

Document = Mapping[str, Any]


def render(document: Document) -> RenderableType:
    """Lay a measurement out for a terminal.

    Args:
        document: in the form `gengap.measure/1`.

    Returns:
        The sentence, the table, the doubts, and what was not measured.
    """
    parts: list[RenderableType] = [Text(document["sentence"], style="bold"), Text(context(document), style="dim")]
    if document.get("interrupted"):
        parts.append(Text(f"Not finished: {document['interrupted']}."))
    if document["numbers"]:
        parts += [Text(""), measures(document)]
    parts += listed("What should not be concluded", document["unresolved"])
    parts += listed("What was not measured, and why", tables.left_out(document))
    return Group(*parts)


def print_minimum(document: Document, console: Console) -> None:
    """Print a measurement.

    Args:
        document: in the form `gengap.measure/1`.
        console: where to.
    """
    console.print(render(document))


def measures(document: Document) -> Table:
    """Lay out the table of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("95 % interval,\nor kind", justify="right", overflow="fold")
    table.add_column("how good", overflow="fold")
    for block in tables.blocks(document):
        for i, line in enumerate(block.lines):
            name = f"{line.name} ({line.unit})" if line.unit else line.name
            note = "; ".join(part for part in (line.note, block.seconds if i == 0 else "") if part)
            table.add_row(Text(name), line.value, line.interval, Text(note, style="dim"))
    return table


def print_plan(plan: Mapping[str, Any], console: Console) -> None:
    """Print what is to be measured and how long it should take."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("measure", "about", "what it does"):
        table.add_column(heading, justify="right" if heading == "about" else "left", overflow="fold")
    for row in tables.forecast_rows(plan["measures"]):
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Group(*listed("Left out", [f"{one['title']}: {one['why']}." for one in plan["left_out"]])))
    remark = f" {plan['remark']}." if plan["remark"] else ""
    total = numbers.seconds(plan["seconds"])
    console.print(Text(f"about {total} in all on {numbers.whole(plan['samples'])} samples.{remark}"))
