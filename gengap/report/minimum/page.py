"""The report of a checkpoint: one page that needs nothing else, the figures as files, and the numbers behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gengap.core.files import write_text
from gengap.report import interactive, paper
from gengap.report.minimum import tables
from gengap.report.minimum.csv_files import write_csv
from gengap.report.minimum.figures import figures, finding
from gengap.report.minimum.sentence import context
from gengap.report.page import inert, picture, safe_link, templates, zoomable
from gengap.report.shapes import Figure

Document = Mapping[str, Any]
IN_FRONT = 6


def write_report(document: Document, folder: Path) -> Path:
    """Write the report of a measurement.

    Args:
        document: in the form `gengap.measure/1`.
        folder: where; made if missing. Files of an earlier report are replaced one by one, each whole.

    Returns:
        The path of report.html. Beside it are figures/ (PNG and SVG) and data/ (CSV).

    Raises:
        OutOfSpace: the disk is full; no file is half-written.
        BadInput: the folder cannot be written to.
    """
    drawn = figures(document)
    for figure in drawn:
        paper.save(figure, folder / "figures")
    files = write_csv(document, folder / "data")
    target = folder / "report.html"
    write_text(target, page(document, drawn, [path.name for path in files]))
    return target


def page(document: Document, drawn: Sequence[Figure], files: Sequence[str]) -> str:
    """Fill the page.

    Args:
        document: the measurement.
        drawn: its figures.
        files: names of the CSV files beside it.

    Returns:
        The HTML; styles, scripts and pictures are in it, and it asks no other machine for anything.
    """
    pictures = [(figure, picture(figure), finding(document, figure)) for figure in drawn]
    live = zoomable(drawn)
    return (
        templates()
        .get_template("minimum.html.j2")
        .render(
            document=document,
            context=context(document),
            front=pictures[:IN_FRONT],
            more=pictures[IN_FRONT:],
            blocks=tables.blocks(document),
            left_out=tables.left_out(document),
            costs=tables.costs(document),
            definitions=[(entry, safe_link(entry.get("link"))) for entry in document["definitions"]],
            files=files,
            live=live,
            plotly=inert(interactive.script()) if live else "",
        )
    )
