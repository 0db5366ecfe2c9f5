"""What is looked at before a comparison begins, so that bad input leaves nothing behind."""

import tomllib
from pathlib import Path

from gengap.core.errors import BadInput
from gengap.problem.problem import Problem
from gengap.studies.study import Study, read_study
from gengap.sweeps.plan import tasks
from gengap.training.rehearsal import rehearse

STUDY = "study.toml"


def check_recipes(study: Study, problem: Problem) -> None:
    """Refuse what would only be found when its turn comes: a remedy twice, or one that the network or the data cannot have.

    Args:
        study: to be run.
        problem: what is learnt.

    Raises:
        BadInput: a recipe cannot train the problem; a remedy is named.
    """
    one_of_each = {(task.variant, task.recipe.batch_size): task for task in tasks(study, problem)}
    for task in one_of_each.values():
        try:
            rehearse(problem, task.recipe)
        except BadInput as error:
            raise BadInput(f"{task.variant}: {error}" if task.variant else str(error)) from error


def check_sizes(study: Study, problem: Problem) -> None:
    """Refuse a study that compares anything but two batch sizes over seeds.

    Args:
        study: to be run.
        problem: says what a share of the training set is.

    Raises:
        BadInput: it has another number of batch sizes, varies something else too, or has a recipe that does not fit.
    """
    sizes = sorted({int(task.recipe.batch_size) for task in tasks(study, problem) if not task.variant})
    if len(sizes) != 2:
        raise BadInput(f"a comparison needs two batch sizes; this study has {sizes}")
    others = [field for field, values in study.grid.items() if len(values) > 1 and field not in {"batch_size", "seed"}]
    if others:
        raise BadInput(
            f"a comparison varies batch_size and seed; this study also varies {', '.join(others)}: give one value each"
        )


def check_same(study: Study, out: Path) -> None:
    """Refuse to put a comparison of other things into a folder that holds one.

    Args:
        study: to be run.
        out: its folder.

    Raises:
        BadInput: problem, recipe or batch sizes differ; seeds and measures may.
    """
    if not (out / STUDY).exists():
        return
    old, study = read_study(out / STUDY), Study(**tomllib.loads(study.to_toml()))
    for what, ours, theirs in (
        ("problems", study.problem, old.problem),
        ("recipe fields", study.recipe, old.recipe),
        ("batch sizes", study.grid.get("batch_size"), old.grid.get("batch_size")),
    ):
        if ours != theirs:
            raise BadInput(f"{out} holds a comparison with other {what} ({theirs}); choose another folder by --out")


def with_stored_remedies(study: Study, out: Path) -> Study:
    """Add the remedies that a folder holds already: they come first, in their order, and new ones after them."""
    if not (out / STUDY).exists():
        return study
    merged = {variant.name: variant for variant in (*read_study(out / STUDY).variant, *study.variant)}
    return study.model_copy(update={"variant": tuple(merged.values())})
