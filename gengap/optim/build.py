"""Optimizers are torch's own; here a recipe's words become its arguments."""

from collections.abc import Iterable

import torch
from torch.optim import SGD, Adagrad, Adam, Optimizer

from gengap.core.recipe import Recipe

FUSED_DEVICES = ("cpu", "cuda")


def build(recipe: Recipe, params: Iterable[torch.nn.Parameter] | torch.nn.Module) -> Optimizer:
    """Make the optimizer of a recipe, with one kernel for all tensors where the device has it.

    Args:
        recipe: its optimizer, lr, momentum, nesterov, betas, eps and weight_decay are used.
        params: the weights to move, all on one device.

    Returns:
        A `torch.optim` optimizer.
    """
    weights = list(params.parameters() if isinstance(params, torch.nn.Module) else params)
    fused = weights[0].device.type in FUSED_DEVICES
    decay = recipe.weight_decay
    if recipe.optimizer == "adam":
        eps = recipe.eps or 1e-8
        return Adam(weights, lr=recipe.lr, betas=recipe.betas, eps=eps, weight_decay=decay, fused=fused)
    if recipe.optimizer == "adagrad":
        # Adagrad has a fused kernel on the CPU only.
        fused = weights[0].device.type == "cpu"
        return Adagrad(weights, lr=recipe.lr, eps=recipe.eps or 1e-10, weight_decay=decay, fused=fused)
    return SGD(
        weights, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=decay, fused=fused
    )


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Change the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
