"""Follows one run of a training function: which samples went into which gradient, and what the optimizer was given."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gengap.core.errors import BadInput
from gengap.diagnosis.sketch import Sketch
from gengap.diagnosis.trace import Clip, Kind, NormUse, ParameterFacts, Pass, Sizes, Trace, Update
from gengap.diagnosis.watched_data import WatchedData


class Enough(BaseException):  # not an Exception, so that a loop that catches its errors does not go on
    """The function has shown what there is to see."""


class Watch:
    """Notes what a training function does; `hooks.watching` calls it.

    After every update the weights are put back to where they were, so that all gradients of a run are gradients at one point.

    Args:
        model: that the function trains.
        data: that it trains on.
        sizes: that it was called with.
        limit: backward passes after which it is stopped.
        keep_passes: keep the gradient of every single pass.
        seed: of the sketch.
    """

    def __init__(
        self, model: nn.Module, data: WatchedData, sizes: Sizes, *, limit: int, keep_passes: bool, seed: int
    ) -> None:
        self.model, self.data, self.trace = model, data, Trace(sizes)
        self.limit, self.keep_passes = limit, keep_passes
        self.scaled = self.unscaled = self.scaler_steps = False
        self.schedulers: list[Any] = []
        self._named = dict(model.named_parameters())
        self._trainable = {name for name, p in self._named.items() if p.requires_grad}
        self._initial: list[Tensor] = []
        self._sketch = Sketch([p.numel() for p in self._named.values()], seed=seed)
        self._decay: dict[int, float] = {}
        self._with_gradient: set[str] = set()
        self._waiting: list[tuple[tuple[int, ...] | None, int, bool]] = []
        self._window: list[Pass] = []
        self._clips: list[Clip] = []
        self._carried, self._depth = False, 0

    def forward(self, arguments: Sequence[Any], named: dict[str, Any]) -> None:
        """A forward pass of the model begins."""
        if not self.trace.randomness:
            self.trace.randomness = fingerprints()
            self.trace.start = self._sketch(self._named.values())
            self._initial = [p.detach().clone() for p in self._named.values()]
        tensors = [leaf for leaf in tree_leaves((arguments, named)) if isinstance(leaf, Tensor) and leaf.dim()]
        samples, epoch = self.data.take(len(tensors[0]) if tensors else None)
        if torch.is_grad_enabled():
            self._waiting.append((samples, epoch, self.model.training))

    @contextmanager
    def backward(self) -> Iterator[None]:
        """A backward pass; one inside another, as checkpointing makes, is a part of it."""
        self._depth += 1
        try:
            if self._depth > 1:
                yield
                return
            self._begin_window()
            before = self._gradient() if self.keep_passes else None
            yield
            self._end_pass(None if before is None else self._gradient() - before)
        finally:
            self._depth -= 1

    def _begin_window(self) -> None:
        clear = not any(p.grad is not None and bool(p.grad.any()) for p in self._updated())
        if clear:
            self.trace.discarded += self._window
            self._window, self._carried = [], False
        elif not self._window:
            self._carried = True

    def _end_pass(self, gradient: Any) -> None:
        # a forward pass in evaluation mode whose gradients nobody asked for is no part of this backward pass
        waiting = [w for w in self._waiting if w[2]] or self._waiting
        each = [samples for samples, _, _ in waiting]
        samples = None if None in each or not each else tuple(i for own in each for i in own or ())
        epoch = waiting[-1][1] if waiting else 0
        self._window.append(Pass(samples, epoch, all(w[2] for w in waiting), gradient))
        self._waiting = []
        if epoch < len(self.data.epochs):
            self.data.epochs[epoch].passes += 1
        self.limit -= 1
        if self.limit < 0:
            raise Enough

    def _gradient(self) -> Any:
        updated = {id(p) for p in self._updated()}
        return self._sketch(p.grad if id(p) in updated else None for p in self._named.values())

    def _updated(self) -> list[Tensor]:
        """List what optimizers update, as far as they are known: nobody clears the gradients of other parameters."""
        every: list[Tensor] = list(self._named.values())
        return [p for p in every if id(p) in self._decay] or every

    def own(self, group: dict[str, Any]) -> None:
        """An optimizer is given a group of parameters."""
        self._decay |= {id(p): float(group.get("weight_decay") or 0.0) for p in group["params"]}

    def update(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """An optimizer is about to step.

        Args:
            optimizer: which.
            closure: whether it was given a closure.

        Raises:
            BadInput: it computes gradients by itself.
        """
        if closure and not self._window:
            raise BadInput(
                f"{type(optimizer).__name__}.step(closure) computes gradients by itself; only loops that call backward before "
                f"step can be examined"
            )
        for group in optimizer.param_groups:
            self.own(group)
        if not self._window:  # a further optimizer of the same update
            return
        self._with_gradient |= {name for name, p in self._named.items() if p.grad is not None}
        rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
        steps = tuple(int(scheduler.last_epoch) for scheduler in self.schedulers)
        scaled = self.scaled and not self.scaler_steps
        self.trace.updates.append(
            Update(self._gradient(), tuple(self._window), self._carried, rates, steps, tuple(self._clips), scaled)
        )
        base = tuple(float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups)
        self.trace.base_lr = tuple(map(max, base, self.trace.base_lr)) if self.trace.base_lr else base
        self._window, self._clips, self._carried, self.scaled, self.unscaled = [], [], False, False, False

    def updated(self) -> None:
        """An optimizer has stepped: put the weights back."""
        with torch.no_grad():
            for p, initial in zip(self._named.values(), self._initial, strict=False):
                p.copy_(initial)

    def clip(self) -> None:
        """Gradients are about to be clipped."""
        self._clips.append(Clip(len(self._window), self.scaled and not self.unscaled))

    def norm(
        self, rows: int, momentum: float | None, *, training: bool, synchronised: bool, ghost: int | None = None
    ) -> None:
        """Batch norm is called."""
        learning = torch.is_grad_enabled() and self.model.training
        self.trace.norms[NormUse(training, learning, rows, ghost, synchronised, momentum or 0.0)] += 1

    def end(self) -> Trace:
        """Close the run."""
        self.trace.discarded += self._window
        self.trace.epochs = self.data.epochs
        kinds = parameter_kinds(self.model)
        own = {id(p) for p in self._named.values()}
        self.trace.foreign = sum(key not in own for key in self._decay)
        self.trace.parameters = [
            ParameterFacts(
                name,
                kinds[name],
                p.numel(),
                self._decay.get(id(p)),
                frozen=name in self._trainable and not p.requires_grad,
                gradient=name in self._with_gradient,
            )
            for name, p in self._named.items()
            if name in self._trainable
        ]
        return self.trace


def parameter_kinds(model: nn.Module) -> dict[str, Kind]:
    """Tell parameters of norm layers, which are known by the name of their class, and biases from other weights."""
    kinds: dict[str, Kind] = {}
    for prefix, module in model.named_modules():
        norm = "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False):
            kind: Kind = "norm" if norm else "bias" if name.endswith("bias") else "weight"
            kinds[f"{prefix}.{name}" if prefix else name] = kind
    return kinds


def fingerprints() -> tuple[str, ...]:
    """Shorten the states of the global generators of torch, numpy and Python."""
    states = (torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), repr(random.getstate()))
    return tuple(
        hashlib.blake2b(state if isinstance(state, bytes) else state.encode(), digest_size=8).hexdigest()
        for state in states
    )
