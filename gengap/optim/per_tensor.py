"""The step that is the same for every optimizer that moves one tensor at a time."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.optim.wrapping import Closure


class PerTensor(Optimizer, ABC):
    """An optimizer whose rule looks at one weight tensor, its gradient and its memory."""

    @abstractmethod
    def _move(self, weight: Tensor, gradient: Tensor, memory: dict[str, Any], group: dict[str, Any]) -> None:
        """Move one tensor in place; `memory` is what was kept for it, `group` its options."""

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override] # the loss is a tensor
        """Move every weight that has a gradient.

        Args:
            closure: zeroes the gradients, computes the loss, goes backward and returns the loss; None where that was done.

        Returns:
            What the closure returned.

        Raises:
            BadInput: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if weight.grad.is_sparse:
                    raise BadInput(
                        f"{type(self).__name__} takes no sparse gradients; make the embedding with sparse=False"
                    )
                self._move(weight, weight.grad, self.state[weight], group)
        return loss


def kept(memory: dict[str, Any], name: str, like: Tensor) -> Tensor:
    """Give a tensor of a weight's memory; it begins at zero.

    Args:
        memory: of the weight.
        name: of the tensor.
        like: a tensor of the same shape, dtype and device.

    Returns:
        The tensor itself, to be changed in place.
    """
    if name not in memory:
        memory[name] = torch.zeros_like(like)
    found: Tensor = memory[name]
    return found
