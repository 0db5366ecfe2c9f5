"""From a study to runs: make the problem, list the runs, see which are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gengap.core.catalogue import resolve
from gengap.core.errors import BadInput, GengapError
from gengap.core.recipe import Recipe, batch_samples, digest
from gengap.core.recipe.schedules import BatchDynamic
from gengap.problem.load import load
from gengap.problem.problem import Origin, Problem
from gengap.problem.trees import feed
from gengap.schedules.batch import epoch_sizes
from gengap.schedules.budget import plan
from gengap.store.rows import RunRow
from gengap.store.store import Store
from gengap.studies.study import ProblemSpec, Study
from gengap.sweeps.resizing import resized
from gengap.training.batches import shares
from gengap.training.ranks import ALONE


@dataclass(frozen=True, slots=True)
class Task:
    """One run to be made.

    Attributes:
        key: hash of problem and recipe: its name in the store.
        recipe: resolved for the problem's training set.
        variant: name of the study's variant it belongs to; "" for a cell of the grid.
    """

    key: str
    recipe: Recipe
    variant: str = ""


def make_problem(spec: ProblemSpec, root: str | Path | None = None) -> Problem:
    """Make the problem that a study names.

    Args:
        spec: of the study.
        root: folder with the data; by default the environment variable GENGAP_DATA.

    Returns:
        The problem.

    Raises:
        BadInput: the problem was made in Python and cannot be made again from its name, or its factory raises an error or
            gives no Problem.
    """
    if spec.data:
        return load(spec.data, network=spec.network, root=root, loss=spec.loss, **spec.options)
    if not spec.factory:
        raise BadInput(
            f"the problem {spec.name!r} was made in a Python program; put it into a function and name that as "
            f'factory = "package.module:function" in the study'
        )
    factory = resolve(spec.factory)
    try:
        made = factory()
    except Exception as error:  # a user's function may raise anything
        if isinstance(error, GengapError):
            raise
        raise BadInput(f"{spec.factory} raised {type(error).__name__}: {error}") from error
    if not isinstance(made, Problem):
        raise BadInput(f"{spec.factory} returned a {type(made).__name__}; it must return a gengap.Problem")
    named = made.with_origin(Origin(factory=spec.factory, options=tuple(sorted(spec.options.items()))))
    return resized(named, **spec.options)


def spec_of(problem: Problem) -> ProblemSpec:
    """Say how a problem can be made again."""
    origin = problem.origin
    if origin.factory:
        return ProblemSpec(factory=origin.factory, options=dict(origin.options))
    if origin.data is None:
        return ProblemSpec(name=problem.name)
    return ProblemSpec(data=origin.data, network=origin.network, loss=problem.loss.name, options=dict(origin.options))


def tasks(study: Study, problem: Problem) -> list[Task]:
    """List the runs of a study, seeds outermost so that pairs are finished early.

    Args:
        study: with a grid of recipes.
        problem: what is learnt.

    Returns:
        One task per different recipe.

    Raises:
        BadInput: a recipe does not fit the problem, for example a batch larger than the training set.
    """
    samples = len(problem.samples("train"))
    named = [("", recipe) for recipe in study.recipes()] + study.variants()
    resolved = [(name, recipe.resolved(samples)) for name, recipe in named]
    found: dict[str, Task] = {}
    for name, recipe in sorted(resolved, key=lambda one: one[1].seed):
        check_left_over(problem, recipe)
        key = run_key(problem, recipe)
        if key in found:
            if name:
                raise BadInput(f"{name} changes nothing: it is the same recipe as {found[key].variant or 'without it'}")
            continue
        found[key] = Task(key, recipe, name)
    return list(found.values())


def check_left_over(problem: Problem, recipe: Recipe) -> None:
    """Refuse a recipe that leaves one sample over for a network that cannot normalise one.

    Args:
        problem: what is learnt.
        recipe: resolved.

    Raises:
        BadInput: a batch, or a piece of one, has one sample, and batch norm cannot do with it.
    """
    if 1 not in piece_sizes(recipe, len(problem.samples("train"))) or not problem.has_batch_norm:
        return
    inputs, _ = problem.first("train", 1)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            feed(problem.model(seed=0).train(), inputs)
    except ValueError as error:
        raise BadInput(
            f"batch_size {recipe.batch_size:,}"
            + (f" in pieces of {recipe.micro_batch}" if recipe.micro_batch else "")
            + (f" in ghosts of {recipe.ghost_batch}" if recipe.ghost_batch else "")
            + f" makes a batch of one of the {len(problem.samples('train')):,} samples, which batch norm cannot normalise; "
            "set drop_last, or choose another batch_size or micro_batch"
        ) from error


def piece_sizes(recipe: Recipe, samples: int) -> set[int]:
    """List the sizes of what goes through the network at once while training."""
    size, numbers, piece = int(recipe.batch_size), plan(recipe, samples), recipe.micro_batch
    batches = {size}
    if recipe.batch_schedule:
        ends = range(len(numbers.epoch_ends))
        batches = {each for epoch in ends for each in epoch_sizes(recipe, epoch, training=samples)}
    elif not recipe.drop_last and numbers.steps >= numbers.per_epoch:
        batches.add(samples % size)
    batches = {stop - start for b in batches for start, stop in shares(recipe, ALONE, b)}
    if isinstance(recipe.batch_schedule, BatchDynamic):
        batches = {half for b in batches for half in (b // 2, b - b // 2)}
    if isinstance(piece, int):
        batches = {part for b in batches for part in (min(b, piece), b % piece)}
    if recipe.ghost_batch and not recipe.quirks:
        ghost = recipe.ghost_batch
        batches = {part for b in batches for part in ((b,) if b <= ghost else (ghost, b % ghost))}
    return batches - {0}


def resolve_sizes(study: Study, problem: Problem) -> Study:
    """Give the study with numbers in place of shares of the training set, in its grid and in its claims."""
    number = partial(batch_samples, samples=len(problem.samples("train")))
    fields = study.model_dump(mode="json")
    if "batch_size" in fields["grid"]:
        fields["grid"]["batch_size"] = [number(size) for size in fields["grid"]["batch_size"]]
    for variant in fields["variant"]:
        if "batch_size" in variant["where"]:
            variant["where"]["batch_size"] = number(variant["where"]["batch_size"])
    for claim in fields["claim"]:
        if claim["compare"] and "batch_size" in claim["compare"]:
            claim["compare"]["batch_size"] = [number(size) for size in claim["compare"]["batch_size"]]
        if claim["where"] and "batch_size" in claim["where"]:
            claim["where"]["batch_size"] = number(claim["where"]["batch_size"])
    return Study(**fields)


def run_key(problem: Problem, recipe: Recipe) -> str:
    """Name a run: a hash of the problem's fingerprint and the recipe's key."""
    return digest([problem.fingerprint, recipe.key])


def missing(todo: Sequence[Task], store: Store) -> list[Task]:
    """Give the tasks that have no run in the store, or only one that failed or lost its weights."""
    return [task for task in todo if usable_run(store, task.key) is None]


def usable_run(store: Store, key: str, *, weights: bool = True) -> RunRow | None:
    """Give a run that need not be made again, with its weights where they are wanted; None where there is none."""
    row = store.run(key)
    return row if row is not None and is_usable(row, store, weights=weights) else None


def is_usable(row: RunRow, store: Store, *, weights: bool) -> bool:
    """Tell whether a run need not be made again: it did not fail, and its weights are there where they are wanted."""
    return row.outcome == "diverged" or (row.outcome == "finished" and not (weights and not store.has_weights(row.key)))


def facts(problem: Problem) -> dict[str, Any]:
    """Describe a problem for the ledger."""
    origin = problem.origin
    held = {"validation_samples": len(problem.samples("validation"))} if "validation" in problem.splits else {}
    return {
        "name": problem.name,
        "data": origin.data or problem.name,
        "network": origin.network or problem.name,
        "loss": problem.loss.name,
        "train_samples": len(problem.samples("train")),
        "test_samples": len(problem.samples("test")),
        **held,
        "parameters": problem.parameters,
        "has_batch_norm": problem.has_batch_norm,
    }
