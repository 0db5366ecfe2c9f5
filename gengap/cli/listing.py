"""gengap list: what can be named, and what is in a store."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gengap.cli.output import print_json, sentences
from gengap.core.catalogue import DATA, NETWORKS

app = typer.Typer(no_args_is_help=True, help="List networks, data sets, or the runs in a folder.")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@app.command()
@sentences
def networks(*, json: JsonFlag = False) -> None:
    """List the networks of the catalogue."""
    rows = [
        [name, "x".join(map(str, n.input_shape)), f"{n.classes:,}", f"{n.weights:,}", short(n.source), n.note]
        for name, n in NETWORKS.items()
    ]
    show(
        ["network", "input", "classes", "weights", "source", "note"],
        rows,
        {k: asdict(v) for k, v in NETWORKS.items()},
        json,
    )


@app.command()
@sentences
def data(*, json: JsonFlag = False) -> None:
    """List the data sets of the catalogue."""
    rows = [
        [
            name,
            f"{d.train:,}",
            f"{d.test:,}",
            "x".join(map(str, d.input_shape)),
            str(d.classes),
            d.files or "-",
            d.source,
        ]
        for name, d in DATA.items()
    ]
    head = ["data", "train", "test", "input", "classes", "folder below the data root", "source"]
    show(head, rows, {k: asdict(v) for k, v in DATA.items()}, json)


@app.command()
@sentences
def runs(
    folder: Annotated[Path, typer.Argument(help="A folder that --out wrote.")],
    *,
    json: JsonFlag = False,
) -> None:
    """List the runs in a store."""
    from gengap.store.store import Store

    with Store(folder, create=False) as store:
        found = store.runs()
    rows = []
    for row in found:
        last = row.history[-1] if row.history else {}
        outcome = row.outcome if row.outcome == "finished" else f"{row.outcome} at step {row.step:,}: {row.reason}"
        accuracy = last.get("test_accuracy")
        shown = "-" if accuracy is None else f"{accuracy:.2f}"
        rows.append([
            row.key,
            f"{row.recipe['batch_size']:,}",
            str(row.recipe["seed"]),
            shown,
            f"{row.cost.get('seconds', 0):.1f}",
            outcome,
        ])
    head = ["run", "batch", "seed", "test accuracy, % (running averages)", "seconds", "outcome"]
    show(head, rows, [asdict(row) for row in found], json)


def short(source: str) -> str:
    """Leave the number of the paper to --json."""
    return source.partition(", arXiv")[0]


def show(head: list[str], rows: list[list[str]], content: Any, as_json: bool) -> None:
    """Print a table, or its content as JSON."""
    if as_json:
        print_json(content)
        return
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(head):
        numeric = i > 0 and all(row[i].replace(",", "").replace(".", "").isdigit() for row in rows if row[i] != "-")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
