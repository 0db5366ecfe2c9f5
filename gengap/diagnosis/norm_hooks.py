"""Batch norm under observation: each call is noted, and each sample is normalised by itself instead, over channels and places.

So a sample's gradient does not depend on its batch, and activations keep their size whatever the running statistics are.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.diagnosis.watch import Watch

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def norms(watch: Watch) -> Iterator[tuple[Any, str, Wrap]]:
    """Say what is replaced: the function behind batch norm, and layers that do not use it."""
    yield functional, "batch_norm", lambda _: function(watch)
    yield nn.SyncBatchNorm, "forward", lambda _: layer(watch)
    for kind in {type(m) for m in watch.model.modules() if isinstance(m, _BatchNorm)} - {nn.SyncBatchNorm}:
        if kind.forward is not _BatchNorm.forward:
            yield kind, "forward", lambda _: layer(watch)


def function(watch: Watch) -> Callable[..., Any]:
    """Stand in for torch.nn.functional.batch_norm, with its parameters."""

    def batch_norm(
        input: Tensor,
        running_mean: Any,  # noqa: ARG001
        running_var: Any,  # noqa: ARG001
        weight: Any = None,
        bias: Any = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        watch.norm(len(input), momentum, training=training, synchronised=False)
        return functional.group_norm(input, 1, weight, bias, eps)

    return batch_norm


def layer(watch: Watch) -> Callable[..., Any]:
    """Stand in for the forward method of a batch-norm layer."""

    def forward(norm: Any, x: Tensor) -> Tensor:
        shared = isinstance(norm, nn.SyncBatchNorm) or getattr(norm, "span", None) == "all"
        ghost = getattr(norm, "ghost_size", None)
        watch.norm(len(x), norm.momentum, training=norm.training, synchronised=shared, ghost=ghost)
        return functional.group_norm(x, 1, norm.weight, norm.bias, norm.eps)

    return forward
