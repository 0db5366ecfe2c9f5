"""gengap report: write the page of stored runs again, and copy them to where others look."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.output import DONE_WITH_FAILURES, present, say, sentences
from gengap.core.errors import BadInput

COPIES = "Copies of a sweep"


@sentences
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that --out of compare, sweep or tune wrote.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Where to write the report. Default: the same folder.")] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write its tables as Parquet too.", rich_help_panel=COPIES)
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Log directory for TensorBoard.", rich_help_panel=COPIES)
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="MLflow, for example sqlite:///mlflow.db.", rich_help_panel=COPIES)
    ] = None,
    json: o.Json = False,
) -> None:
    """Write the report of a stored comparison or sweep again, without training anything."""
    from gengap.exploration.sweep import SWEEP

    is_sweep = (folder / SWEEP).exists()
    if not is_sweep and (parquet or tensorboard or mlflow):
        raise BadInput(f"{folder} holds no sweep; --parquet, --tensorboard and --mlflow copy sweeps")
    found, show = stored(folder, is_sweep=is_sweep)
    present(found, found.report(out or folder), show, json=json)
    if is_sweep:
        copy(
            found.document, folder, parquet=(out or folder) / "data" if parquet else None, board=tensorboard, uri=mlflow
        )
    if found.failures:
        raise typer.Exit(DONE_WITH_FAILURES)


def stored(folder: Path, *, is_sweep: bool) -> tuple[Any, Any]:
    """Give what a folder holds.

    Args:
        folder: of results.
        is_sweep: whether they are those of a sweep.

    Returns:
        The sweep or comparison, and what prints it.

    Raises:
        BadInput: it holds neither.
    """
    if is_sweep:
        from gengap.exploration.sweep import stored_sweep
        from gengap.report.sweep.terminal import print_sweep

        return stored_sweep(folder), print_sweep
    from gengap.comparison.checks import STUDY
    from gengap.comparison.compare import stored_comparison
    from gengap.report.terminal import print_comparison

    if not (folder / STUDY).exists():
        raise BadInput(
            f"{folder} holds no comparison and no sweep; name a folder that --out of compare, sweep or tune wrote"
        )
    return stored_comparison(folder), print_comparison


def copy(document: Any, folder: Path, *, parquet: Path | None, board: Path | None, uri: str | None) -> None:
    """Copy a sweep to where it is asked for, with every evaluation of its runs."""
    from gengap.report.mirrors import to_mlflow, to_tensorboard
    from gengap.report.sweep.export import export
    from gengap.store.store import Store

    if parquet:
        say(f"tables: {', '.join(map(str, export(document, parquet, 'parquet')))}")
    if not (board or uri):
        return
    keys = {run["key"] for run in document["runs"]}
    with Store(folder, create=False) as store:
        rows = [row for row in store.runs() if row.key in keys]
    if board:
        say(f"TensorBoard: {len(to_tensorboard(rows, board))} runs added to {board}")
    if uri:
        say(f"MLflow: {len(to_mlflow(rows, uri))} runs added to {uri}")
