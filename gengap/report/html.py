"""What every page is made of: templates, pictures, scripts and links; it needs no other file and no other machine."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gengap.core.files import write_text
from gengap.report import interactive, numbers, paper, tables
from gengap.report.shapes import Figure


def write_page(folder: Path, html: str, drawn: Sequence[Figure]) -> Path:
    """Write a page as report.html, and its figures (PNG and SVG) beside it.

    Args:
        folder: where; made if missing. Files of an earlier report are replaced one by one, each whole.
        html: the page.
        drawn: its figures; those with nothing in them have no file.

    Returns:
        The path of the page.

    Raises:
        OutOfSpace: the disk is full; no file is half-written.
        BadInput: the folder cannot be written to.
    """
    for figure in drawn:
        if not figure.empty:
            paper.save(figure, folder / "figures")
    target = folder / "report.html"
    write_text(target, html)
    return target


def fill(template: str, drawn: Sequence[Figure], finding: Callable[[Figure], str], *, front: int, **more: Any) -> str:
    """Fill a template.

    Args:
        template: name of its file.
        drawn: the figures of the page.
        finding: what a figure proves, said beside its title.
        front: how many of them stand above the table; the others are folded away.
        more: what the template calls by name.

    Returns:
        The HTML; styles, scripts and pictures are in it, and it asks no other machine for anything.
    """
    pictures = [(figure, picture(figure), finding(figure)) for figure in drawn]
    live = {figure.name: interactive.interactive(figure) for figure in drawn if not figure.empty}
    return (
        templates()
        .get_template(template)
        .render(
            front=pictures[:front],
            more=pictures[front:],
            live=live,
            plotly=inert(interactive.script()) if live else "",
            **more,
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
    environment.filters["glued"] = numbers.glued
    return environment


def picture(figure: Figure) -> Markup:
    """Give the element that shows a figure; names in it are escaped where it is drawn."""
    return Markup("" if figure.empty else paper.inline(figure))


def linked(definitions: Iterable[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
    """Give each definition with the link that may stand beside it."""
    return [(entry, safe_link(entry.get("link"))) for entry in definitions]


def safe_link(link: str | None) -> str:
    """Let only web addresses through."""
    return link if link is not None and link.startswith(("https://", "http://")) else ""


def inert(script: str) -> Markup:
    """Keep a script from ending the element it stands in."""
    return Markup(script.replace("</script", "<\\/script").replace("<!--", "<\\!--"))
