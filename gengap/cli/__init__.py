"""The command line: parsing and printing only. Nothing here loads torch before a command needs it."""

from typing import Annotated

import typer

from gengap import __version__
from gengap.cli import data, listing
from gengap.cli.compare import compare, reproduce
from gengap.cli.critical_batch import critical_batch
from gengap.cli.doctor import doctor
from gengap.cli.fit import fit
from gengap.cli.measure import measure
from gengap.cli.output import INTERRUPTED
from gengap.cli.report import report
from gengap.cli.sweep import sweep
from gengap.cli.train import train
from gengap.cli.tune import tune

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Large-batch training: does it generalise worse, by how much, and is its minimum sharper?",
)


def show_version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        print(f"gengap {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Large-batch training: does it generalise worse, by how much, and is its minimum sharper?"""


app.command()(compare)
app.command()(train)
app.command()(measure)
app.command()(sweep)
app.command()(fit)
app.command()(tune)
app.command()(critical_batch)
app.command()(doctor)
app.command()(reproduce)
app.command()(report)
app.add_typer(listing.app, name="list")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:  # outside the commands, which say more
        raise SystemExit(INTERRUPTED) from None
