"""What all processes but the first do while that one works through a study: train what it trains."""

import torch

from gengap.core.errors import Interrupted
from gengap.problem.problem import Problem
from gengap.studies.study import Study
from gengap.sweeps.measuring import describe
from gengap.sweeps.plan import tasks
from gengap.training.ranks import Ranks
from gengap.training.solo import train

NOWHERE = "checkpoint"  # rank 0 alone opens the file that this stands for


def follow(study: Study, problem: Problem, *, device: str | torch.device, ranks: Ranks) -> None:
    """Share the batches of every run that rank 0 makes, until it has nothing more to do.

    Args:
        study: the same as on rank 0.
        problem: the same as on rank 0.
        device: where to train.
        ranks: of which this is not the first.

    Raises:
        Interrupted: somebody asked to stop.
        LostRank: another process is gone.
    """
    recipes = {task.key: task.recipe for task in tasks(study, problem)}
    while (key := ranks.next_word()) is not None:
        run = train(
            problem, recipes[key], device=device, evaluations=study.evaluations, checkpoint=NOWHERE, ranks=ranks
        )
        if run.outcome.kind == "interrupted":
            raise Interrupted(f"interrupted in {describe(recipes[key].model_dump())} at step {run.outcome.step:,}")
