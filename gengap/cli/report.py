"""gengap report: write the page of a stored comparison again."""

from pathlib import Path
from typing import Annotated

import typer

from gengap.cli import options as o
from gengap.cli.output import DONE_WITH_FAILURES, present, sentences


@sentences
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that gengap compare --out wrote.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Where to write the report. Default: the same folder.")] = None,
    json: o.Json = False,
) -> None:
    """Write the report of a stored comparison again, without training anything."""
    from gengap.comparison.compare import stored_comparison
    from gengap.report.terminal import print_comparison

    found = stored_comparison(folder)
    present(found, found.report(out or folder), print_comparison, json=json)
    if found.failures:
        raise typer.Exit(DONE_WITH_FAILURES)
