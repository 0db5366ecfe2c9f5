"""Layer-wise adaptive moments for batch training (You et al. 2020)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_decay, check_not_negative
from gengap.optim.per_tensor import PerTensor, kept


class Lamb(PerTensor):
    r"""Adam's direction with decoupled weight decay, rescaled in every tensor to the tensor's own length.

    .. math::
        r = \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \beta w, \qquad
        w \leftarrow w - \gamma \frac{\|w\|}{\|r\|}\, r,

    where m and v are running averages of the gradient and of its square.

    Tensors of one dimension (biases, scale and shift of norm layers) take the step without the ratio unless `adapt_1d`, as in
    the authors' code; a tensor that is all zeros does so too, or it would never move. The paper's function of the
    length is the identity, as in its experiments.

    Args:
        params: weights, or groups of them; every option may differ between groups.
        lr: learning rate: with the ratio, the relative length of one step.
        betas: coefficients of the averages m and v, each in [0, 1).
        eps: added to the square root of v.
        weight_decay: decoupled, inside the ratio.
        bias_correction: divide m and v by what they lack for having begun at zero; without it the first steps are
            another warm-up, as the ratio makes good for the scale.
        trust_bounds: (lowest, highest) value of the ratio, or None for no limits.
        adapt_1d: treat tensors of one dimension like all others.

    Raises:
        BadInput: a number is out of its range.

    Source:
        You et al. 2020, arXiv:1904.00962, algorithm 2.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        trust_bounds: tuple[float, float] | None = None,
        adapt_1d: bool = False,
    ) -> None:
        check_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        check_decay(beta_1=betas[0], beta_2=betas[1])
        if trust_bounds is not None and not 0 <= trust_bounds[0] <= trust_bounds[1]:
            raise BadInput(f"trust_bounds is {trust_bounds}; give (lowest, highest) with 0 <= lowest <= highest")
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "trust_bounds": trust_bounds}
        super().__init__(params, options | {"bias_correction": bias_correction, "adapt_1d": adapt_1d})

    def _move(self, weight: Tensor, gradient: Tensor, memory: dict[str, Any], group: dict[str, Any]) -> None:
        """Do algorithm 2 of the paper in one tensor."""
        memory["step"] = memory.get("step", 0) + 1
        first, second = group["betas"]
        mean = kept(memory, "exp_avg", weight).lerp_(gradient, 1 - first)
        square = kept(memory, "exp_avg_sq", weight).mul_(second).addcmul_(gradient, gradient, value=1 - second)
        whole_mean = 1 - first ** memory["step"] if group["bias_correction"] else 1.0
        whole_square = 1 - second ** memory["step"] if group["bias_correction"] else 1.0
        below = square.sqrt().div_(math.sqrt(whole_square)).add_(group["eps"])
        direction = mean.div(below).div_(whole_mean).add_(weight, alpha=group["weight_decay"])
        if weight.dim() > 1 or group["adapt_1d"]:
            direction.mul_(trust_ratio(weight, direction, group["trust_bounds"]))
        weight.sub_(direction, alpha=group["lr"])


def trust_ratio(weight: Tensor, direction: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """Compute the ratio of two lengths, within bounds; 1 where one of them is zero."""
    length, stride = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(direction)
    ratio = torch.where((length > 0) & (stride > 0), length / stride, 1.0)
    return ratio if bounds is None else ratio.clamp(*bounds)
