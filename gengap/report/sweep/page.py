"""The report of a sweep: one page that needs nothing else, the figures as files, and the numbers behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gengap.report.html import fill, linked, write_page as write_files
from gengap.report.shapes import Figure
from gengap.report.sweep import fits, sentence, tables
from gengap.report.sweep.definitions import definitions
from gengap.report.sweep.export import export
from gengap.report.sweep.figures import IN_FRONT, figures
from gengap.report.sweep.view import Sweep, read

Document = Mapping[str, Any]


def write_page(document: Document, folder: str | Path) -> Path:
    """Write the report of a sweep.

    Args:
        document: in the form `gengap.sweep/1`.
        folder: where; made if missing. Files of an earlier report are replaced one by one, each whole.

    Returns:
        The path of report.html. Beside it are figures/ (PNG and SVG) and data/ (runs.csv, cells.csv).

    Raises:
        OutOfSpace: the disk is full; no file is half-written.
        BadInput: the folder cannot be written to.
    """
    folder, sweep = Path(folder), read(document)
    drawn = figures(sweep)
    export(document, folder / "data")
    return write_files(folder, page(sweep, drawn), drawn)


def page(sweep: Sweep, drawn: Sequence[Figure]) -> str:
    """Fill the page.

    Args:
        sweep: the sweep.
        drawn: its figures.

    Returns:
        The HTML; styles, scripts and pictures are in it, and it asks no other machine for anything.
    """
    front, more = tables.blocks(sweep)
    return fill(
        "sweep.html.j2",
        drawn,
        lambda figure: fits.finding(sweep, figure.name),
        front=IN_FRONT,
        document=sweep.document,
        sentence=sentence.answer(sweep),
        context=tables.context(sweep),
        unresolved=sentence.unresolved(sweep),
        metric="Test accuracy, %" if sweep.rises else "Test loss, nats",
        blocks=front,
        more_blocks=more,
        fits=fits.table(sweep),
        selection=tables.selection_said(sweep),
        effort=tables.effort(sweep),
        run_columns=tables.RUN_COLUMNS,
        runs=tables.run_rows(sweep),
        definitions=linked(definitions(sweep)),
    )
