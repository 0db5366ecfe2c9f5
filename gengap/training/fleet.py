"""`train_fleet`: runs of equal shapes trained as one program, every member equal to the same run alone.

A small network is so quick that most of the time goes into calling operations, not into arithmetic. A fleet stacks K such runs
and calls every operation once for all of them. Order of samples, initial weights, dropout masks, statistics of batch norm,
learning rate, momentum and weight decay are each member's own; what shapes the program must be equal (`fleet_key`).
"""

from collections.abc import Sequence

import torch

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.training.fleet_key import fleet_key
from gengap.training.fleet_loop import Fleet
from gengap.training.interrupt import stop_on_interrupt
from gengap.training.run import Run
from gengap.training.solo import explained, find_device

__all__ = ["fleet_key", "train_fleet"]


def train_fleet(
    problem: Problem,
    recipes: Sequence[Recipe],
    *,
    device: str | torch.device = "cpu",
    evaluations: int = 20,
    listen: Listener = silent,
) -> list[Run]:
    """Train a problem by several recipes at once.

    A member that diverges or converges leaves; the others go on. torch's global random generator is not used. Numbers equal
    those of `gengap.train` up to rounding: in float64 to about 1e-12 at the start, and further apart the longer a run amplifies
    such differences.

    Args:
        problem: what is learnt, held in memory.
        recipes: at least one, all with the same `fleet_key`: they may differ in lr, momentum, weight_decay and seed.
        device: "cpu", "cuda", ...
        evaluations: how often, at most, train and test loss are measured on the way.
        listen: told of the progress.

    Returns:
        The runs, in the order of the recipes. The time in `cost` is shared out over the members that were at work. Ctrl-C
        gives "interrupted" for those that had not ended.

    Raises:
        BadInput: recipes do not belong to one fleet, a batch is larger than the training set, or the loss of an untrained
            network is not finite.
    """
    if evaluations < 1:
        raise BadInput(f"evaluations is {evaluations}; measure at least once, at the end")
    place = find_device(device)
    resolved = [recipe.resolved(len(problem.samples("train"))) for recipe in recipes]
    check_alike(problem, resolved, place)
    with stop_on_interrupt() as stop:
        fleet = Fleet(problem, resolved, place, evaluations=evaluations, listen=listen)
        fleet.begin()
        with explained():
            fleet.run(stop)
    return fleet.results()


def check_alike(problem: Problem, recipes: Sequence[Recipe], device: torch.device) -> None:
    """Refuse recipes that do not belong to one fleet.

    Args:
        problem: what is learnt.
        recipes: resolved.
        device: where they would be trained.

    Raises:
        BadInput: there are none, one cannot be in a fleet, or two cannot be in the same.
    """
    keys = [fleet_key(problem, recipe, device=device) for recipe in recipes]
    if not keys:
        raise BadInput("there are no recipes; give at least one")
    if None in keys:
        raise BadInput(f"recipe {keys.index(None)} cannot be trained in a fleet; use gengap.train")
    if other := next((i for i, key in enumerate(keys) if key != keys[0]), 0):
        raise BadInput(
            f"recipe {other} differs from the first in more than lr, momentum, weight_decay and seed; train it in another fleet"
        )
