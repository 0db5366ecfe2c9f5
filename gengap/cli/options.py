"""Options that several commands share, worded once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.core.errors import BadInput

PROBLEM, RECIPE, MEASURES, RUNNING = "Problem", "Recipe", "Measures", "Running"
EXAMPLES = {"--grid": "weight_decay=0,0.0005", "--engine-option": "num_cpus=2"}

Data = Annotated[
    str | None, typer.Option(help="Data set of the catalogue (gengap list data).", rich_help_panel=PROBLEM)
]
Network = Annotated[
    str | None, typer.Option(help="Network of the catalogue; by default the one of the data.", rich_help_panel=PROBLEM)
]
Loss = Annotated[
    str | None, typer.Option(help="cross_entropy, binary_cross_entropy or mean_square.", rich_help_panel=PROBLEM)
]
Factory = Annotated[
    str | None,
    typer.Option(
        "--problem", help="package.module:function that returns a gengap.Problem of yours.", rich_help_panel=PROBLEM
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with the data in torchvision's layout.", envvar="GENGAP_DATA", rich_help_panel=PROBLEM),
]
TrainSize = Annotated[
    int | None,
    typer.Option(
        help="Training samples, drawn from all; a smaller choice is part of a larger.", rich_help_panel=PROBLEM
    ),
]
RandomLabels = Annotated[
    float | None,
    typer.Option(
        help="Share of the training labels that are drawn anew, 0 to 1.", min=0, max=1, rich_help_panel=PROBLEM
    ),
]

RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", help="JSON or TOML file with recipe fields; options win.", rich_help_panel=RECIPE),
]
Optimizer = Annotated[
    str | None, typer.Option(help="Of gengap list optimizers. Default: adam.", rich_help_panel=RECIPE)
]
Lr = Annotated[float | None, typer.Option(help="Learning rate. Default: 0.001 for adam.", rich_help_panel=RECIPE)]
Momentum = Annotated[
    float | None, typer.Option(help="Momentum of sgd, rmsprop, lars, kfac, rmsprop-warmup.", rich_help_panel=RECIPE)
]
Nesterov = Annotated[bool, typer.Option("--nesterov", help="Nesterov's form of momentum.", rich_help_panel=RECIPE)]
WeightDecay = Annotated[float | None, typer.Option(help="L2 coefficient on the mean loss.", rich_help_panel=RECIPE)]
Schedule = Annotated[
    str | None, typer.Option(help="Of gengap list schedules. step: with --milestones.", rich_help_panel=RECIPE)
]
Milestones = Annotated[
    str | None, typer.Option(help="Epochs at which lr is divided by 10, for example 30,60.", rich_help_panel=RECIPE)
]
DropLast = Annotated[
    bool, typer.Option("--drop-last", help="Leave out an epoch's smaller last batch.", rich_help_panel=RECIPE)
]
Warmup = Annotated[float | None, typer.Option(help="Linear warm-up from 0, in epochs.", rich_help_panel=RECIPE)]
Epochs = Annotated[int | None, typer.Option(help="Budget in epochs.", rich_help_panel=RECIPE)]
Steps = Annotated[int | None, typer.Option(help="Budget in updates.", rich_help_panel=RECIPE)]
UntilConverged = Annotated[
    bool, typer.Option("--converged", help="Train until the training loss stops falling.", rich_help_panel=RECIPE)
]
MicroBatch = Annotated[
    str | None,
    typer.Option(
        help="Accumulate batches from pieces of this size, or auto: as memory allows.", rich_help_panel=RECIPE
    ),
]
GhostBatch = Annotated[
    int | None, typer.Option(help="Samples that batch norm normalises together.", rich_help_panel=RECIPE)
]
ClipNorm = Annotated[
    float | None, typer.Option(help="Length to which longer gradients are cut.", rich_help_panel=RECIPE)
]
Method = Annotated[
    str | None,
    typer.Option(help="Of gengap list methods, for example sam.", rich_help_panel=RECIPE),
]
Augment = Annotated[str | None, typer.Option(help="Of gengap list augmentations.", rich_help_panel=RECIPE)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Any field of a recipe, as FIELD=JSON; may be given several times.", rich_help_panel=RECIPE
    ),
]
Dtype = Annotated[str | None, typer.Option(help="float32, float64 or bf16 (autocast).", rich_help_panel=RECIPE)]
MemoryFormat = Annotated[str | None, typer.Option(help="contiguous or channels_last.", rich_help_panel=RECIPE)]

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...", rich_help_panel=RUNNING)]
Threads = Annotated[
    int | None,
    typer.Option(
        help="torch threads. Default: 1 for networks below 200,000 weights, else torch's own.",
        min=1,
        rich_help_panel=RUNNING,
    ),
]
Evaluations = Annotated[
    int, typer.Option(help="Measurements of loss and accuracy while training.", min=1, rich_help_panel=RUNNING)
]
Shard = Annotated[
    bool,
    typer.Option(
        "--shard",
        help="Under torchrun: spread weights, gradients and the optimizer's memory over the processes.",
        rich_help_panel=RUNNING,
    ),
]
NoiseScale = Annotated[
    bool,
    typer.Option(
        "--noise-scale", help="Read the gradient noise scale while training; same weights.", rich_help_panel=RUNNING
    ),
]
NoiseOverhead = Annotated[
    float,
    typer.Option(help="Share of the time that --noise-scale may take; 1: read every update.", rich_help_panel=RUNNING),
]
Engine = Annotated[
    str, typer.Option(help="solo, fleet, pool, ray, slurm, or auto: what is fastest here.", rich_help_panel=RUNNING)
]
Workers = Annotated[int | None, typer.Option(help="Of pool, ray and slurm.", min=1, rich_help_panel=RUNNING)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the results in --out.", rich_help_panel=RUNNING)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the runs and the estimated time, and stop.", rich_help_panel=RUNNING)
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.", rich_help_panel=RUNNING)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.", rich_help_panel=RUNNING)]


def validation(panel: str, more: str = "") -> Any:
    """Word --validation for the panel of a command."""
    text = f"Training samples held out to choose by: a share below 1, or how many{more}."
    return typer.Option(help=text, min=0, rich_help_panel=panel)


def seeds(panel: str | None = None, more: str = "") -> Any:
    """Word --seeds for the panel of a command."""
    return typer.Option(help=f"How many seeds{more}.", min=1, rich_help_panel=panel)


def first_seed(panel: str | None = None, more: str = "") -> Any:
    """Word --seed for the panel of a command that takes several."""
    return typer.Option(help=f"The first seed{more}.", min=0, rich_help_panel=panel)


def recipe_fields(path: Path | None, **options: Any) -> dict[str, Any]:
    """Join a recipe file and options; options that were not given are None or False.

    Args:
        path: of a JSON or TOML file, or None.
        options: as the shared options name them.

    Returns:
        Fields for a recipe.

    Raises:
        BadInput: the file cannot be read, or more than one budget was given.
    """
    fields = read_fields(path) if path else {}
    fields |= settings(options.pop("set") or [])
    options["micro_batch"] = batch(options.get("micro_batch"))
    epochs, steps, converged = (options.pop(name, None) for name in ("epochs", "steps", "converged"))
    given: dict[str, Any] = {"epochs": epochs, "steps": steps, "converged": {} if converged else None}
    budgets = [{name: value} for name, value in given.items() if value is not None]
    if len(budgets) > 1:
        raise BadInput("more than one budget was given; choose one of --epochs, --steps and --converged")
    if budgets:
        fields["budget"] = budgets[0]
    warmup = options.pop("warmup", None)
    if warmup is not None:
        fields["warmup"] = {"epochs": warmup}
    milestones, schedule = options.pop("milestones", None), options.get("schedule")
    if milestones is not None and schedule not in {None, "step"}:
        raise BadInput(f"--milestones goes with the schedule step, not with {schedule}; give one of them")
    if milestones is not None:
        options["schedule"] = {"name": "step", "milestones": numbers(milestones, "--milestones", "30,60")}
    return fields | {name: value for name, value in options.items() if value is not None and value is not False}


def settings(given: list[str], name: str = "--set") -> dict[str, Any]:
    """Read FIELD=JSON.

    Args:
        given: for example 'ghost_batch=128' or 'method={"name": "sam", "rho": 0.1}'; what is no JSON is a word.
        name: of the option.

    Returns:
        Values by field.

    Raises:
        BadInput: one has no equals sign.
    """
    import json

    found: dict[str, Any] = {}
    for field, text in assignments(given, name).items():
        try:
            found[field] = json.loads(text)
        except json.JSONDecodeError:
            found[field] = text
    return found


def assignments(given: list[str], name: str) -> dict[str, str]:
    """Read FIELD=VALUE.

    Args:
        given: such texts.
        name: of the option.

    Returns:
        Values by field, as text.

    Raises:
        BadInput: one has no equals sign.
    """
    found = {}
    for one in given:
        field, equals, text = one.partition("=")
        if not equals or not field.strip():
            example = EXAMPLES.get(name, "ghost_batch=128")
            raise BadInput(f"{name} {one!r} sets nothing; write FIELD=VALUE, for example {name} {example}")
        found[field.strip()] = text.strip()
    return found


def numbers(text: str, name: str, example: str) -> list[float]:
    """Read "30,60" as numbers.

    Args:
        text: numbers with commas between them.
        name: of the option.
        example: what can be given.

    Returns:
        The numbers.

    Raises:
        BadInput: something else stands between the commas.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInput(f"{name} is {text!r}; write numbers with commas between them, for example {example}") from error


def words(text: str | None) -> tuple[str, ...]:
    """Split "a, b" into its words; nothing has none."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def batch(text: str | None) -> int | str | None:
    """Read a batch size: a number or a word."""
    return int(text) if text and text.isdecimal() else text


def read_fields(path: Path) -> dict[str, Any]:
    """Read a recipe file.

    Args:
        path: TOML where it ends so, else JSON.

    Returns:
        Its fields.

    Raises:
        BadInput: it cannot be read, or holds no table.
    """
    import json
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        fields = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise BadInput(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{path} is neither valid JSON nor, with the ending .toml, valid TOML: {error}") from error
    if not isinstance(fields, dict):
        raise BadInput(f"{path} holds a {type(fields).__name__}; a recipe file holds a table of fields")
    return fields


def batch_sizes(text: str | None) -> list[int] | None:
    """Read --batch.

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


def one_recipe(fields: dict[str, Any]) -> Any:
    """Make the recipe of a command that trains one run.

    Args:
        fields: of `recipe_fields`.

    Returns:
        The `Recipe`, of batch 32 where no size is given.

    Raises:
        BadInput: a field cannot be used.
    """
    from gengap.comparison.question import recipe_fields as with_defaults
    from gengap.core.recipe import Recipe

    return Recipe(**{"batch_size": 32, **fields, **with_defaults(fields, 20)})
