"""Whether a recipe can train a problem at all, found on a few samples before anything long begins."""

import torch

from gengap.core.recipe import Recipe
from gengap.optim.build import build
from gengap.problem.problem import CPU, REHEARSED, Problem
from gengap.training.minibatch import Minibatch
from gengap.training.network import make_augment, make_network
from gengap.training.objective import make_objective


def rehearse(problem: Problem, recipe: Recipe) -> None:
    """Make everything that a recipe needs, and compute its objective on a few samples; nothing is kept.

    Args:
        problem: what is learnt, checked.
        recipe: resolved.

    Raises:
        BadInput: the network has no batch norm or dropout to change, the inputs cannot be augmented or perturbed, or the loss
            does not fit; one sentence.
    """
    recipe = recipe.changed(dtype="float32")
    with torch.random.fork_rng(devices=[]):
        model = make_network(problem, recipe, CPU)
        augment = make_augment(recipe, problem.samples("train"))
        build(recipe, model, loss=problem.loss.name)
        objective = make_objective(model, problem.loss, recipe)
        inputs, targets = problem.first("train", REHEARSED)
        batch = Minibatch.of(inputs, targets)
        if augment is not None:
            batch = batch.with_inputs(augment(inputs, batch.indices, 0))
        objective(batch)
