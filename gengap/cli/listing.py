"""gengap list: what can be named, and what is in a store."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gengap.cli.output import print_json, sentences
from gengap.core.catalogue import DATA, NETWORKS, Data, Network

WIDEST = 1000  # characters

app = typer.Typer(
    no_args_is_help=True,
    help="List networks, data sets, optimizers, methods, schedules, augmentations, remedies, or the runs in a folder.",
)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@app.command()
@sentences
def networks(*, json: JsonFlag = False) -> None:
    """List the networks of the catalogue."""
    rows = [
        [name, shape(n), f"{n.classes:,}", f"{n.weights:,}", described(n.source, n.note)]
        for name, n in NETWORKS.items()
    ]
    head = ["network", "input", "classes", "weights", "source and form"]
    show(head, rows, {k: asdict(v) for k, v in NETWORKS.items()}, json)


@app.command()
@sentences
def data(*, json: JsonFlag = False) -> None:
    """List the data sets of the catalogue."""
    rows = [
        [
            name,
            number(d.train),
            number(d.test),
            shape(d),
            number(d.classes),
            described(d.source, d.note) + (f"; in {d.files}" if d.files else ""),
        ]
        for name, d in DATA.items()
    ]
    head = ["data", "train", "test", "input", "classes", "source, form, folder"]
    show(head, rows, {k: asdict(v) for k, v in DATA.items()}, json)


@app.command()
@sentences
def optimizers(*, json: JsonFlag = False) -> None:
    """List the optimizers of a recipe, and whose implementation each is."""
    from gengap.optim.catalogue import OPTIMIZERS

    rows = [[name, one.by, described(one.source, one.note)] for name, one in OPTIMIZERS.items()]
    show(["optimizer", "by", "source and form"], rows, {k: asdict(v) for k, v in OPTIMIZERS.items()}, json)


@app.command()
@sentences
def methods(*, json: JsonFlag = False) -> None:
    """List the training methods of a recipe, with their settings."""
    show_records("method", "method", json)


@app.command()
@sentences
def schedules(*, json: JsonFlag = False) -> None:
    """List the schedules of the learning rate, with their settings."""
    show_records("schedule", "schedule", json)


@app.command()
@sentences
def batch_schedules(*, json: JsonFlag = False) -> None:
    """List the schedules of the batch size, with their settings."""
    show_records("batch schedule", "batch_schedule", json)


@app.command()
@sentences
def augmentations(*, json: JsonFlag = False) -> None:
    """List the augmentations of a recipe."""
    from gengap.core.augmentations import AUGMENTATIONS

    rows = [[name, described(one.source, one.note)] for name, one in AUGMENTATIONS.items()]
    show(["augmentation", "source and form"], rows, {k: asdict(v) for k, v in AUGMENTATIONS.items()}, json)


@app.command()
@sentences
def remedies(*, json: JsonFlag = False) -> None:
    """List the remedies that gengap compare --remedy takes."""
    from gengap.core.remedies import REMEDIES

    rows = [[name, remedy.text, remedy.source] for name, remedy in REMEDIES.items()]
    plain = {name: {"text": remedy.text, "source": remedy.source} for name, remedy in REMEDIES.items()}
    show(["remedy", "what it does", "source"], rows, plain, json)


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
            "-" if row.recipe.get("lr") is None else f"{row.recipe['lr']:.4g}",
            f"{row.recipe.get('momentum') or 0:g}",
            str(row.recipe["seed"]),
            shown,
            f"{row.cost.get('seconds', 0):.1f}",
            outcome,
        ])
    head = ["run", "batch", "lr", "momentum", "seed", "test accuracy, % (running averages)", "seconds", "outcome"]
    show(head, rows, [asdict(row) for row in found], json)


def show_records(head: str, field: str, as_json: bool) -> None:
    """List what a field of a recipe may be."""
    from gengap.core.recipe import Recipe
    from gengap.core.recipe.record import variants_of

    rows, content = [], {}
    for name, kind in variants_of(Recipe.model_fields[field].annotation).items():
        settings = {key: one for key, one in kind.model_fields.items() if key != "name"}
        written = [key if one.is_required() else f"{key}={one.default}" for key, one in settings.items()]
        text = " ".join((kind.__doc__ or "").split())
        rows.append([name, ", ".join(written) or "-", text])
        defaults = {key: None if one.is_required() else one.default for key, one in settings.items()}
        content[name] = {
            "text": text,
            "settings": defaults,
            "needed": [k for k, o in settings.items() if o.is_required()],
        }
    show([head, "settings", "what it does"], rows, content, as_json)


def described(source: str, note: str) -> str:
    """Say where an entry is from and what is particular about it; the number of the paper is left to --json."""
    paper = source.partition(", arXiv")[0].partition(", doi")[0]
    return f"{paper}: {note}" if note else paper


def shape(entry: Network | Data) -> str:
    """Give the shape of one input."""
    return f"{entry.input_shape[0]} tokens" if entry.tokens else "x".join(map(str, entry.input_shape))


def number(value: int) -> str:
    """Give a size; one that the user's files decide is a dash."""
    return f"{value:,}" if value else "-"


def show(head: list[str], rows: list[list[str]], content: Any, as_json: bool) -> None:
    """Print a table, or its content as JSON."""
    if as_json:
        print_json(content)
        return
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(head):
        numeric = i > 0 and all(row[i].replace(",", "").replace(".", "").isdigit() for row in rows if row[i] != "-")
        last = i == len(head) - 1
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=not last)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(width=max(console.width, Console(width=WIDEST).measure(table).maximum))
    console.print(table)
