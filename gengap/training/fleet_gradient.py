"""The gradients of all members at once, for any network: `torch.func` over stacked weights, buffers, batches and masks."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from gengap.core.recipe import Recipe
from gengap.problem.losses import MeanLoss
from gengap.problem.trees import arguments, feed, map_tensors
from gengap.training.fleet_dropout import with_masks
from gengap.training.fleet_stack import FleetBatch, Stack, buffers_kept

Named = dict[str, Tensor]


class FleetGradient(Protocol):
    """Computes the gradient of every member's mean loss over its batch."""

    def __call__(self, stack: Stack, batch: FleetBatch) -> tuple[Tensor, Named]:
        """Give the mean losses, shape (K,), and gradients by name, (K, ...); buffers of the stack move on."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all members but some."""
        ...


class MappedGradient:
    """`vmap(grad)` of the mean loss.

    Running statistics are made anew by every call and put into the stack. What draws at random inside the network, other
    than dropout layers on the CPU, makes torch raise a RuntimeError.

    Args:
        model: of one member, in training mode; its dropout layers are replaced.
        loss: mean over samples.
        recipes: of the members.
    """

    def __init__(self, model: nn.Module, loss: MeanLoss, recipes: Sequence[Recipe]) -> None:
        self._model, self._loss = model, loss
        self._masks = with_masks(model, recipes)
        self._trained: frozenset[str] | None = None
        self._each = vmap(grad_and_value(self._value, has_aux=True))

    def __call__(self, stack: Stack, batch: FleetBatch) -> tuple[Tensor, Named]:
        """Compute all gradients; weights that the loss does not depend on have none."""
        first = map_tensors(lambda x: x[0], batch.inputs)
        masks = self._masks.draw(first, batch.size) if self._masks else []
        if self._trained is None:
            self._trained = self._find_trained(first, batch.targets[0], [mask[0] for mask in masks])
        trained = {name: p for name, p in stack.params.items() if name in self._trained}
        others = {name: p for name, p in stack.params.items() if name not in self._trained}
        gradients, (losses, stack.buffers) = self._each(
            trained, others, stack.buffers, masks, batch.inputs, batch.targets
        )
        return losses, gradients

    def _value(
        self, trained: Named, others: Named, buffers: Named, masks: list[Tensor], inputs: Any, targets: Tensor
    ) -> tuple[Tensor, Named]:
        """Give the loss of one member, and its buffers after the pass."""
        moved = {name: b.clone() for name, b in buffers.items()}
        args, kwargs = arguments(inputs)
        self._give(masks)
        outputs = functional_call(self._model, ({**trained, **others}, moved), args, kwargs)
        return self._loss(outputs, targets), moved

    def _give(self, masks: list[Tensor]) -> None:
        if self._masks:
            self._masks.give(masks)

    def _find_trained(self, inputs: Any, targets: Tensor, masks: list[Tensor]) -> frozenset[str]:
        """Name the weights that get a gradient: an optimizer leaves the others alone, and does not decay them."""
        named = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self._give(masks)
        with torch.enable_grad(), buffers_kept(self._model):
            value = self._loss(feed(self._model, inputs), targets)
            found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        return frozenset(name for name, g in zip(named, found, strict=True) if g is not None)

    def keep(self, rows: Sequence[int]) -> None:
        """Forget the masks of all members but some."""
        if self._masks:
            self._masks.keep(rows)
