"""gengap doctor: what is wrong with a training function."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.output import DONE_WITH_FAILURES, print_json, say, sentences
from gengap.cli.problem import import_from_here

if TYPE_CHECKING:
    from rich.console import Console

LOOP, CHECKS = "Training function", "Checks"
COLOURS = {"fault": "red", "ok": "green", "not checked": "dim"}  # in the order of the table


@sentences
def doctor(
    *,
    train: Annotated[
        str,
        typer.Option(
            help="package.module:function, called as train(model, data, batch_size=..., accumulate=..., epochs=...).",
            rich_help_panel=LOOP,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="package.module:function that makes a model. Default: make_model beside train.", rich_help_panel=LOOP
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="package.module:function that makes the training data. Default: make_data beside train.",
            rich_help_panel=LOOP,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Samples of one backward pass in the comparisons.", rich_help_panel=CHECKS)
    ] = 4,
    processes: Annotated[int, typer.Option(help="Processes to compare with one; 1: none.", rich_help_panel=CHECKS)] = 2,
    lr_rule: Annotated[
        str | None,
        typer.Option(
            help="How the learning rate should follow the batch: constant, sqrt or linear.", rich_help_panel=CHECKS
        ),
    ] = None,
    norm_batch: Annotated[
        int | None,
        typer.Option(
            help="Samples of one backward pass in your real run, for the span of batch norm.", rich_help_panel=CHECKS
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of model, samples and order.", min=0, rich_help_panel=o.RUNNING)] = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Examine a training function for faults that make many devices train worse; exit code 1 if there are any."""
    from gengap.core.catalogue import resolve

    import_from_here()
    module = train.partition(":")[0]
    functions = [resolve(name) for name in (train, model or f"{module}:make_model", data or f"{module}:make_data")]
    import torch
    from rich.console import Console

    from gengap.diagnosis.doctor import doctor as examine

    torch.set_num_threads(1)  # a few samples
    if not quiet:
        say(f"running {train} on a few samples, in one process{f' and in {processes}' if processes > 1 else ''} ...")
    how: dict[str, Any] = {"batch_size": batch_size, "processes": processes, "lr_rule": lr_rule}
    found = examine(functions[0], model=functions[1], data=functions[2], norm_batch=norm_batch, seed=seed, **how)
    if json:
        print_json(found.to_dict())
    else:
        show(found, Console())
    if not found.healthy:
        raise typer.Exit(DONE_WITH_FAILURES)


def show(found: Any, console: "Console") -> None:
    """Print a diagnosis: the sentence, the table with faults first, then the fixes."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("what", overflow="fold", min_width=16)
    table.add_column("compared", overflow="fold")
    for finding in sorted(found.findings, key=lambda one: list(COLOURS).index(one.state)):
        colour = COLOURS[finding.state]
        quiet = "dim" if finding.state == "not checked" else ""
        table.add_row(Text(finding.state, colour), Text(finding.name, quiet), Text(finding.compared, quiet))
    console.print(Text(found.sentence, "bold"))
    console.print()
    console.print(table)
    if found.faults:
        console.print()
        console.print(Text("What to change", "bold"))
    for finding in found.faults:
        console.print(Text(f"  {finding.name}: {finding.fix}"))
