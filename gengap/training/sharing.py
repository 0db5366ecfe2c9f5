"""What sharing a batch between processes means for a recipe: refused where it cannot be, said where it is not as alone."""

from collections.abc import Iterator

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.seeds import stream
from gengap.problem.problem import Problem
from gengap.schedules.batch import epoch_sizes
from gengap.training.batches import kept_together
from gengap.training.ranks import Ranks


def check_sharing(problem: Problem, recipe: Recipe, ranks: Ranks) -> None:
    """Refuse what several processes cannot do together.

    Args:
        problem: as made on this process.
        recipe: resolved.
        ranks: the processes.

    Raises:
        BadInput: on all of them, where the problem or the recipe is not the same everywhere, or where kfac finds a process
            without samples to estimate curvature from.
    """
    if ranks.size == 1:
        return
    least = min(epoch_sizes(recipe, 0, training=len(problem.samples("train"))))
    if recipe.optimizer == "kfac" and least < ranks.size:
        raise BadInput(
            f"a batch of {least} samples leaves one of {ranks.size} processes without any, and kfac averages the curvature that "
            f"each of them sees; set drop_last, or choose another batch_size or fewer processes"
        )
    mine = [problem.fingerprint, recipe.key]
    same = mine == ranks.first(lambda: mine)
    (worst,) = ranks.largest([0 if same else 1 + ranks.rank])
    if worst:
        raise BadInput(
            f"rank {int(worst) - 1} has another problem or recipe than rank 0; give all processes the same code, data and options"
        )


def told_of_sharing(recipe: Recipe, ranks: Ranks, micro_batch: int | None) -> Iterator[str]:
    """Say how a batch is divided, where that is not plain from the recipe.

    Args:
        recipe: resolved.
        ranks: the processes.
        micro_batch: samples that go through the network at once, as chosen.

    Yields:
        Sentences.
    """
    if recipe.micro_batch == "auto" and micro_batch is not None:
        yield f"micro_batch auto: {micro_batch:,} samples go through the network at once"
    if micro_batch and recipe.norm_span != "rank" and ranks.size > 1:
        yield (
            f"batch norm, where there is any, goes over the pieces of all {ranks.size} processes, "
            f"{ranks.size * micro_batch:,} samples at once; set batch_norm='rank' for the pieces of one process"
        )
    size = int(recipe.batch_size)
    unit = kept_together(recipe, size)
    if ranks.size > (units := -(-size // unit)):
        stay = f", {unit} of which stay together" if unit > 1 else ""
        yield f"only {units} of {ranks.size} processes have work: a batch has {size:,} samples{stay}"


def dropout_seed(recipe: Recipe, ranks: Ranks, *step: int) -> int:
    """Give the seed of this process's dropout masks: with several processes each draws its own.

    Args:
        recipe: its seed.
        ranks: the processes.
        step: updates made before, on a process that was not there for them.

    Returns:
        A seed.
    """
    return stream(recipe.seed, "dropout", *([ranks.rank] if ranks.size > 1 else []), *step)
