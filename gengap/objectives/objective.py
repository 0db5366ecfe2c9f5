"""What stands in the place of the plain loss during training."""

from typing import Protocol

from torch import Tensor, nn
from torch.func import functional_call

from gengap.problem.losses import MeanLoss
from gengap.problem.trees import Tree, arguments, feed


class Objective(Protocol):
    """What an update descends on; tests and measurements keep the plain loss."""

    def __call__(
        self,
        model: nn.Module,
        loss: MeanLoss,
        inputs: Tree,
        targets: Tensor,
        *,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> Tensor:
        """Give the objective, a differentiable scalar, mean over samples.

        `indices` are the samples' places in the training set, shape (B,). Where both are given, what is drawn for a sample
        depends on seed, epoch and sample alone, and not on the batch it is in.
        """
        ...


def plain(
    model: nn.Module,
    loss: MeanLoss,
    inputs: Tree,
    targets: Tensor,
    *,
    indices: Tensor | None = None,
    epoch: int = 0,
) -> Tensor:
    """Give the mean loss itself."""
    del indices, epoch
    return loss(feed(model, inputs), targets)


def feed_aside(model: nn.Module, inputs: Tree) -> Tensor:
    """Call a model without leaving a trace in its buffers: what batch norm would add to running statistics is dropped.

    In training mode batch norm still normalises by the statistics of these inputs.

    Args:
        model: in any mode.
        inputs: a tensor; a tuple spreads over the model's arguments, a dict over its keyword arguments.

    Returns:
        The outputs, differentiable by weights and inputs.
    """
    copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return functional_call(model, copies, *arguments(inputs))  # type: ignore[no-any-return]
