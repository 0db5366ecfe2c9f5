"""gengap train: one run."""

import json as json_lib
from pathlib import Path
from typing import Annotated, Any

import typer

from gengap.cli import options as o
from gengap.cli.output import DONE_WITH_FAILURES, Reporter, print_json, say
from gengap.cli.problem import make_problem, use_threads
from gengap.cli.processes import current_ranks, together
from gengap.core.errors import BadInput, Interrupted


@together
def train(
    *,
    data: o.Data = None,
    network: o.Network = None,
    problem: o.Factory = None,
    loss: o.Loss = None,
    data_root: o.DataRoot = None,
    train_size: o.TrainSize = None,
    validation: Annotated[float | None, o.validation(o.PROBLEM)] = None,
    random_labels: o.RandomLabels = None,
    batch_size: Annotated[
        str | None,
        typer.Option(help="A number, or a share of the training set. Default: 32.", rich_help_panel=o.RECIPE),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order and dropout. Default: 0.", min=0, rich_help_panel=o.RECIPE)
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
    evaluations: o.Evaluations = 20,
    snapshots: Annotated[
        int | None,
        typer.Option(
            help="Keep the weights at so many updates, evenly spaced in the logarithm, in snapshots/.",
            min=2,
            rich_help_panel=o.RUNNING,
        ),
    ] = None,
    shard: o.Shard = False,
    noise_scale: o.NoiseScale = False,
    noise_overhead: o.NoiseOverhead = 0.03,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    out: Annotated[Path, typer.Option(help="Folder for the run.", rich_help_panel=o.RUNNING)] = Path("results/train"),
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train once, with batches shared under torchrun; keep the weights (params.safetensors) and the history (run.json)."""
    fields = o.recipe_fields(
        recipe,
        batch_size=o.batch(batch_size),
        seed=seed,
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
    checkpoint = out / "checkpoint.safetensors"
    ranks = current_ranks()
    if ranks.rank == 0 and checkpoint.exists() and not (resume or dry_run):
        raise BadInput(f"{out} holds a run already; go on with it by --resume, or choose another folder by --out")
    made = make_problem(
        problem,
        data,
        network,
        loss,
        data_root,
        train_size=train_size,
        validation=validation or None,
        random_labels=random_labels,
    )
    use_threads(threads, made)
    from gengap.sweeps.plan import check_left_over
    from gengap.training.snapshots import Probe, SnapshotFolder
    from gengap.training.solo import train as run_training

    whole = o.one_recipe(fields)
    made.check()
    check_left_over(made, whole.resolved(len(made.samples("train"))))
    if dry_run:
        if ranks.rank == 0:
            show_plan(made, whole, device, evaluations, json=json)
        return
    how: dict[str, Any] = {"device": device, "evaluations": evaluations, "checkpoint": checkpoint, "ranks": ranks}
    how |= {"shard": shard, "noise_scale": noise_scale, "noise_overhead": noise_overhead}
    if snapshots:
        how["probe"] = Probe(SnapshotFolder(out / "snapshots"), count=snapshots)
    with Reporter(quiet or ranks.rank > 0) as reporter:
        run = run_training(made, whole, **how, listen=reporter)
    if run.outcome.kind == "interrupted":
        raise Interrupted(f"{run}; go on with --resume")
    if ranks.rank == 0:
        keep(run, out, json=json)


def keep(run: Any, out: Path, *, json: bool) -> None:
    """Write a run to its folder and print it.

    Args:
        run: finished or diverged.
        out: the folder.
        json: print JSON.

    Raises:
        Exit: it is not finished.
    """
    from gengap.core.files import write_text
    from gengap.store.artefacts import save_arrays

    for name, part in (("params", run.params), ("initial_params", run.initial_params), ("buffers", run.buffers)):
        save_arrays(out / f"{name}.safetensors", {key: value.cpu().numpy() for key, value in part.items()})
    write_text(out / "run.json", json_lib.dumps(run.to_dict(), indent=2))
    if json:
        print_json(run.to_dict())
    else:
        print(run)
        for reading in run.noise_scale[-1:]:
            print(reading)
    say(f"run: {out}")
    if run.outcome.kind != "finished":
        raise typer.Exit(DONE_WITH_FAILURES)


def show_plan(problem: Any, recipe: Any, device: str, evaluations: int, *, json: bool) -> None:
    """Print the recipe and the time that the run should take."""
    from gengap.report.numbers import seconds
    from gengap.sweeps.forecast import run_seconds

    say("timing a few updates ...")
    resolved = recipe.resolved(len(problem.samples("train")))
    total, detail = run_seconds(problem, resolved, device, evaluations)
    if json:
        print_json({"recipe": resolved.model_dump(mode="json"), "seconds": total, "detail": detail})
        return
    print(resolved.to_json())
    print(f"about {seconds(total)} on this machine: {detail}; nothing was trained")
