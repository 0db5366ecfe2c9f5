"""The report: one page that needs nothing else, the figures as files, and the numbers behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gengap.core.files import write_text
from gengap.report import interactive, numbers, paper, tables
from gengap.report.csv_files import write_csv
from gengap.report.figures import figures
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
    for figure in drawn:
        if not figure.empty:
            paper.save(figure, folder / "figures")
    write_csv(document, folder / "data")
    target = folder / "report.html"
    write_text(target, page(document, drawn))
    return target


def page(document: Document, drawn: Sequence[Figure]) -> str:
    """Fill the page.

    Args:
        document: the comparison.
        drawn: its figures.

    Returns:
        The HTML; styles, scripts and pictures are in it, and it asks no other machine for anything.
    """
    pictures = [(figure, picture(figure), finding(document, figure)) for figure in drawn]
    live = zoomable(drawn)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            document=document,
            context=tables.context(document),
            front=pictures[:IN_FRONT],
            curves=pictures[IN_FRONT:],
            rows=tables.rows(document),
            arms=[(role, document[role]["label"], tables.usual_n(document[role])) for role in tables.ARMS],
            claims=[(claim, SYMBOLS.get(claim["verdict"], "?")) for claim in document["claims"]],
            failures=tables.failures(document),
            settings=tables.settings(document),
            run_columns=tables.RUN_COLUMNS,
            runs=tables.run_rows(document),
            definitions=[(entry, safe_link(entry.get("link"))) for entry in document["definitions"]],
            live=live,
            plotly=inert(interactive.script()) if live else "",
        )
    )


def templates() -> Environment:
    """Give the templates with what they write numbers with."""
    environment = Environment(
        loader=PackageLoader("gengap.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = numbers.seconds
    environment.filters["plain"] = tables.plain
    return environment


def zoomable(drawn: Sequence[Figure]) -> dict[str, Any]:
    """Describe the figures to plotly.js, by name."""
    return {figure.name: interactive.interactive(figure) for figure in drawn if not figure.empty}


def picture(figure: Figure) -> Markup:
    """Give the element that shows a figure; names in it are escaped where it is drawn."""
    return Markup("" if figure.empty else paper.inline(figure))


def finding(document: Document, figure: Figure) -> str:
    """Say what a figure proves, beside its title."""
    if figure.name not in document["difference"]:
        return ""
    said = tables.difference(document, figure.name).text
    return "" if said == numbers.MISSING else said


def safe_link(link: str | None) -> str:
    """Let only web addresses through."""
    return link if link is not None and link.startswith(("https://", "http://")) else ""


def inert(script: str) -> Markup:
    """Keep a script from ending the element it stands in."""
    return Markup(script.replace("</script", "<\\/script").replace("<!--", "<\\!--"))
