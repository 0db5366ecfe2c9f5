"""gengap tune: batch size, momentum and learning rate of SGD by Smith & Le's heuristic."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.folder import check_folder, default_folder, reported, store_there
from gengap.cli.forecast import print_rows, work
from gengap.cli.output import print_json, say, sentences
from gengap.cli.problem import make_problem, use_threads
from gengap.core.errors import BadInput

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
    validation: Annotated[float, o.validation(PROCEDURE)] = 0.1,
    seeds: Annotated[int, o.seeds(PROCEDURE)] = 3,
    seed: Annotated[int, o.first_seed(PROCEDURE)] = 0,
    recipe: o.RecipeFile = None,
    set_: o.Set = None,
    engine: o.Engine = "auto",
    workers: o.Workers = None,
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
    made = make_problem(problem, data, network, loss, data_root, train_size=train_size, random_labels=random_labels)
    use_threads(threads, made)
    folder = out or default_folder("tune", made.name)
    check_folder(folder, resume=resume or dry_run)
    asked: dict[str, Any] = {
        "lr": lr,
        "momentum": momentum,
        "batch_sizes": o.batch_sizes(batch),
        "max_batch": max_batch,
        "recipe": o.recipe_fields(recipe, set=set_),
        "seeds": list(range(seed, seed + seeds)),
        "validation": validation,
    }
    each = one_budget(budget)
    how: dict[str, Any] = {"engine": engine, "workers": workers, "device": device, "data_root": data_root}
    check_means(how)
    if dry_run:
        show_forecast(made, each, asked, folder, device=device, json=json)
        return
    from gengap.exploration.tune import tune as search

    found, page = reported(
        lambda listen: search(made, each, poor=poor, out=folder, listen=listen, **asked, **how), folder, quiet=quiet
    )
    if json:
        print_json(found.to_dict())
    else:
        print(found)
    say(f"report: {page}")


def check_means(how: dict[str, Any]) -> None:
    """Refuse an engine or a device that is not there, before anything is timed."""
    from gengap.sweeps.ways import Means
    from gengap.training.solo import find_device

    find_device(Means(**how).device)


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


def show_forecast(
    problem: Any, budget: dict[str, Any], asked: dict[str, Any], folder: Path, *, device: str, json: bool
) -> None:
    """Print how long what is left of the first sweep should take."""
    from gengap.exploration.tune import first_sweep
    from gengap.report.numbers import seconds
    from gengap.sweeps.sweep_forecast import forecast_sweep

    plan = first_sweep(problem, budget, **asked)
    say("timing a few updates of each batch size ...")
    with store_there(folder) as store:
        rows = forecast_sweep(plan, store, device=device)
    total = sum(row.seconds for row in rows)
    if json:
        sizes = plan.sweep.grid["batch_size"]
        lines = [{"batch_size": size} | line for size, line in zip(sizes, work(rows), strict=True)]
        print_json({"work": lines, "seconds": total})
        return
    print_rows(rows)
    print(
        f"about {seconds(total)} for one learning rate of the first sweep; there are at least two, and what follows depends on "
        "what they find; nothing was trained"
    )
