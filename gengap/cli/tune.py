"""gengap tune: batch size, momentum and learning rate of SGD by Smith & Le's heuristic."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.compare import check_folder
from gengap.cli.output import Reporter, print_json, say, sentences
from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Message

PROCEDURE = "Procedure"


@sentences
def tune(
    *,
    data: o.Data = None,
    network: o.Network = None,
    problem: o.Factory = None,
    loss: o.Loss = None,
    data_root: o.DataRoot = None,
    train_size: o.TrainSize = None,
    random_labels: o.RandomLabels = None,
    budget: Annotated[
        str, typer.Option(help="Of every run: epochs=30, steps=10000 or converged.", rich_help_panel=PROCEDURE)
    ] = "steps=1000",
    batch: Annotated[
        str | None,
        typer.Option(
            help="Batch sizes of the first sweep. Default: powers of 2 from 8 to half the training set.",
            rich_help_panel=PROCEDURE,
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(help="What the hardware holds. Default: the training set.", min=1, rich_help_panel=PROCEDURE),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate to begin with.", rich_help_panel=PROCEDURE)] = 1.0,
    momentum: Annotated[float, typer.Option(help="Momentum to begin with.", rich_help_panel=PROCEDURE)] = 0.9,
    poor: Annotated[
        float | None,
        typer.Option(
            help="Accuracy below which (loss above which) the learning rate is lowered. Default: as long as that is better.",
            rich_help_panel=PROCEDURE,
        ),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            help="Training samples held out to choose by: a share below 1, or how many.",
            min=0,
            rich_help_panel=PROCEDURE,
        ),
    ] = 0.1,
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1, rich_help_panel=PROCEDURE)] = 3,
    seed: Annotated[int, typer.Option(help="The first seed.", min=0, rich_help_panel=PROCEDURE)] = 0,
    recipe: o.RecipeFile = None,
    set_: o.Set = None,
    engine: Annotated[
        str, typer.Option(help="solo, fleet, pool, ray, slurm, or auto.", rich_help_panel=o.RUNNING)
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Of pool, ray and slurm.", min=1, rich_help_panel=o.RUNNING)
    ] = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results. Default: results/tune-PROBLEM.", rich_help_panel=o.RUNNING)
    ] = None,
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Choose batch size, momentum and learning rate of SGD in three sweeps (Smith & Le 2018, appendix D)."""
    made = o.make_problem(problem, data, network, loss, data_root, train_size=train_size, random_labels=random_labels)
    o.use_threads(threads, made)
    folder = out or Path("results") / f"tune-{made.name.replace(' on ', '-').replace('/', '-')}"
    check_folder(folder, resume=resume or dry_run)
    fields = o.recipe_fields(recipe, set=set_)
    sizes, each = batch_sizes(batch), one_budget(budget)
    how: dict[str, Any] = {"engine": engine, "workers": workers, "device": device, "data_root": data_root}
    check_means(how)
    if dry_run:
        forecast(
            made, fields, sizes, budget=each, lr=lr, momentum=momentum, seeds=seeds, validation=validation, json=json
        )
        return
    from gengap.exploration.tune import tune as search

    try:
        with Reporter(quiet) as reporter:
            found = search(
                made,
                budget,
                lr=lr,
                momentum=momentum,
                batch_sizes=sizes,
                max_batch=max_batch,
                poor=poor,
                recipe=fields,
                seeds=list(range(seed, seed + seeds)),
                validation=validation,
                out=folder,
                listen=reporter,
                **how,
            )
            reporter(Message(f"writing the report to {folder}"))
            page = found.report(folder)
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            f"{error or 'interrupted'}; finished runs are kept in {folder}, go on with --resume"
        ) from error
    if json:
        print_json(found.to_dict())
    else:
        print(found)
    say(f"report: {page}")


def check_means(how: dict[str, Any]) -> None:
    """Refuse an engine that is not there, before anything is timed."""
    from gengap.sweeps.ways import Means

    Means(**how)


def batch_sizes(text: str | None) -> list[int] | None:
    """Read batch sizes.

    Args:
        text: "8:4096:x2", "8,16,32", or None.

    Returns:
        The sizes, or None.

    Raises:
        BadInput: one of them is no number of samples.
    """
    if text is None:
        return None
    from gengap.studies.grid import counts

    try:
        return counts(text)
    except ValueError as error:
        raise BadInput(f"--batch is {text!r}; give numbers of samples: {error}") from error


def one_budget(text: str) -> dict[str, Any]:
    """Read a budget.

    Args:
        text: "epochs=30", "steps=10000" or "converged".

    Returns:
        Fields of a `Budget`.

    Raises:
        BadInput: it is none of these, or several.
    """
    from gengap.studies.grid import budgets

    try:
        first, *more = budgets(text)
    except ValueError as error:
        raise BadInput(f"--budget: {error}") from error
    if more:
        raise BadInput(f"--budget is {text!r}; all runs of a tuning have the same one, for example epochs=30")
    return first


def forecast(
    problem: Any,
    fields: dict[str, Any],
    sizes: list[int] | None,
    *,
    budget: dict[str, Any],
    lr: float,
    momentum: float,
    seeds: int,
    validation: float,
    json: bool,
) -> None:
    """Print how long the first sweep should take."""
    from gengap.core.recipe import Recipe
    from gengap.exploration.tune import sizes_of, training_size
    from gengap.problem.validation import hold_out
    from gengap.report.numbers import seconds
    from gengap.sweeps.forecast import run_seconds

    chosen = sizes_of(sizes, training_size(problem, validation))
    held = hold_out(problem, validation)
    say("timing a few updates of each batch size ...")
    rows: list[dict[str, Any]] = []
    for size in chosen:
        tried: dict[str, Any] = {"lr": lr / 10, "momentum": momentum, "batch_size": size, "budget": budget}
        recipe = Recipe(**{**fields, **tried})
        once, detail = run_seconds(held, recipe, "cpu", 20)
        rows.append({"batch_size": size, "count": seeds, "seconds": seeds * once, "detail": detail})
    total = sum(float(row["seconds"]) for row in rows)
    if json:
        print_json({"work": rows, "seconds": total})
        return
    for row in rows:
        print(f"batch {row['batch_size']:>6,} {seeds:>3} x {seconds(row['seconds'] / seeds):>10}   {row['detail']}")
    print(
        f"about {seconds(total)} for one learning rate of the first sweep; there are at least two, and what follows depends on "
        "what they find; nothing was trained"
    )
