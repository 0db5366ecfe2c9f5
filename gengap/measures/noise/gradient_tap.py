"""Squared norms of the gradients of single backward passes, read before they are added up in `.grad`."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput

PROBES = 8  # entries of every tensor that are added up, to tell whether the passes make the whole
LONG = 1 << 16  # longer tensors are summed row by row: one float32 sum of millions of squares loses digits
NOT_WHOLE = ("DTensor", "FlatParameter", "UninitializedParameter")

Metric = Callable[[Tensor, Tensor], Tensor]  # (parameter, its gradient) to the gradient in other coordinates
Timing = Callable[[], AbstractContextManager[None]]


@dataclass(slots=True)
class Leaf:
    """A parameter under a hook.

    Attributes:
        index: its number.
        parameter: which.
        probes: indices of its probed entries in the flattened tensor, on its device.
        passes: gradients seen.
        first: the gradient of a part of the loss, where `see_first_part` saw one.
    """

    index: int
    parameter: Tensor
    probes: Tensor
    passes: int = 0
    first: Tensor | None = None


class Sums:
    """What is added up over backward passes, in tensors that are made once.

    Small tensors that are made and kept between the large ones of a backward pass cost more than they seem to: the
    allocator then returns the large ones to the system, and all their pages are faulted in again at every step.

    Args:
        leaves: of which.
        device: where the sums are.
        dtype: of the sums.

    Attributes:
        squares: squared norms of each leaf, shape (leaves,).
        entries: probed entries of all leaves, shape (Q,).
    """

    def __init__(self, leaves: Sequence[Leaf], device: torch.device, dtype: torch.dtype) -> None:
        self.squares = torch.zeros(len(leaves), device=device, dtype=dtype)
        self.entries = torch.zeros(sum(leaf.probes.numel() for leaf in leaves), device=device, dtype=dtype)
        self._square = self.squares.unbind()
        self._entries = self.entries.split([leaf.probes.numel() for leaf in leaves])

    def add(self, i: int, norm: Tensor, entries: Tensor | None) -> None:
        """Add the gradient of the i-th leaf."""
        wide = norm.to(self.squares.device, self.squares.dtype)
        self._square[i].addcmul_(wide, wide)
        if entries is not None:
            self._entries[i].add_(entries.to(self.entries.device))

    def clear(self) -> None:
        """Begin anew."""
        self.squares.zero_()
        self.entries.zero_()


class GradientTap:
    """Hooks on the leaves of a network, there only while it is open.

    A hook sees the gradient of one backward pass: all uses of a tied weight together, before accumulation, and before
    ranks are averaged. Nothing that it sees is changed or kept.

    Args:
        model: a module, or leaf parameters; frozen ones are left out while they are frozen.
        timing: entered around everything that a hook does.
        metric: changes coordinates before norms are taken, or None.

    Attributes:
        device: where sums are made.
        is_open: whether hooks are in place.
    """

    def __init__(self, model: nn.Module | Iterable[Tensor], timing: Timing, metric: Metric | None = None) -> None:
        self._parameters = checked(model)
        self._timing, self._metric = timing, metric
        self.device = self._parameters[0].device
        self.is_open = self._muted = False
        self._handles: list[Any] = []
        self._watched: list[Leaf] = []
        self._leaves = [Leaf(i, p, spread(p)) for i, p in enumerate(self._parameters)]
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._seen, self._whole = (Sums(self._leaves, self.device, dtype) for _ in range(2))

    @property
    def resolution(self) -> float:
        """Coarsest relative spacing of numbers among the parameters."""
        return max(torch.finfo(p.dtype).eps for p in self._parameters)

    @property
    def passes(self) -> int:
        """Backward passes seen since the tap was opened."""
        return max((leaf.passes for leaf in self._watched), default=0)

    def open(self) -> None:
        """Put the hooks in place and forget what was seen.

        Raises:
            BadInput: the parameters are on another device than they were.
        """
        self.close()
        if (device := self._parameters[0].device) != self.device:
            raise BadInput(f"the parameters moved from {self.device} to {device}; make the monitor afterwards")
        self._watched = [leaf for leaf in self._leaves if leaf.parameter.requires_grad]
        self._handles = [leaf.parameter.register_hook(self._hook(leaf)) for leaf in self._watched]
        self._seen.clear()
        self.is_open = True

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        for leaf in self._watched:
            leaf.passes, leaf.first = 0, None
        self._handles, self._watched, self.is_open = [], [], False

    def see_first_part(self, loss: Tensor) -> None:
        """Count the gradient of a part of the loss as a pass, and the rest of the next backward pass as another.

        Holds one copy of the gradient until the tap closes; `.grad` is not touched.

        Args:
            loss: a scalar, the part; its graph is kept.
        """
        parameters = [leaf.parameter for leaf in self._watched]
        self._muted = True  # torch.autograd.grad runs the hooks too
        try:
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        finally:
            self._muted = False
        for leaf, gradient in zip(self._watched, found, strict=True):
            leaf.first = gradient
            if gradient is not None:
                self._record(leaf, gradient)

    @torch.no_grad()
    def seen(self) -> Tensor:
        """Give the sum of squares over all passes and, after it, the probed entries added up; shape (1 + Q,)."""
        return torch.cat([self._seen.squares.sum(0, keepdim=True), self._seen.entries])

    @torch.no_grad()
    def compare(self, probed: Tensor) -> Tensor:
        """Set the whole gradient, as it is in `.grad`, beside the passes.

        Args:
            probed: what the probed entries of the passes add up to, shape (Q,).

        Returns:
            |g|^2 of the whole, then of the probed entries s and those of the whole t: s.s, s.t and t.t; shape (4,).
        """
        whole = self._whole
        whole.clear()
        for leaf in self._watched:
            if (gradient := leaf.parameter.grad) is not None:
                self._add(whole, leaf, gradient)
        t = whole.entries
        return torch.stack([whole.squares.sum(), probed @ probed, probed @ t, t @ t])

    def _hook(self, leaf: Leaf) -> Callable[[Tensor], None]:
        """Make the hook of a leaf."""

        def hook(gradient: Tensor) -> None:
            if not self._muted:
                with self._timing(), torch.no_grad():
                    self._record(leaf, gradient if leaf.first is None else gradient - leaf.first)

        return hook

    def _record(self, leaf: Leaf, gradient: Tensor) -> None:
        """Take note of the gradient of one pass."""
        leaf.passes += 1
        self._add(self._seen, leaf, gradient)

    def _add(self, sums: Sums, leaf: Leaf, gradient: Tensor) -> None:
        """Add the norm and the probed entries of a gradient; a sparse one has no entry to look up cheaply."""
        entries = None if gradient.is_sparse else gradient.take(leaf.probes)
        sums.add(leaf.index, self._norm(leaf.parameter, gradient), entries)

    def _norm(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Return the norm of a gradient, in float32 or wider."""
        if self._metric:
            gradient = self._metric(parameter, gradient.to_dense())
        if gradient.is_sparse:
            gradient = gradient.coalesce().values()  # a row that was met twice has one gradient, the sum
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        if gradient.numel() > LONG and gradient.ndim > 1:
            outer = max(range(gradient.ndim), key=gradient.stride)  # what lies together in memory is summed together
            inner = tuple(i for i in range(gradient.ndim) if i != outer)
            gradient = torch.linalg.vector_norm(gradient, dim=inner, dtype=dtype)
        norm: Tensor = torch.linalg.vector_norm(gradient, dtype=dtype)
        return norm


def spread(p: Tensor) -> Tensor:
    """Choose indices of a few entries, evenly apart."""
    number = min(p.numel(), PROBES)
    return torch.arange(number, device=p.device) * (p.numel() // number)


def checked(model: nn.Module | Iterable[Tensor]) -> list[Tensor]:
    """Take the parameters of a model, each once.

    Args:
        model: a module, or parameters.

    Returns:
        Those with numbers in them.

    Raises:
        BadInput: there are none, or one is sharded, lazy, complex or no leaf.
    """
    named = model.named_parameters() if isinstance(model, nn.Module) else enumerate(model)
    found: dict[Tensor, str | int] = {}
    for name, p in named:
        if not isinstance(p, Tensor):
            raise BadInput(f"the model holds a {type(p).__name__}; give a module or its parameters")
        if type(p).__name__ in NOT_WHOLE:
            raise BadInput(
                f"parameter {name!r} is a {type(p).__name__}; gradients can be read only where they are whole"
            )
        if p.is_complex() or not p.is_leaf:
            what = "complex" if p.is_complex() else "computed from others"
            raise BadInput(f"parameter {name!r} is {what}; give real leaf parameters")
        if p.numel():
            found.setdefault(p, name)
    if not found:
        raise BadInput("the model has no parameters; give the one that is trained")
    return list(found)
