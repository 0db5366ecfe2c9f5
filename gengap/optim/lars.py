"""Layer-wise adaptive rate scaling (You et al. 2017)."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_decay, check_not_negative, check_positive
from gengap.optim.per_tensor import PerTensor, kept


class Lars(PerTensor):
    r"""Momentum whose step in every tensor is a fixed share of the tensor's length.

    .. math::
        \lambda = \tau \frac{\|w\|}{\|g\| + \beta \|w\| + \epsilon}, \qquad
        v \leftarrow m v + \gamma \lambda (g + \beta w), \qquad
        w \leftarrow w - v,

    with trust :math:`\tau`, weight decay :math:`\beta` and learning rate :math:`\gamma`. The rate is inside the velocity, unlike
    in `torch.optim.SGD`: when it changes, `gengap.optim.momentum_correction.correct_momentum` rescales the velocity.

    Tensors of one dimension (biases, scale and shift of norm layers) have :math:`\lambda = 1` unless `adapt_1d`: their
    length says nothing about the size of a good step. A tensor that is all zeros has :math:`\lambda = 1` too, or it would
    never move. The norms stay on the device; a step waits for nothing.

    Args:
        params: weights, or groups of them; every option may differ between groups.
        lr: global learning rate; with the usual trust of 0.001 it is of the order of 1 to 30.
        momentum: heavy-ball coefficient, in [0, 1).
        weight_decay: coefficient of :math:`\frac{\beta}{2}\|w\|^2` in the loss.
        trust: share of a tensor's length that one step may be, at lr 1.
        eps: added to the denominator.
        nesterov: step along :math:`u + m v` in place of v, where u is the newest addition to v.
        adapt_1d: treat tensors of one dimension like all others.

    Raises:
        BadInput: a number is out of its range, or Nesterov's form is asked for without momentum.

    Source:
        You, Gitman & Ginsburg 2017, arXiv:1708.03888, algorithm 1. The paper's networks decay lr with power 2 after a warm-up.
    """

    lr_in_velocity = True

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        eps: float = 0.0,
        nesterov: bool = False,
        adapt_1d: bool = False,
    ) -> None:
        check_not_negative(lr=lr, weight_decay=weight_decay, eps=eps)
        check_decay(momentum=momentum)
        check_positive(trust=trust)
        if nesterov and not momentum:
            raise BadInput("nesterov is a form of momentum, and momentum is 0; give a momentum or leave nesterov out")
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "eps": eps}
        super().__init__(params, options | {"nesterov": nesterov, "adapt_1d": adapt_1d})

    def _move(self, weight: Tensor, gradient: Tensor, memory: dict[str, Any], group: dict[str, Any]) -> None:
        """Do algorithm 1 of the paper in one tensor."""
        addition = gradient.add(weight, alpha=group["weight_decay"]).mul_(group["lr"])
        if weight.dim() > 1 or group["adapt_1d"]:
            addition.mul_(local_rate(weight, gradient, group))
        velocity = kept(memory, "momentum_buffer", weight).mul_(group["momentum"]).add_(addition)
        weight.sub_(addition.add_(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity)


def local_rate(weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Compute the rate of one tensor; 1 where the formula has a zero above or below."""
    length = torch.linalg.vector_norm(weight)
    below = torch.linalg.vector_norm(gradient) + group["weight_decay"] * length + group["eps"]
    return torch.where((length > 0) & (below > 0), group["trust"] * length / below, 1.0)
