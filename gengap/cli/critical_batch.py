"""gengap critical-batch: how large the batch could be without loss, along a run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gengap.cli import options as o
from gengap.cli.folder import check_folder, keeping, store_there
from gengap.cli.forecast import print_rows, work
from gengap.cli.output import Reporter, print_json, say, sentences
from gengap.cli.problem import make_problem, use_threads
from gengap.core.errors import BadInput
from gengap.core.files import write_text

BRANCHES = "Branches"


@sentences
def critical_batch(
    *,
    data: o.Data = None,
    network: o.Network = None,
    problem: o.Factory = None,
    loss: o.Loss = None,
    data_root: o.DataRoot = None,
    train_size: o.TrainSize = None,
    random_labels: o.RandomLabels = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Of the run itself. Default: 32.", rich_help_panel=o.RECIPE)
    ] = None,
    recipe: o.RecipeFile = None,
    optimizer: o.Optimizer = None,
    lr: o.Lr = None,
    momentum: o.Momentum = None,
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = None,
    milestones: o.Milestones = None,
    warmup: o.Warmup = None,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    set_: o.Set = None,
    dtype: o.Dtype = None,
    at: Annotated[
        str, typer.Option(help="When to branch, as shares of the budget.", rich_help_panel=BRANCHES)
    ] = "0.1,0.3,0.6,1",
    batch: Annotated[
        str | None,
        typer.Option(help="Batch sizes of the branches. Default: the run's own, doubled.", rich_help_panel=BRANCHES),
    ] = None,
    lr_rule: Annotated[
        str | None,
        typer.Option(
            help="How their learning rate follows: linear or sqrt. Default: linear for sgd, sqrt for adam and its kin.",
            rich_help_panel=BRANCHES,
        ),
    ] = None,
    branch_samples: Annotated[
        int | None,
        typer.Option(help="Samples of each branch. Default: a twentieth of the budget.", rich_help_panel=BRANCHES),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Excess of the training loss that counts as none, nats.", rich_help_panel=BRANCHES)
    ] = 0.01,
    seeds: Annotated[int, typer.Option(help="Branches of each batch size.", min=1, rich_help_panel=BRANCHES)] = 3,
    seed: Annotated[int | None, typer.Option(help="Of the run. Default: 0.", min=0, rich_help_panel=o.RECIPE)] = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    out: Annotated[Path, typer.Option(help="Folder for results.", rich_help_panel=o.RUNNING)] = Path(
        "results/critical-batch"
    ),
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure the critical batch size along a run by short branches with larger batches (Merrill et al. 2025)."""
    check_folder(out, resume=resume or dry_run)
    fields = o.recipe_fields(
        recipe,
        batch_size=batch_size,
        seed=seed,
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        milestones=milestones,
        warmup=warmup,
        epochs=epochs,
        steps=steps,
        set=set_,
        dtype=dtype,
    )
    made = make_problem(problem, data, network, loss, data_root, train_size=train_size, random_labels=random_labels)
    use_threads(threads, made)
    from gengap.exploration.branching import critical_batch as measure

    run = o.one_recipe(fields)
    branches: dict[str, Any] = {
        "at": o.numbers(at, "--at", "0.1,0.5,1"),
        "batch_sizes": o.batch_sizes(batch),
        "rule": rule_named(lr_rule),
        "branch_samples": branch_samples,
        "seeds": seeds,
        "device": device,
    }
    if dry_run:
        show_forecast(made, run, branches, out, json=json)
        return
    with keeping(out, "branches"), Reporter(quiet) as reporter:
        found = measure(made, run, **branches, tolerance=tolerance, out=out, listen=reporter)
    show(found, out, json=json)


def rule_named(name: str | None) -> Literal["linear", "sqrt"] | None:
    """Take the name of a rule.

    Args:
        name: of it, or None.

    Returns:
        The same.

    Raises:
        BadInput: there is no such rule.
    """
    if name is None or name == "linear" or name == "sqrt":
        return name  # type: ignore[return-value]
    raise BadInput(f"--lr-rule is {name!r}; choose linear or sqrt")


def show_forecast(problem: Any, run: Any, branches: dict[str, Any], out: Path, *, json: bool) -> None:
    """Print the branches that are missing, and the time that the run and they should take."""
    from gengap.exploration.branching import Branching
    from gengap.report.numbers import seconds

    planned = Branching(problem, run, **branches)
    say("timing a few updates of each batch size ...")
    with store_there(out) as store:
        rows = planned.forecast(store)
    total, count = sum(row.seconds for row in rows), sum(row.count for row in rows[1:])
    if json:
        print_json({
            "work": work(rows),
            "branches": count,
            "seconds": total,
            "recipe": planned.base.model_dump(mode="json"),
        })
        return
    print_rows(rows)
    print(
        f"{count:,} branches of {planned.samples:,} samples; about {seconds(total)} with the run on this machine, and the noise "
        "scale at each moment besides; nothing was trained"
    )


def show(found: Any, out: Path, *, json: bool) -> None:
    """Print what branches said, and keep it."""
    import json as json_lib

    document = found.to_dict()
    write_text(out / "critical-batch.json", json_lib.dumps(document, indent=2))
    if json:
        print_json(document)
    else:
        print(found)
    say(f"branches: {out / 'critical-batch.json'}")
