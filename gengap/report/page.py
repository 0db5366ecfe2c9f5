"""The report of a comparison: one page that needs nothing else, the figures as files, and the numbers behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gengap.report import numbers, remedies, tables
from gengap.report.csv_files import write_csv
from gengap.report.figures import figures
from gengap.report.html import fill, linked, write_page
from gengap.report.shapes import Figure

Document = Mapping[str, Any]
IN_FRONT = 3  # figures above the fold; the training curves stay folded
SYMBOLS = {
    "agrees": "✓",
    "same direction": "≈",
    "differs": "✗",
    "not resolvable": "?",
    "insensitive": "=",
    "not run": "○",
}


def write_report(document: Document, folder: Path) -> Path:
    """Write the report of a comparison.

    Args:
        document: the comparison, in the form `gengap.comparison/1`.
        folder: where; made if missing. Files of an earlier report are replaced one by one, each whole.

    Returns:
        The path of report.html. Beside it are figures/ (PNG and SVG) and data/ (CSV).

    Raises:
        OutOfSpace: the disk is full; no file is half-written.
        BadInput: the folder cannot be written to.
    """
    drawn = figures(document)
    if document.get("remedies"):
        drawn.append(remedies.figure(document))
    write_csv(document, folder / "data")
    return write_page(folder, page(document, drawn), drawn)


def page(document: Document, drawn: Sequence[Figure]) -> str:
    """Fill the page.

    Args:
        document: the comparison.
        drawn: its figures.

    Returns:
        The HTML; styles, scripts and pictures are in it, and it asks no other machine for anything.
    """
    headings = remedies.headings(document)
    return fill(
        "report.html.j2",
        drawn,
        lambda figure: finding(document, figure),
        front=IN_FRONT,
        document=document,
        context=tables.context(document),
        rows=tables.rows(document),
        arms=[(role, document[role]["label"], tables.usual_n(document[role])) for role in tables.ARMS],
        remedies=remedies.lines(document),
        remedy_columns=[(i, headings[i]) for i in remedies.columns(document)],
        remedy_sentence=remedies.sentence(document),
        claims=[(claim, SYMBOLS.get(claim["verdict"], "?")) for claim in document["claims"]],
        failures=tables.failures(document),
        settings=tables.settings(document),
        run_columns=tables.RUN_COLUMNS,
        runs=tables.run_rows(document),
        definitions=linked(document["definitions"]),
    )


def finding(document: Document, figure: Figure) -> str:
    """Say what a figure proves, beside its title."""
    if figure.name not in document["difference"]:
        return ""
    said = tables.difference(document, figure.name).text
    return "" if said == numbers.MISSING else said
