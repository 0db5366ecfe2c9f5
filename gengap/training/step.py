"""One update: the gradient of the mean loss over a batch, whole or accumulated, and one step of the optimizer."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gengap.core.recipe import Recipe
from gengap.problem.losses import Loss
from gengap.problem.trees import feed, map_tensors, split
from gengap.training.dense import Update, recognise


def make_update(model: nn.Module, loss: Loss, optimizer: Optimizer, recipe: Recipe) -> Update:
    """Make the function that trains on one batch.

    Args:
        model: in training mode; its parameters are those of the optimizer.
        loss: mean over samples.
        optimizer: steps once per call.
        recipe: its micro_batch, dtype and memory_format are used.

    Returns:
        A function of (inputs, targets) that updates the weights and returns the batch's mean loss before the update.
    """
    precision = autocast(recipe, next(model.parameters()).device)
    layout = channels_last if recipe.memory_format == "channels_last" else None

    def whole(inputs: Any, targets: Tensor) -> Tensor:
        with precision():
            value = loss.mean(feed(model, layout(inputs) if layout else inputs), targets)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    def accumulated(inputs: Any, targets: Tensor) -> Tensor:
        size, total = recipe.micro_batch or 1, targets.shape[0]
        value = torch.zeros((), device=targets.device, dtype=torch.float64)
        for x, y in zip(split(inputs, size), targets.split(size), strict=True):
            with precision():
                part = loss.mean(feed(model, layout(x) if layout else x), y) * (y.shape[0] / total)
            part.backward()
            value += part.detach()
        optimizer.step()
        optimizer.zero_grad()
        return value

    update = accumulated if recipe.micro_batch else whole
    return recognise(model, loss, optimizer, recipe, update) or update


def autocast(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Give the context in which forward passes run."""
    if recipe.dtype == "bf16":
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext


def channels_last(inputs: Any) -> Any:
    """Lay images out with their channels innermost."""
    return map_tensors(lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, inputs)
