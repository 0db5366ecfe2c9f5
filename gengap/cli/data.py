"""gengap data: get data sets."""

from pathlib import Path
from typing import Annotated

import typer

from gengap.cli import options as o
from gengap.cli.output import Reporter, print_json, say, sentences

app = typer.Typer(no_args_is_help=True, help="Get data sets.")


@app.callback()
def group() -> None:
    """Get data sets."""


@app.command()
@sentences
def fetch(
    name: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar-10 or cifar-100.")],
    *,
    data_root: Annotated[
        Path, typer.Option(help="Folder to put it into, in torchvision's layout.", envvar="GENGAP_DATA")
    ] = Path("data"),
    url: Annotated[str | None, typer.Option(help="Folder of a mirror, in place of the usual address.")] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Download a data set and check its sums; files that are there and right are left alone."""
    from gengap.data.fetch import fetch as download

    with Reporter(quiet) as reporter:
        files = download(name, data_root, base_url=url, listen=reporter)
    if json:
        print_json({"name": name, "files": [str(file) for file in files]})
    say(f"{name} is in {data_root}; use it with --data-root {data_root}")
