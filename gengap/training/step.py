"""One update: the gradient of the mean loss over a batch, and one step of the optimizer."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gengap.core.recipe import Recipe, methods as spec
from gengap.optim.gradient_noise import IsotropicNoise
from gengap.optim.workers import Workers
from gengap.problem.losses import Loss
from gengap.training.batches import shares
from gengap.training.checkpoint import random_state, restore_random_state
from gengap.training.dense import recognise
from gengap.training.gradient import Gradient
from gengap.training.minibatch import Minibatch
from gengap.training.objective import make_objective
from gengap.training.ranks import ALONE, Ranks

Update = Callable[[Minibatch], Tensor]


def make_update(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    ranks: Ranks = ALONE,
    micro_batch: int | None = None,
) -> tuple[Update, Gradient]:
    """Make the function that trains on one batch.

    Args:
        model: in training mode; its parameters are those of the optimizer.
        loss: mean over samples.
        optimizer: steps once per call.
        recipe: how.
        ranks: the processes that share each batch.
        micro_batch: samples that go through the network at once, where the recipe leaves that open ("auto").

    Returns:
        A function of a `Minibatch` that updates the weights and returns the batch's mean loss before the update; and the
        gradient it uses.
    """
    size = recipe.micro_batch if isinstance(recipe.micro_batch, int) else micro_batch
    gradient = Gradient(model, make_objective(model, loss, recipe), recipe, ranks, micro_batch=size)
    steps = step_of(optimizer, gradient)

    def update(batch: Minibatch) -> Tensor:
        value = steps(batch)
        model.zero_grad()
        return value

    fast = recognise(model, loss, optimizer, recipe, update) if ranks.size == 1 else None
    return fast or update, gradient


def parts_of(batch: Minibatch, gradient: Gradient) -> list[Minibatch]:
    """Cut a batch into those of the workers that a method trains, each the share of this process."""
    recipe, ranks, total = gradient.recipe, gradient.ranks, batch.total
    own, whole = shares(recipe, ranks, total), shares(recipe, ALONE, total)
    pieces = batch.pieces([stop - start for start, stop in own])
    return [
        replace(piece, total=high - low, offset=start - low)
        for piece, (start, _), (low, high) in zip(pieces, own, whole, strict=True)
    ]


def step_of(optimizer: Optimizer, gradient: Gradient) -> Update:
    """Give the step of an optimizer: of those that ask for gradients themselves, and of those that are given one."""
    workers = optimizer.count if isinstance(optimizer, Workers) else 0
    step: Any = optimizer.step  # typed by torch for a closure of floats; ours take tensors, and workers a list
    if workers:

        def shared(batch: Minibatch) -> Tensor:
            parts = parts_of(batch, gradient)
            sizes = [part.total / batch.total for part in parts]
            value: Tensor = step([partial(gradient, part) for part in parts], shares=sizes)
            return value

        return shared
    if getattr(optimizer, "needs_closure", False):

        def asked(batch: Minibatch) -> Tensor:
            masks = random_state(batch.targets.device)

            def again() -> Tensor:
                restore_random_state(masks, batch.targets.device)  # the same dropout in every call of one update
                return gradient(batch)

            value: Tensor = step(again)
            return value.detach()

        return asked

    recipe = gradient.recipe
    temperature = recipe.gradient_noise.temperature if isinstance(recipe.gradient_noise, spec.IsotropicNoise) else 0.0
    noise = IsotropicNoise(temperature, seed=recipe.seed)

    def given(batch: Minibatch) -> Tensor:
        value = gradient(batch)
        if temperature:
            noise.add_to_gradients(optimizer, step=batch.step)
        optimizer.step()
        return value

    return given
