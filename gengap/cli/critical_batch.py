"""gengap critical-batch: how large the batch could be without loss, along a run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gengap.cli import options as o
from gengap.cli.output import Reporter, print_json, say, sentences
from gengap.cli.tune import batch_sizes
from gengap.core.errors import BadInput, Interrupted
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
    batch_size: Annotated[int, typer.Option(help="Of the run itself.", rich_help_panel=o.RECIPE)] = 32,
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
    seed: Annotated[int, typer.Option(help="Of the run.", min=0, rich_help_panel=o.RUNNING)] = 0,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    out: Annotated[Path, typer.Option(help="Folder for results.", rich_help_panel=o.RUNNING)] = Path(
        "results/critical-batch"
    ),
    resume: o.Resume = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure the critical batch size along a run by short branches with larger batches (Merrill et al. 2025)."""
    from gengap.cli.compare import check_folder

    check_folder(out, resume=resume)
    shared = o.recipe_fields(
        recipe,
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
        seed=seed,
    )
    made = o.make_problem(problem, data, network, loss, data_root, train_size=train_size, random_labels=random_labels)
    o.use_threads(threads, made)
    from gengap.comparison.question import recipe_fields
    from gengap.core.recipe import Recipe
    from gengap.exploration.branching import critical_batch as measure

    whole = Recipe(**{"batch_size": batch_size, "seed": seed, **recipe_fields(shared, 20)})
    try:
        with Reporter(quiet) as reporter:
            found = measure(
                made,
                whole,
                at=o.numbers(at, "--at", "0.1,0.5,1"),
                batch_sizes=batch_sizes(batch),
                rule=rule_named(lr_rule),
                branch_samples=branch_samples,
                tolerance=tolerance,
                seeds=seeds,
                device=device,
                out=out,
                listen=reporter,
            )
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            f"{error or 'interrupted'}; finished branches are kept in {out}, go on with --resume"
        ) from error
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


def show(found: Any, out: Path, *, json: bool) -> None:
    """Print what branches said, and keep it."""
    import json as json_lib

    write_text(out / "critical-batch.json", json_lib.dumps(found.to_dict(), indent=2))
    if json:
        print_json(found.to_dict())
    else:
        print(found)
    say(f"branches: {out / 'critical-batch.json'}")
