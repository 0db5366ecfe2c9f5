"""Dense networks by plain matrix products: the numbers of autograd without its overhead.

One update of a small dense network is so short that building a graph, allocating gradients and calling an optimizer
take as long as the arithmetic. A stack of linear layers and ReLUs needs none of that: its gradient is one product per
layer, which the matrix multiplication adds straight into the momentum, or without momentum into the weights.
`benchmarks/training.py` measures what that is worth. Everything else is left to autograd: `recognise` decides.
"""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.optim import SGD, Optimizer

from gengap.core.recipe import Recipe
from gengap.core.recipe.schedules import BatchDynamic
from gengap.problem.losses import LOSSES, Loss
from gengap.training.minibatch import Minibatch

Update = Callable[[Minibatch], Tensor]  # mean loss before the update, detached
Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (outputs, targets) -> mean loss, gradient by the outputs

ENABLED = True  # False: everything goes through autograd, for tests and benchmarks
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PACE = {
    "lr",
    "lr_rule",
    "momentum",
    "nesterov",
    "weight_decay",
    "batch_size",
    "batch_schedule",
    "regime_adaptation",
    "drop_last",
    "schedule",
    "warmup",
    "budget",
    "dtype",
    "seed",
}  # fields that decide how fast, how far and in what order, and leave the update as it is
SIMPLE = PACE | {"augment", "memory_format"}
aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Layer:
    """max(0, x weight^T + bias), or without the maximum."""

    weight: Tensor
    bias: Tensor | None
    relu: bool


class DenseUpdate:
    """One step of SGD on a stack of layers, in place.

    The momentum is where torch keeps it, in `optimizer.state`, and the learning rate is read from the optimizer, so
    schedules, checkpoints and a change to `otherwise` in the middle of a run need no care.

    Args:
        layers: of the network, first to last.
        flattens: whether inputs may have more than two axes.
        loss: a named one.
        optimizer: holds exactly the weights of the layers.
        otherwise: does the update where a batch is of another form than expected.
    """

    def __init__(
        self, layers: list[Layer], *, flattens: bool, loss: Loss, optimizer: Optimizer, otherwise: Update
    ) -> None:
        self._layers, self._flattens, self._optimizer, self._otherwise = layers, flattens, optimizer, otherwise
        self._classes = loss.name == "cross_entropy"
        self._slope = cross_entropy_slope if self._classes else slope_of(loss)

    def __call__(self, batch: Minibatch) -> Tensor:
        """Train on one batch and return its mean loss before the update."""
        inputs, targets = batch.inputs, batch.targets
        if not self._takes(inputs, targets):
            return self._otherwise(batch)
        with torch.no_grad():
            signals = [inputs.flatten(1)]
            for layer in self._layers:
                signals.append(forward(layer, signals[-1]))
            value, delta = self._slope(signals[-1], targets)
            self._backward(signals, delta)
        return value

    def _takes(self, inputs: Any, targets: Tensor) -> bool:
        """Tell whether autograd would do with this batch what the products do."""
        if not isinstance(inputs, Tensor) or inputs.dtype != self._layers[0].weight.dtype or inputs.requires_grad:
            return False
        labels = targets.dtype == torch.int64 and targets.ndim == 1
        return (inputs.ndim == 2 or (self._flattens and inputs.ndim > 2)) and (labels or not self._classes)

    def _backward(self, signals: list[Tensor], delta: Tensor) -> None:
        """Go from the last layer to the first; `delta` is the gradient by the layer's output."""
        group = self._optimizer.param_groups[0]
        for i, layer in reversed(list(enumerate(self._layers))):
            if layer.relu:
                delta = aten.threshold_backward.default(delta, signals[i + 1], 0)
            below = delta @ layer.weight if i else delta  # before the weights move
            self._descend(layer.weight, delta, signals[i], group)
            if layer.bias is not None:
                self._descend(layer.bias, delta, None, group)
            delta = below

    def _descend(self, p: Tensor, delta: Tensor, signal: Tensor | None, group: dict[str, Any]) -> None:
        """Move one tensor as `torch.optim.SGD` does; `signal` is None for a bias."""
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if not momentum and not decay:
            add_gradient(p, delta, signal, keep=1.0, scale=-lr)
            return
        if group["nesterov"] or not momentum:
            gradient = delta.sum(0) if signal is None else delta.t() @ signal
            if decay:
                gradient.add_(p, alpha=decay)
            p.add_(gradient, alpha=-lr)
            if momentum:
                p.add_(self._velocity(p).mul_(momentum).add_(gradient), alpha=-lr * momentum)
            return
        velocity = self._velocity(p)
        add_gradient(velocity, delta, signal, keep=momentum, scale=1.0)
        if decay:
            velocity.add_(p, alpha=decay)
        p.add_(velocity, alpha=-lr)

    def _velocity(self, p: Tensor) -> Tensor:
        """Give the momentum of a tensor; torch begins with the first gradient, which is to begin with zero."""
        memory = self._optimizer.state[p]
        if memory.get("momentum_buffer") is None:
            memory["momentum_buffer"] = torch.zeros_like(p)
        return memory["momentum_buffer"]  # type: ignore[no-any-return]


def forward(layer: Layer, signal: Tensor) -> Tensor:
    """Give the output of a layer."""
    output = F.linear(signal, layer.weight, layer.bias)
    return output.relu_() if layer.relu else output


def add_gradient(target: Tensor, delta: Tensor, signal: Tensor | None, *, keep: float, scale: float) -> None:
    """Set target to keep * target + scale * gradient."""
    if signal is not None:
        target.addmm_(delta.t(), signal, beta=keep, alpha=scale)
    else:
        (target if keep == 1 else target.mul_(keep)).add_(delta.sum(0), alpha=scale)


def cross_entropy_slope(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean cross-entropy and gradient with the kernels that autograd would call."""
    logs = torch.log_softmax(outputs, 1)
    value, weight = aten.nll_loss_forward.default(logs, targets, None, 1, -100)
    slope = aten.nll_loss_backward.default(torch.ones_like(value), logs, targets, None, 1, -100, weight)
    return value, aten._log_softmax_backward_data.default(slope, logs, 1, logs.dtype)


def slope_of(loss: Loss) -> Slope:
    """Leave the loss itself to autograd, from the outputs on."""

    def slope(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            value = loss.mean(outputs.requires_grad_(), targets)
        return value.detach(), torch.autograd.grad(value, outputs)[0]

    return slope


def recognise(
    model: nn.Module, loss: Loss, optimizer: Optimizer, recipe: Recipe, otherwise: Update
) -> DenseUpdate | None:
    """Give the fast update of a network, or None where it has none.

    Args:
        model: the network, on the device it trains on.
        loss: must be one of `LOSSES`.
        optimizer: must be torch's SGD as `gengap.optim.build` makes it, with all weights in one group.
        recipe: must ask for nothing beyond the mean loss and a step of sgd in full precision.
        otherwise: the update through autograd.

    Returns:
        A function of a `Minibatch`, or None.
    """
    modules = list(chain(model))
    layers = stack(modules)
    if not ENABLED or not is_simple(recipe) or LOSSES.get(loss.name) is not loss:
        return None
    if layers is None or not steps_plainly(optimizer) or not all(map(is_plain, modules)) or _has_any_global_hook():
        return None
    weights = [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    held = [{id(p) for p in ps} for ps in (weights, model.parameters(), optimizer.param_groups[0]["params"])]
    apart = len({p.data_ptr() for p in weights}) == len(weights)
    if not apart or held[1] != held[0] or held[2] != held[0] or not all(is_free(p, weights[0]) for p in weights):
        return None
    flattens = any(isinstance(module, nn.Flatten) for module in modules)
    return DenseUpdate(layers, flattens=flattens, loss=loss, optimizer=optimizer, otherwise=otherwise)


def is_simple(recipe: Recipe, fields: Set[str] = SIMPLE) -> bool:
    """Tell whether an update is the plain gradient of the mean loss and one step, but for what these fields change."""
    changed = set(recipe.model_dump(exclude_defaults=True))
    return recipe.dtype != "bf16" and changed <= fields and not isinstance(recipe.batch_schedule, BatchDynamic)


def chain(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and, where it is a Sequential, what it applies one after the other."""
    yield model
    if type(model) is nn.Sequential:
        for part in model:
            yield from chain(part)


def stack(modules: list[nn.Module]) -> list[Layer] | None:
    """Read modules in the order of their application as layers; None if any is of another kind."""
    layers: list[Layer] = []
    for module in modules:
        if type(module) is nn.Linear:
            layers.append(Layer(module.weight, module.bias, relu=False))
        elif type(module) is nn.ReLU and layers:
            layers[-1] = Layer(layers[-1].weight, layers[-1].bias, relu=True)
        elif type(module) is nn.Flatten and not layers and (module.start_dim, module.end_dim) == (1, -1):
            continue  # after a layer it would see what the layer makes of an axis that stands before it
        elif type(module) is not nn.Sequential:
            return None
    return layers or None


def is_plain(module: nn.Module) -> bool:
    """Tell whether a module does what its class says, and nobody listens."""
    return "forward" not in vars(module) and not any(getattr(module, hooks) for hooks in HOOKS)


def is_free(p: Tensor, first: Tensor) -> bool:
    """Tell whether a weight is an ordinary trained one on the CPU, of the dtype of the first."""
    ordinary = type(p) is nn.Parameter and p.requires_grad and p.is_contiguous() and p.device.type == "cpu"
    heard = p._backward_hooks or p._post_accumulate_grad_hooks
    return ordinary and not heard and p.dtype == first.dtype and p.dtype in {torch.float32, torch.float64}


def steps_plainly(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is SGD in the form that `DenseUpdate` repeats."""
    if type(optimizer) is not SGD or len(optimizer.param_groups) != 1:
        return False
    group = optimizer.param_groups[0]
    odd = group["dampening"] or group["maximize"] or group["differentiable"] or isinstance(group["lr"], Tensor)
    return not (odd or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
