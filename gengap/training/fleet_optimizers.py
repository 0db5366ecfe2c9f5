"""Optimizers of a fleet: torch's rules over stacked weights, with rates of each member's own.

A rule moves one tensor of all members in place, (K, ...), and keeps what it remembers in a dict. Everything that may differ
between members is a tensor of K numbers. Each is held against `torch.optim` in tests/training/test_fleet.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.recipe import Recipe
from gengap.optim.build import groups_of
from gengap.training.fleet_stack import taken

Memory = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a rule goes by; the tensors have one number for each member.

    Attributes:
        lr: learning rates, shape (K,).
        momentum: shape (K,), or None where all are 0.
        decay: coefficients of weight decay, shape (K,), or None where all are 0.
        step: updates made, this one included.
        nesterov: for all.
        betas: for all.
        eps: for all; None: as torch's optimizer has it.
    """

    lr: Tensor
    momentum: Tensor | None
    decay: Tensor | None
    step: int
    nesterov: bool
    betas: tuple[float, float]
    eps: float | None

    def spread(self, ndim: int) -> "Rates":
        """Give the tensors the axes of weights."""
        shape = (-1, *[1] * (ndim - 1))
        momentum = None if self.momentum is None else self.momentum.view(shape)
        decay = None if self.decay is None else self.decay.view(shape)
        return replace(self, lr=self.lr.view(shape), momentum=momentum, decay=decay)


Rule = Callable[[Tensor, Tensor, Memory, Rates], None]  # weights (moved), gradient (may be changed), memory, rates


def sgd(p: Tensor, g: Tensor, memory: Memory, rates: Rates) -> None:
    """Move by stochastic gradient descent with momentum that is not damped."""
    g = decayed(p, g, rates)
    if rates.momentum is not None:
        velocity = remembered(memory, "velocity", p).mul_(rates.momentum).add_(g)
        g = g.addcmul_(velocity, rates.momentum) if rates.nesterov else velocity
    p.addcmul_(g, rates.lr, value=-1)


def adam(p: Tensor, g: Tensor, memory: Memory, rates: Rates) -> None:
    """Move by Adam, the decay in the gradient."""
    adaptive(p, decayed(p, g, rates), memory, rates)


def adamw(p: Tensor, g: Tensor, memory: Memory, rates: Rates) -> None:
    """Move by Adam, the weights decayed by themselves."""
    if rates.decay is not None:
        p.mul_(1 - rates.lr * rates.decay)
    adaptive(p, g, memory, rates)


def adaptive(p: Tensor, g: Tensor, memory: Memory, rates: Rates) -> None:
    """Move by the two averages of Adam, both freed of their bias."""
    (b1, b2), eps = rates.betas, 1e-8 if rates.eps is None else rates.eps
    mean = remembered(memory, "mean", p).lerp_(g, 1 - b1)
    square = remembered(memory, "square", p).mul_(b2).addcmul_(g, g, value=1 - b2)
    below = square.sqrt().div_((1 - b2**rates.step) ** 0.5).add_(eps)
    p.addcmul_(mean / below, rates.lr, value=-1 / (1 - b1**rates.step))


def adagrad(p: Tensor, g: Tensor, memory: Memory, rates: Rates) -> None:
    """Move by the gradient over the root of the sum of its squares."""
    g = decayed(p, g, rates)
    total = remembered(memory, "sum", p).addcmul_(g, g)
    p.addcmul_(g / total.sqrt().add_(1e-10 if rates.eps is None else rates.eps), rates.lr, value=-1)


def rmsprop(p: Tensor, g: Tensor, memory: Memory, rates: Rates) -> None:
    """Move by the gradient over the root of the mean of its squares, with momentum."""
    g = decayed(p, g, rates)
    square = remembered(memory, "square", p).mul_(0.99).addcmul_(g, g, value=0.01)
    step = g / square.sqrt().add_(1e-8 if rates.eps is None else rates.eps)
    if rates.momentum is not None:
        step = remembered(memory, "velocity", p).mul_(rates.momentum).add_(step)
    p.addcmul_(step, rates.lr, value=-1)


def decayed(p: Tensor, g: Tensor, rates: Rates) -> Tensor:
    """Add weight decay to a gradient."""
    return g if rates.decay is None else g.addcmul_(p, rates.decay)


def remembered(memory: Memory, name: str, like: Tensor) -> Tensor:
    """Give what a rule remembers, at first zero."""
    if name not in memory:
        memory[name] = torch.zeros_like(like)
    return memory[name]


RULES: Mapping[str, Rule] = {"sgd": sgd, "adam": adam, "adamw": adamw, "adagrad": adagrad, "rmsprop": rmsprop}


class FleetOptimizer:
    """The optimizers of all members.

    Args:
        model: of one member: says which weights `decay_norms=False` leaves out of the decay.
        recipes: of the K members; they differ in momentum and weight_decay at most, and in what is no matter here.
        like: a weight, for device and dtype.
    """

    def __init__(self, model: nn.Module, recipes: Sequence[Recipe], like: Tensor) -> None:
        first = recipes[0]
        self._rule, self._clip = RULES[first.optimizer], first.clip_norm
        self._common: dict[str, Any] = {"nesterov": first.nesterov, "betas": first.betas, "eps": first.eps}
        self._own = {
            "momentum": like.new_tensor([recipe.momentum for recipe in recipes]),
            "decay": like.new_tensor([recipe.weight_decay for recipe in recipes]),
        }
        self._active = {name: bool(values.any()) for name, values in self._own.items()}
        self._spared = spared(model, recipes)
        self._memory: dict[str, Memory] = {}
        self._step = 0

    def step(self, params: Mapping[str, Tensor], gradients: dict[str, Tensor], lr: Tensor) -> None:
        """Move the weights of all members.

        Args:
            params: by name, (K, ...), changed in place.
            gradients: of those that are trained; changed.
            lr: rates, shape (K,).
        """
        self._step += 1
        if self._clip:
            clip(gradients, self._clip)
        momentum, decay = (self._own[name] if self._active[name] else None for name in ("momentum", "decay"))
        rates = Rates(lr=lr, momentum=momentum, decay=decay, step=self._step, **self._common)
        for name, g in gradients.items():
            shaped = rates.spread(g.ndim)
            shaped = replace(shaped, decay=None) if name in self._spared else shaped
            self._rule(params[name], g, self._memory.setdefault(name, {}), shaped)

    def keep(self, rows: Tensor) -> None:
        """Forget all members but some."""
        self._own = taken(self._own, rows)
        self._memory = {name: taken(memory, rows) for name, memory in self._memory.items()}


def spared(model: nn.Module, recipes: Sequence[Recipe]) -> set[str]:
    """Name the weights that are not decayed."""
    decaying = next((recipe for recipe in recipes if recipe.weight_decay), None)
    if decaying is None:
        return set()
    groups = groups_of(decaying, model)
    free = {id(p) for group in groups if group.get("weight_decay") == 0.0 for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in free}


def clip(gradients: Mapping[str, Tensor], length: float) -> None:
    """Cut the gradient of every member that is longer, as `torch.nn.utils.clip_grad_norm_` does."""
    squares = [g.reshape(g.shape[0], -1).square().sum(1) for g in gradients.values()]
    factors = (length / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1.0)
    for g in gradients.values():
        g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))
