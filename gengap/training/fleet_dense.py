"""The gradients of many small dense networks by batched matrix products, without building graphs.

The counterpart of `gengap.training.dense` for a fleet: a layer of all K networks is one product of (K, B, in) with
(K, in, out), and so is its gradient. `benchmarks/fleets.py` measures what that is worth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.nn.modules.module import _has_any_global_hook

from gengap.problem.losses import Loss, MeanLoss
from gengap.problem.samples import InMemory
from gengap.training.dense import aten, chain, is_plain, stack
from gengap.training.fleet_losses import has_labels, mappable
from gengap.training.fleet_stack import FleetBatch, Stack

Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (K, B, C) and targets to losses (K,) and their gradient

ENABLED = True  # False: everything goes through vmap, for tests and benchmarks


@dataclass(frozen=True, slots=True)
class NamedLayer:
    """max(0, x weight^T + bias), or without the maximum; the tensors are named."""

    weight: str
    bias: str | None
    relu: bool


class DenseGradient:
    """Gradients of a stack of linear layers and ReLUs.

    Args:
        layers: first to last.
        slope: of the loss by the outputs.
    """

    def __init__(self, layers: Sequence[NamedLayer], slope: Slope) -> None:
        self._layers, self._slope = layers, slope

    def __call__(self, stack: Stack, batch: FleetBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute all gradients."""
        signals = [batch.inputs.flatten(2)]
        for layer in self._layers:
            signals.append(forward(layer, signals[-1], stack.params))
        losses, delta = self._slope(signals[-1], batch.targets)
        gradients = {}
        for i, layer in reversed(list(enumerate(self._layers))):
            if layer.relu:
                delta = aten.threshold_backward.default(delta, signals[i + 1], 0)
            gradients[layer.weight] = delta.mT @ signals[i]
            if layer.bias is not None:
                gradients[layer.bias] = delta.sum(1)
            delta = delta @ stack.params[layer.weight] if i else delta
        return losses, gradients

    def keep(self, rows: Sequence[int]) -> None:
        """Remember nothing of any member."""


def forward(layer: NamedLayer, signal: Tensor, params: dict[str, Tensor]) -> Tensor:
    """Give the outputs of a layer of all networks."""
    weight = params[layer.weight].mT
    output = signal @ weight if layer.bias is None else torch.baddbmm(params[layer.bias].unsqueeze(1), signal, weight)
    return output.relu_() if layer.relu else output


def cross_entropy_slope(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean cross-entropies and their gradient, (softmax - one-hot) / B."""
    logs, labels = torch.log_softmax(outputs, -1), targets.unsqueeze(-1)
    losses = logs.gather(-1, labels).mean((1, 2)).neg_()
    slope = logs.exp_().scatter_add_(-1, labels, torch.full_like(logs[..., :1], -1.0))
    return losses, slope.div_(targets.shape[1])


def slope_of(loss: MeanLoss) -> Slope:
    """Leave the loss itself to autograd, from the outputs on."""
    each = vmap(grad_and_value(loss))

    def slope(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        gradient, losses = each(outputs, targets)
        return losses, gradient

    return slope


def recognise(model: nn.Module, loss: Loss, train: InMemory, *, smoothing: float = 0.0) -> DenseGradient | None:
    """Give the fast gradients of a fleet, or None where there are none.

    Args:
        model: of one member.
        loss: of the problem.
        train: the training set.
        smoothing: share of each label that is spread over all classes.

    Returns:
        The gradients, where the network is a stack of linear layers and ReLUs, all of them trained, and the inputs are vectors,
        or images that it flattens first.
    """
    modules = list(chain(model))
    layers, inputs = stack(modules), train.inputs
    if not ENABLED or layers is None or not all(map(is_plain, modules)) or _has_any_global_hook():
        return None
    weights = [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    names = {id(p): name for name, p in model.named_parameters()}
    ordinary = all(type(p) is nn.Parameter and p.requires_grad and not p._backward_hooks for p in weights)
    if not ordinary or len({p.data_ptr() for p in weights}) != len(names) or len(weights) != len(names):
        return None
    flattens = any(isinstance(module, nn.Flatten) for module in modules)
    if not isinstance(inputs, Tensor) or not (inputs.ndim == 2 or (flattens and inputs.ndim > 2)):
        return None
    named = [
        NamedLayer(names[id(layer.weight)], None if layer.bias is None else names[id(layer.bias)], layer.relu)
        for layer in layers
    ]
    plain = has_labels(loss, train.targets) and train.targets.ndim == 1 and not smoothing
    return DenseGradient(named, cross_entropy_slope if plain else slope_of(mappable(loss, train.targets, smoothing)))
