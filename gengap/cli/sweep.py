"""gengap sweep: batch size against learning rate, momentum, training-set size and seed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.folder import check_folder, default_folder, reported, store_there
from gengap.cli.forecast import print_rows, work
from gengap.cli.output import DONE_WITH_FAILURES, command_line, present, print_json, say, sentences
from gengap.cli.problem import import_from_here, problem_spec, use_threads
from gengap.core.errors import BadInput

GRID, SELECTION = "Grid", "Selection"
DEFAULTS = {"batch_size": "8:4096:x2", "lr": "0.01:3:x2"}
RANGES = "LOW:HIGH:xFACTOR, LOW:HIGH:+STEP, or values with commas between them"


@sentences
def sweep(
    *,
    file: Annotated[
        Path | None, typer.Argument(help="A sweep file, for example the sweep.toml beside a sweep.")
    ] = None,
    data: o.Data = None,
    network: o.Network = None,
    problem: o.Factory = None,
    loss: o.Loss = None,
    data_root: o.DataRoot = None,
    random_labels: o.RandomLabels = None,
    batch: Annotated[
        str | None, typer.Option(help=f"Batch sizes: {RANGES}. Default: 8:4096:x2.", rich_help_panel=GRID)
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(help="Learning rates, in the same form. Default for sgd: 0.01:3:x2.", rich_help_panel=GRID),
    ] = None,
    lr_follows: Annotated[
        str | None,
        typer.Option(
            help="linear or sqrt: --lr is for the smallest batch, those of other batches follow by the rule.",
            rich_help_panel=GRID,
        ),
    ] = None,
    momentum: Annotated[str | None, typer.Option(help="For example 0,0.5,0.9.", rich_help_panel=GRID)] = None,
    train_size: Annotated[
        str | None,
        typer.Option(help="Training samples; a smaller choice is part of a larger.", rich_help_panel=GRID),
    ] = None,
    seeds: Annotated[int | None, o.seeds(GRID, ". Default: 5")] = None,
    seed: Annotated[int | None, o.first_seed(GRID, ". Default: 0")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="epochs=30, steps=10000 or converged; epochs=50:400:x2 is several. Default: epochs=30.",
            rich_help_panel=GRID,
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="Any other field of a recipe, as FIELD=VALUES; may be given several times.", rich_help_panel=GRID
        ),
    ] = None,
    extend: Annotated[
        int | None,
        typer.Option(
            help="Learning rates that a grid may grow by where its best is at the edge. Default: 4.",
            min=0,
            rich_help_panel=GRID,
        ),
    ] = None,
    extend_all: Annotated[
        bool, typer.Option("--extend-all", help="Let all grids grow with one.", rich_help_panel=GRID)
    ] = False,
    validation: Annotated[float | None, o.validation(SELECTION, "; 0: the test set chooses. Default: 0.1")] = None,
    select: Annotated[
        str | None,
        typer.Option(help="What chooses: accuracy or loss. Default: accuracy.", rich_help_panel=SELECTION),
    ] = None,
    recipe: o.RecipeFile = None,
    optimizer: Annotated[
        str | None, typer.Option(help="Of gengap list optimizers. Default: sgd.", rich_help_panel=o.RECIPE)
    ] = None,
    nesterov: o.Nesterov = False,
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = None,
    milestones: o.Milestones = None,
    drop_last: o.DropLast = False,
    warmup: o.Warmup = None,
    ghost_batch: o.GhostBatch = None,
    augment: o.Augment = None,
    set_: o.Set = None,
    dtype: o.Dtype = None,
    evaluations: Annotated[
        int | None,
        typer.Option(help="Measurements on the way. Default: 20.", min=1, rich_help_panel=o.RUNNING),
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Keep the trained weights.", rich_help_panel=o.RUNNING)
    ] = False,
    engine: o.Engine = "auto",
    workers: o.Workers = None,
    engine_option: Annotated[
        list[str] | None,
        typer.Option(help="Of the engine, as NAME=JSON; may be given several times.", rich_help_panel=o.RUNNING),
    ] = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results. Default: results/sweep-NETWORK-DATA.", rich_help_panel=o.RUNNING),
    ] = None,
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train over a grid of batch sizes and learning rates, and say which do best and how sure that is."""
    made = {"problem": problem, "data": data, "network": network, "loss": loss, "random_labels": random_labels}
    values = {
        "batch_size": batch,
        "lr": lr,
        "momentum": momentum,
        "train_size": train_size,
        "seed": seed_range(seeds, seed),
    }
    values |= further(grid or [], values | {"budget": budget, "optimizer": optimizer})
    shared = {
        "optimizer": optimizer,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "milestones": milestones,
        "drop_last": drop_last,
        "warmup": warmup,
        "ghost_batch": ghost_batch,
        "augment": augment,
        "dtype": dtype,
        "set": set_,
    }
    rules = {
        "budget": budget,
        "lr_follows": lr_follows,
        "extend": extension(extend, every=extend_all),
        "validation": validation,
        "metric": select,
        "evaluations": evaluations,
        "weights": weights or None,
    }
    plan = (
        from_file(file, recipe, made | values | shared | rules)
        if file
        else from_options(made, values, recipe, shared, rules=rules)
    )
    if plan.problem.factory:
        import_from_here()
    folder = out or default_folder("sweep", name_of(plan))
    check_folder(folder, resume=resume or dry_run)
    means = {
        "engine": engine,
        "workers": workers,
        "options": o.settings(engine_option or [], "--engine-option"),
        "device": device,
        "data_root": data_root,
    }
    execute(plan, folder, means, threads=threads, dry_run=dry_run, json=json, quiet=quiet)


def seed_range(seeds: int | None, first: int | None) -> list[int] | None:
    """Give the seeds, or None where neither their number nor the first one was given."""
    if seeds is None and first is None:
        return None
    return list(range(first or 0, (first or 0) + (seeds or 5)))


def further(given: list[str], named: dict[str, Any]) -> dict[str, str]:
    """Read --grid.

    Args:
        given: FIELD=VALUES.
        named: options for fields of the grid; None: not given.

    Returns:
        Values by field.

    Raises:
        BadInput: a field has an option that was given too.
    """
    found = o.assignments(given, "--grid")
    if twice := [field for field in found if named.get(field) is not None]:
        raise BadInput(f"{twice[0]} is in --grid and in an option of its own; leave it in one of them")
    return found


def extension(limit: int | None, *, every: bool) -> dict[str, Any] | None:
    """Give how grids may grow; None where nothing was said of it."""
    given = ({} if limit is None else {"limit": limit}) | ({"all": True} if every else {})
    return given or None


def from_file(file: Path, recipe: Path | None, given: dict[str, Any]) -> Any:
    """Read a sweep file.

    Args:
        file: of the sweep.
        recipe: that may not be given beside it.
        given: options that a file decides, by field.

    Returns:
        The `Sweep`.

    Raises:
        BadInput: one of these options was given too, or the file cannot be used.
    """
    from gengap.studies.sweep import read_sweep

    beside = [name for name, value in {**given, "recipe": recipe}.items() if value is not None and value is not False]
    if beside:
        raise BadInput(
            f"{file} says all of the sweep; leave {beside[0].replace('_', '-')} out, or change it in the file"
        )
    return read_sweep(file)


def from_options(
    made: dict[str, Any], values: dict[str, Any], recipe: Path | None, shared: dict[str, Any], *, rules: dict[str, Any]
) -> Any:
    """Make a sweep of the options.

    Args:
        made: what says which problem it is.
        values: of the grid, by field; None: not given.
        recipe: file of shared fields, or None.
        shared: options for shared fields.
        rules: everything else of a sweep; None: its default.

    Returns:
        The `Sweep`.

    Raises:
        BadInput: an option cannot be used.
    """
    from gengap.studies.sweep import Sweep

    fields = o.recipe_fields(recipe, **shared, epochs=None, steps=None, converged=False)
    lines = {name: value for name, value in values.items() if value is not None}
    for name, value in DEFAULTS.items():
        trained_by = lines.get("optimizer", fields.get("optimizer", "sgd"))
        suits = name != "lr" or trained_by == "sgd"  # other optimizers have other scales
        if name not in fields and suits:
            lines.setdefault(name, value)
    fields = {name: value for name, value in fields.items() if name not in lines}
    own = fields.pop("budget", None)
    budget = rules["budget"] or (None if "budget" in lines else own or "epochs=30")
    if isinstance(budget, str) and any(mark in budget for mark in ":,"):
        lines["budget"], budget = budget, None
    chosen = {name: value for name, value in rules.items() if value is not None} | {"budget": budget}
    plan = Sweep(problem=problem_spec(**made), grid=lines, recipe=fields, **chosen)
    plan.check()
    return plan


def name_of(plan: Any) -> str:
    """Name the folder of a sweep after its problem."""
    spec = plan.problem
    return f"{spec.network}-{spec.data}" if spec.network else str(spec.data or spec.factory or spec.name)


def execute(
    plan: Any, folder: Path, means: dict[str, Any], *, threads: int | None, dry_run: bool, json: bool, quiet: bool
) -> None:
    """Make a sweep, show what it found, and write the report."""
    from gengap.exploration.sweep import explore
    from gengap.report.sweep.terminal import print_sweep
    from gengap.sweeps.problem_sizes import Problems
    from gengap.sweeps.ways import Means

    chosen = Means(**means)
    problems = Problems(plan.problem, validation=plan.validation, data_root=chosen.data_root)
    use_threads(threads, problems.of(plan.cells()[0].get("train_size")))
    if dry_run:
        show_forecast(plan, problems, folder, device=chosen.device, json=json)
        return
    how: dict[str, Any] = {"means": chosen, "command": command_line()}
    found, page = reported(lambda listen: explore(plan, problems, folder, listen=listen, **how), folder, quiet=quiet)
    present(found, page, print_sweep, json=json)
    if found.failures:
        raise typer.Exit(DONE_WITH_FAILURES)


def show_forecast(plan: Any, problems: Any, folder: Path, *, device: str, json: bool) -> None:
    """Print the runs that are missing and the time they should take."""
    from gengap.exploration.sweep import check_same
    from gengap.sweeps.sweep_forecast import forecast_sweep, most_growth
    from gengap.sweeps.sweep_plan import make_plan

    cells = make_plan(plan, problems)
    check_same(cells.sweep, folder)
    say("timing a few updates of each kind ...")
    with store_there(folder) as store:
        rows = forecast_sweep(cells, store, device=device)
    runs, total, growth = sum(row.count for row in rows), sum(row.seconds for row in rows), most_growth(cells)
    if json:
        found = {"work": work(rows), "runs": runs, "seconds": total, "most_growth": growth, "notes": list(cells.notes)}
        print_json(found | {"sweep": cells.sweep.to_toml()})
        return
    from gengap.report.numbers import seconds

    print(cells.sweep.to_toml())
    for note in cells.notes:
        print(note)
    print_rows(rows)
    more = f", and at most {growth:,} more where the best learning rate is at the edge of its grid" if growth else ""
    print(f"{runs:,} runs, about {seconds(total)} one after the other on this machine{more}; nothing was trained")
