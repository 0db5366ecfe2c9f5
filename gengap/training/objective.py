"""What a recipe minimises: the mean loss of a batch, with whatever it adds to that."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.recipe.methods import MultiplicativeNoise
from gengap.core.seeds import stream
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
        with precision():
            return value(batch.with_inputs(layout(batch.inputs)) if layout else batch)

    return objective


def smoothed(loss: Loss, amount: float) -> Loss:
    """Give a loss with a share of each label spread over all classes."""
    if not amount:
        return loss
    from gengap.objectives.label_smoothing import smooth

    if loss.name != "cross_entropy":
        raise BadInput(
            f"label_smoothing is {amount:g}, which needs the loss cross_entropy, not {loss.name}; leave it out"
        )
    return smooth(amount)


def robust(model: nn.Module, loss: Loss, recipe: Recipe) -> Objective:
    """Give the mean loss over a batch with noise in the weights of its samples or perturbed inputs, as a recipe asks."""
    noise = recipe.gradient_noise

    def plain(batch: Minibatch) -> Tensor:
        return loss.mean(feed(model, batch.inputs), batch.targets)

    def weighted(batch: Minibatch) -> Tensor:
        each = loss.losses(feed(model, batch.inputs), batch.targets)
        return (each * sample_weights(recipe, batch).to(each)).mean()

    if isinstance(noise, MultiplicativeNoise):
        return weighted
    return plain


def sample_weights(recipe: Recipe, batch: Minibatch) -> Tensor:
    """Draw z ~ N(1, sigma^2) for every sample of a batch.

    Args:
        recipe: its multiplicative gradient_noise and seed.
        batch: says which update it is, and which part of the batch.

    Returns:
        Weights of shape (b,), float64: the same whoever computes which part.

    Source:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, eq. 8: sigma^2 = B / B_small - 1 gives the gradient of a batch the
        covariance of a small one.
    """
    noise = recipe.gradient_noise
    assert isinstance(noise, MultiplicativeNoise)
    sigma = noise.sigma or max(batch.total / (noise.reference_batch or 1) - 1, 0.0) ** 0.5
    generator = torch.Generator().manual_seed(stream(recipe.seed, "noise", batch.step))
    whole = torch.randn(batch.total, generator=generator, dtype=torch.float64)
    return 1 + sigma * whole[batch.offset : batch.offset + len(batch)]


def autocast(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Give the context in which forward passes run."""
    if recipe.dtype == "bf16":
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext


def channels_last(inputs: Any) -> Any:
    """Lay images out with their channels innermost."""
    return map_tensors(lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, inputs)
