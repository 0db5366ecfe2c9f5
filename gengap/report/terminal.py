"""The comparison in a terminal: the sentence, the table, the verdicts, what stays open."""

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gengap.report import remedies, tables

Document = Mapping[str, Any]
COLOURS = {"small": "blue", "large": "dark_orange"}
NARROW = {"test", "gain", "sharpness", "updates"}  # columns of the remedies that 80 characters have room for
VERDICTS = {"agrees": "green", "same direction": "green", "differs": "red"}


def render(document: Document) -> RenderableType:
    """Lay a comparison out for a terminal.

    Args:
        document: the comparison, in the form `gengap.comparison/1`.

    Returns:
        The sentence, the table, the claims with their verdicts, what could not be concluded, and the failures.
    """
    parts: list[RenderableType] = [Text(document["sentence"], style="bold"), Text(""), measures(document)]
    parts.append(Text(tables.context(document), style="dim"))
    if document.get("remedies"):
        parts += [Text(""), Text(remedies.sentence(document), style="bold"), side_by_side(document)]
    if document["claims"]:
        parts += [Text(""), claims(document)]
    parts += listed("What could not be concluded", document["unresolved"])
    parts += listed("What failed", tables.failures(document))
    return Group(*parts)


def as_text(show: Callable[[Document, Console], None], document: Document) -> str:
    """Give what a function prints of a document as plain text of 100 columns."""
    text = StringIO()
    show(document, Console(file=text, width=100, color_system=None))
    return text.getvalue().rstrip()


def print_comparison(document: Document, console: Console) -> None:
    """Print a comparison.

    Args:
        document: the comparison.
        console: where to.
    """
    console.print(render(document))


def measures(document: Document) -> Table:
    """Lay out the table of measures."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for role, colour in COLOURS.items():
        heading = Text.assemble((str(document[role]["label"]), colour), f"\nn = {tables.usual_n(document[role])}")
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("difference\nor ratio", justify="right", overflow="fold")
    table.add_column("95 %\ninterval", justify="right", overflow="fold")
    for row in tables.rows(document):
        name = f"{row.name} ({row.unit})" if row.unit else row.name
        values = (with_note(row.small), with_note(row.large), row.difference.text, row.difference.note)
        table.add_row(Text(name), *values)
    return table


def side_by_side(document: Document) -> Table:
    """Lay out the remedies."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", min_width=20)
    lines, headings = remedies.lines(document), remedies.headings(document)
    shown = [i for i in remedies.columns(document) if remedies.COLUMNS[i] in NARROW]
    for i in shown:
        table.add_column(headings[i], justify="right", overflow="fold")
    for line in lines:
        cells = [
            Text.assemble(c.text, (f"\n{c.note}" if c.note else "", "dim")) for c in map(line.cells.__getitem__, shown)
        ]
        table.add_row(Text(line.label.replace("+", "\n + "), style=COLOURS.get(line.role, "magenta")), *cells)
    return table


def with_note(cell: tables.Cell) -> Text:
    """Write a cell on one line, its note dimmed."""
    return Text.assemble((f"{cell.note}  " if cell.note else "", "dim"), cell.text)


def claims(document: Document) -> Table:
    """Lay out the claims with their verdicts."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("Claim", "Verdict", "Why"):
        table.add_column(heading, overflow="fold")
    for claim in document["claims"]:
        verdict = Text(claim["verdict"], style=VERDICTS.get(claim["verdict"], "yellow"))
        table.add_row(Text(claim["text"]), verdict, Text(claim["why"]))
    return table


def listed(heading: str, sentences: Any) -> list[RenderableType]:
    """Write sentences under a heading; nothing where there are none."""
    if not sentences:
        return []
    return [Text(""), Text(heading, style="bold"), *(Text(f"  {sentence}") for sentence in sentences)]
