"""What a recipe minimises: the mean loss of a batch, with whatever it adds to that."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe, methods as spec
from gengap.objectives import objective as objectives
from gengap.objectives.adversarial import Adversarial
from gengap.objectives.label_smoothing import smooth
from gengap.objectives.stability import Stability
from gengap.optim.gradient_noise import MultiplicativeNoise, matched_sigma
from gengap.problem.losses import Loss
from gengap.problem.trees import feed, map_tensors
from gengap.training.minibatch import Minibatch

Objective = Callable[[Minibatch], Tensor]  # the mean over the samples here, differentiable


def make_objective(model: nn.Module, loss: Loss, recipe: Recipe) -> Objective:
    """Make the function that a recipe minimises.

    Args:
        model: in training mode.
        loss: of the problem, a mean over samples.
        recipe: its label_smoothing, adversarial, stability, gradient_noise, dtype and memory_format are used.

    Returns:
        A function of a batch that returns the mean over its samples, a scalar with a graph.

    Raises:
        BadInput: label smoothing, and the loss is not cross-entropy.
    """
    precision = autocast(recipe, next(model.parameters()).device)
    layout = channels_last if recipe.memory_format == "channels_last" else None
    mean = smoothed(loss, recipe.label_smoothing)
    value = robust(model, mean, recipe)

    def objective(batch: Minibatch) -> Tensor:
        laid = batch.with_inputs(layout(batch.inputs)) if layout else batch
        with precision():
            return value(laid) if len(batch) else nothing(model, laid, recipe)

    return objective


def nothing(model: nn.Module, batch: Minibatch, recipe: Recipe) -> Tensor:
    """Take part without a sample in what other processes do, whose batch norm or sharded weights wait for this one.

    Args:
        model: in training mode.
        batch: of no samples.
        recipe: must ask for one pass through the network.

    Returns:
        Zero, with a graph.

    Raises:
        BadInput: it asks for more passes.
    """
    if recipe.adversarial or recipe.stability:
        raise BadInput(
            f"a batch of {batch.total} samples leaves a process without one, which batch norm over processes does not allow "
            f"beside adversarial or stability; set drop_last, choose another batch_size, or fewer processes"
        )
    with without_statistics(model) if recipe.norm_span == "rank" else nullcontext():
        zero: Tensor = feed(model, batch.inputs).sum() * 0
    return zero


@contextmanager
def without_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norm neither take nor keep the statistics of no samples, which are no numbers.

    Args:
        model: in training mode.

    Yields:
        Nothing.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    try:
        for norm in norms:
            norm.eval()
        yield
    finally:
        for norm in norms:
            norm.train()


def smoothed(loss: Loss, amount: float) -> Loss:
    """Give a loss with a share of each label spread over all classes."""
    if not amount:
        return loss
    if loss.name != "cross_entropy":
        raise BadInput(
            f"label_smoothing is {amount:g}, which needs the loss cross_entropy, not {loss.name}; leave it out"
        )
    return smooth(amount)


def robust(model: nn.Module, loss: Loss, recipe: Recipe) -> Objective:
    """Give the mean loss over a batch, with perturbed inputs or noise in the weights of its samples as a recipe asks."""
    noise = recipe.gradient_noise
    if isinstance(noise, spec.MultiplicativeNoise):
        return weighted(model, loss, recipe, noise)
    made = of_inputs(recipe, loss)

    def objective(batch: Minibatch) -> Tensor:
        return made(model, loss.mean, batch.inputs, batch.targets, indices=batch.indices, epoch=batch.epoch)

    return objective


def of_inputs(recipe: Recipe, loss: Loss) -> objectives.Objective:
    """Give the objective on clean, adversarial or disturbed inputs."""
    if recipe.adversarial:
        return Adversarial(recipe.adversarial.epsilon, recipe.adversarial.share)
    if recipe.stability:
        how = recipe.stability
        if how.distance == "kl" and loss.name == "mean_square":
            raise BadInput("stability compares classes by kl, and mean_square has none; set its distance to 'l2'")
        return Stability(how.sigma, how.weight, how.distance, seed=recipe.seed)
    return objectives.plain


def weighted(model: nn.Module, loss: Loss, recipe: Recipe, noise: spec.MultiplicativeNoise) -> Objective:
    """Weight the loss of every sample by a factor around 1, the same whoever computes which part of the batch."""

    def objective(batch: Minibatch) -> Tensor:
        sigma = (
            noise.sigma
            if noise.sigma is not None
            else matched_sigma(batch.total, min(noise.reference_batch or 1, batch.total))
        )
        factors = MultiplicativeNoise(sigma, seed=recipe.seed).weights(
            batch.total, step=batch.step, dtype=torch.float64
        )
        each = loss.losses(feed(model, batch.inputs), batch.targets)
        return (each * factors[batch.offset : batch.offset + len(batch)].to(each)).mean()

    return objective


def autocast(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Give the context in which forward passes run."""
    if recipe.dtype == "bf16":
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext


def channels_last(inputs: Any) -> Any:
    """Lay images out with their channels innermost."""
    return map_tensors(lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, inputs)
