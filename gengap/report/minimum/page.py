"""The report of a checkpoint: one page that needs nothing else, the figures as files, and the numbers behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gengap.report.html import fill, linked, write_page
from gengap.report.minimum import tables
from gengap.report.minimum.csv_files import write_csv
from gengap.report.minimum.figures import figures, finding
from gengap.report.minimum.sentence import context
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
    files = write_csv(document, folder / "data")
    return write_page(folder, page(document, drawn, [path.name for path in files]), drawn)


def page(document: Document, drawn: Sequence[Figure], files: Sequence[str]) -> str:
    """Fill the page.

    Args:
        document: the measurement.
        drawn: its figures.
        files: names of the CSV files beside it.

    Returns:
        The HTML; styles, scripts and pictures are in it, and it asks no other machine for anything.
    """
    return fill(
        "minimum.html.j2",
        drawn,
        lambda figure: finding(document, figure),
        front=IN_FRONT,
        document=document,
        interrupted=document.get("interrupted", ""),
        context=context(document),
        blocks=tables.blocks(document),
        left_out=tables.left_out(document),
        costs=tables.costs(document),
        definitions=linked(document["definitions"]),
        files=files,
    )
