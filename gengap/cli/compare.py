"""gengap compare and gengap reproduce."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.folder import RESULTS, check_folder, default_folder, reported, store_there
from gengap.cli.forecast import print_rows, work
from gengap.cli.output import DONE_WITH_FAILURES, command_line, present, print_json, say
from gengap.cli.problem import import_from_here, make_problem, use_threads
from gengap.cli.processes import current_ranks, together


@together
def compare(
    *,
    data: o.Data = None,
    network: o.Network = None,
    problem: o.Factory = None,
    loss: o.Loss = None,
    data_root: o.DataRoot = None,
    train_size: o.TrainSize = None,
    random_labels: o.RandomLabels = None,
    small: Annotated[
        str | None, typer.Option(help="Small batch: a number or a share. Default: 256; digits: 32.")
    ] = None,
    large: Annotated[
        str | None, typer.Option(help="Large batch: a number or a share. Default: 10%; digits: 100%.")
    ] = None,
    seeds: Annotated[int, o.seeds(more="; both batch sizes share each")] = 5,
    seed: Annotated[int, o.first_seed()] = 0,
    remedy: Annotated[
        str | None,
        typer.Option(help="Train the large batch again with each, for example sqrt-lr,sam (gengap list remedies)."),
    ] = None,
    recipe: o.RecipeFile = None,
    optimizer: o.Optimizer = None,
    lr: o.Lr = None,
    momentum: o.Momentum = None,
    nesterov: o.Nesterov = False,
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = None,
    milestones: o.Milestones = None,
    drop_last: o.DropLast = False,
    warmup: o.Warmup = None,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    converged: o.UntilConverged = False,
    micro_batch: o.MicroBatch = None,
    ghost_batch: o.GhostBatch = None,
    clip_norm: o.ClipNorm = None,
    method: o.Method = None,
    augment: o.Augment = None,
    set_: o.Set = None,
    dtype: o.Dtype = None,
    memory_format: o.MemoryFormat = None,
    radius: Annotated[float, typer.Option(help="Half-width of the sharpness box.", rich_help_panel=o.MEASURES)] = 1e-3,
    search: Annotated[str, typer.Option(help="robust, or paper.", rich_help_panel=o.MEASURES)] = "robust",
    batch_norm: Annotated[
        str, typer.Option(help="Statistics when measuring: batch or running.", rich_help_panel=o.MEASURES)
    ] = "batch",
    sharpness_samples: Annotated[
        int, typer.Option(help="Training samples for sharpness, at most; 0: all.", min=0, rich_help_panel=o.MEASURES)
    ] = 10_000,
    evaluation_batch: Annotated[
        int,
        typer.Option(help="Batch whose statistics batch norm uses when measuring.", min=2, rich_help_panel=o.MEASURES),
    ] = 5_000,
    no_sharpness: Annotated[
        bool, typer.Option("--no-sharpness", help="Leave sharpness out.", rich_help_panel=o.MEASURES)
    ] = False,
    points: Annotated[
        int, typer.Option(help="Points of the line between the minima; 0: none.", min=0, rich_help_panel=o.MEASURES)
    ] = 25,
    pairs: Annotated[int, typer.Option(help="Seeds whose line is measured.", min=1, rich_help_panel=o.MEASURES)] = 1,
    evaluations: o.Evaluations = 20,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results. Default: results/compare-NETWORK-DATA.", rich_help_panel=o.RUNNING),
    ] = None,
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train with a small and a large batch, measure both minima, and say whether the large batch generalises worse."""
    fields = o.recipe_fields(
        recipe,
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        schedule=schedule,
        milestones=milestones,
        drop_last=drop_last,
        warmup=warmup,
        epochs=epochs,
        steps=steps,
        converged=converged,
        micro_batch=micro_batch,
        ghost_batch=ghost_batch,
        clip_norm=clip_norm,
        method=method,
        augment=augment,
        set=set_,
        dtype=dtype,
        memory_format=memory_format,
    )
    made = make_problem(problem, data, network, loss, data_root, train_size=train_size, random_labels=random_labels)
    folder = out or default_folder("compare", made.name)
    check_folder(folder, resume=resume or dry_run)
    use_threads(threads, made)
    from gengap.comparison.question import comparison_study
    from gengap.core.remedies import names_of

    study = comparison_study(
        made,
        remedies=names_of(remedy) if remedy is not None else (),
        small=o.batch(small),
        large=o.batch(large),
        seeds=list(range(seed, seed + seeds)),
        recipe=fields,
        score={"batch_norm": batch_norm, "batch_size": evaluation_batch},
        sharpness=None
        if no_sharpness
        else {
            "radius": radius,
            "search": search,
            "batch_norm": batch_norm,
            "samples": sharpness_samples,
            "batch_size": evaluation_batch,
        },
        interpolation=None
        if not points
        else {"points": points, "batch_norm": batch_norm, "pairs": pairs, "batch_size": evaluation_batch},
        evaluations=evaluations,
    )
    execute(study, made, folder, device=device, dry_run=dry_run, json=json, quiet=quiet)


@together
def reproduce(
    *,
    study: Annotated[Path, typer.Argument(help="A study file, for example the study.toml beside a comparison.")],
    data_root: o.DataRoot = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    out: Annotated[Path, typer.Option(help="Folder for results.", rich_help_panel=o.RUNNING)] = RESULTS / "reproduce",
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run a study file again, from its first run to its verdicts."""
    from gengap.studies.study import read_study

    plan = read_study(study)
    check_folder(out, resume=resume or dry_run)
    if plan.problem.factory:
        import_from_here()
    from gengap.sweeps.plan import make_problem as make

    made = make(plan.problem, data_root)
    use_threads(threads, made)
    execute(plan, made, out, device=device, dry_run=dry_run, json=json, quiet=quiet)


def execute(study: Any, problem: Any, folder: Path, *, device: str, dry_run: bool, json: bool, quiet: bool) -> None:
    """Run a study of two batch sizes, show what it found, and write the report."""
    from gengap.comparison.checks import with_stored_remedies
    from gengap.comparison.compare import run_comparison

    ranks = current_ranks()
    if ranks.rank:
        from gengap.sweeps.follow import follow

        if not dry_run:
            follow(with_stored_remedies(study, folder), problem, device=device, ranks=ranks)
        return
    if dry_run:
        show_forecast(study, problem, folder, device=device, json=json)
        return
    how: dict[str, Any] = {"device": device, "command": command_line(), "ranks": ranks}
    found, page = reported(
        lambda listen: run_comparison(study, problem, folder, listen=listen, **how), folder, quiet=quiet
    )
    from gengap.report.terminal import print_comparison

    present(found, page, print_comparison, json=json)
    if found.failures:
        raise typer.Exit(DONE_WITH_FAILURES)


def show_forecast(study: Any, problem: Any, folder: Path, *, device: str, json: bool) -> None:
    """Print the runs that are missing and the time they should take."""
    from gengap.comparison.checks import check_same, check_sizes, with_stored_remedies
    from gengap.sweeps.forecast import forecast

    problem.check()
    check_sizes(study, problem)
    check_same(study, folder)
    study = with_stored_remedies(study, folder)
    say("timing a few updates of each kind ...")
    with store_there(folder) as store:
        rows = forecast(study, problem, store, device=device)
    total = sum(row.seconds for row in rows)
    if json:
        print_json({"work": work(rows), "seconds": total, "study": study.to_toml()})
        return
    from gengap.report.numbers import seconds

    print(study.to_toml())
    print_rows(rows)
    print(f"about {seconds(total)} in all on this machine; nothing was trained")
