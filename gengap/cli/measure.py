"""gengap measure: every measure of one checkpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.folder import default_folder, go_on, reported
from gengap.cli.output import DONE_WITH_FAILURES, command_line, present, print_json, say, sentences
from gengap.cli.problem import make_problem, use_threads
from gengap.core.errors import Interrupted

CHECKPOINT = "Checkpoint"
RADII, PRECISIONS = "5e-4,1e-3", "0.1,1,10"


@sentences
def measure(
    *,
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="safetensors, a state_dict saved by torch, a folder of gengap train --out, or runs/KEY of a store.",
            rich_help_panel=CHECKPOINT,
        ),
    ],
    second: Annotated[
        Path | None, typer.Option(help="Another checkpoint: the path to it.", rich_help_panel=CHECKPOINT)
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            help="The weights at the start. Default: those beside the checkpoint.", rich_help_panel=CHECKPOINT
        ),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(help="Snapshots of the training (gengap train --snapshots).", rich_help_panel=CHECKPOINT),
    ] = None,
    data: o.Data = None,
    network: o.Network = None,
    problem: o.Factory = None,
    loss: o.Loss = None,
    data_root: o.DataRoot = None,
    train_size: o.TrainSize = None,
    random_labels: o.RandomLabels = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Groups: loss, distance, sharpness, hessian, noise, landscape, evidence, reparametrisation. "
            "Default: all but the last two.",
            rich_help_panel=o.MEASURES,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything: 60s, 5m, 1h.", rich_help_panel=o.MEASURES)
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Training samples, at most; 0: all.", min=0, rich_help_panel=o.MEASURES)
    ] = 10_000,
    batch_norm: Annotated[
        str, typer.Option(help="Statistics: running or batch.", rich_help_panel=o.MEASURES)
    ] = "running",
    params: Annotated[
        str | None,
        typer.Option(help='Measure only weights of these names, for example "*.weight".', rich_help_panel=o.MEASURES),
    ] = None,
    radius: Annotated[str, typer.Option(help="Radii of the sharpness boxes.", rich_help_panel=o.MEASURES)] = RADII,
    momentum: Annotated[
        float, typer.Option(help="Of the training, for the stable learning rate.", rich_help_panel=o.MEASURES)
    ] = 0.0,
    l2: Annotated[
        str, typer.Option(help="Precisions of the prior, for the evidence.", rich_help_panel=o.MEASURES)
    ] = PRECISIONS,
    seed: Annotated[int, typer.Option(help="Of samples and probes.", min=0, rich_help_panel=o.MEASURES)] = 0,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    memory_limit: Annotated[str, typer.Option(help="That a measure may take.", rich_help_panel=o.RUNNING)] = "4 GiB",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results. Default: results/measure-CHECKPOINT.", rich_help_panel=o.RUNNING),
    ] = None,
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure a minimum: sharpness, curvature, noise, landscape, each number with its error and its cost."""
    from gengap.measurement.settings import Settings, in_order, parse_seconds

    chosen = {"groups": in_order(o.words(only))} if only is not None else {}
    settings = Settings(
        **chosen,
        radii=ascending(o.numbers(radius, "--radius", RADII)),
        samples=samples,
        batch_norm=batch_norm,
        params=o.words(params),
        momentum=momentum,
        l2=ascending(o.numbers(l2, "--l2", PRECISIONS)),
        seed=seed,
        memory_limit=memory_limit,
        budget=parse_seconds(budget) if budget is not None else None,
    )
    made = make_problem(problem, data, network, loss, data_root, train_size=train_size, random_labels=random_labels)
    use_threads(threads, made)
    from gengap.measurement.preparation import prepare
    from gengap.measurement.subject import load_subject
    from gengap.training.solo import find_device

    subject = load_subject(
        made, checkpoint, initial=initial, second=second, trajectory=trajectory, device=find_device(device)
    )
    folder = out or default_folder("measure", checkpoint.resolve().with_suffix("").name)
    if not quiet:
        say("timing a pass of each kind ...")
    prepared = prepare(subject, settings, folder, resume=resume or dry_run)
    if dry_run:
        show_plan(prepared, json=json)
        return
    execute(prepared, json=json, quiet=quiet)


def ascending(values: Iterable[float]) -> tuple[float, ...]:
    """Give numbers once each, the smallest first."""
    return tuple(sorted(set(values)))


def show_plan(prepared: Any, *, json: bool) -> None:
    """Print what would be measured and how long it should take."""
    from rich.console import Console

    from gengap.report.minimum.terminal import print_plan

    plan = prepared.plan.to_dict()
    if json:
        print_json(plan)
    else:
        print_plan(plan, Console())


def execute(prepared: Any, *, json: bool, quiet: bool) -> None:
    """Take the measures, show what was found, and write the report."""
    from rich.console import Console

    from gengap.measurement.run import take
    from gengap.report.minimum.terminal import print_minimum, print_plan

    folder = prepared.folder.path
    if not quiet:
        print_plan(prepared.plan.to_dict(), Console(stderr=True))
    found, page = reported(
        lambda listen: take(prepared, listen=listen, command=command_line()), folder, quiet=quiet, what="measures"
    )
    present(found, page, print_minimum, json=json)
    if found.interrupted:
        raise Interrupted(go_on(found.interrupted, folder, "measures"))
    if found.failures:
        raise typer.Exit(DONE_WITH_FAILURES)
