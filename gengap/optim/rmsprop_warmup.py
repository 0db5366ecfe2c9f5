"""A start with RMSprop that turns into momentum SGD (Akiba et al. 2017)."""

import math
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_decay, check_not_negative, check_positive
from gengap.optim.per_tensor import PerTensor, kept


class RmspropWarmup(PerTensor):
    r"""Momentum along a mixture of the gradient and of RMSprop's direction, whose shares the caller moves.

    .. math::
        s \leftarrow \mu_2 s + (1 - \mu_2) g^2, \qquad
        \Delta \leftarrow \mu_1 \Delta - \Big(\alpha + \frac{(1 - \alpha)\, \eta_r / \eta}{\sqrt{s} + \epsilon}\Big) g, \qquad
        w \leftarrow w + \eta \Delta.

    The share of SGD, :math:`\alpha`, begins near 0 and ends at 1, where the rule is that of `torch.optim.SGD`. Call
    `set_progress(epochs)` before every step (or every epoch), or set `alpha_sgd` in the groups. It is saved with the state.

    Args:
        params: weights, or groups of them; every option may differ between groups.
        lr: :math:`\eta`, the rate of SGD; schedules may change it.
        lr_rms: :math:`\eta_r`, the rate of RMSprop, not scaled with the batch.
        momentum: :math:`\mu_1`, in [0, 1).
        alpha: :math:`\mu_2`, the coefficient of the running average of squares, in [0, 1).
        eps: added to the root of it.
        weight_decay: L2 coefficient; its gradient is part of g.

    Raises:
        BadInput: a number is out of its range.

    Source:
        Akiba, Suzuki & Fukuda 2017, arXiv:1711.04325, section 3.1; the running average has no bias correction, as there.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        lr_rms: float = 3e-4,
        momentum: float = 0.9,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative(lr=lr, lr_rms=lr_rms, eps=eps, weight_decay=weight_decay)
        check_decay(momentum=momentum, alpha=alpha)
        options = {"lr": lr, "lr_rms": lr_rms, "momentum": momentum, "alpha": alpha, "eps": eps}
        super().__init__(params, options | {"weight_decay": weight_decay, "alpha_sgd": sgd_share(0.0)})

    def set_progress(self, epochs: float, *, center: float = 10.0, period: float = 5.0) -> None:
        """Set the share of SGD in all groups for a point of the training.

        Args:
            epochs: passes over the training set so far, with fractions: samples seen / training samples.
            center: where the share is one half, in epochs.
            period: how long the transition takes, in epochs.
        """
        share = sgd_share(epochs, center=center, period=period)
        for group in self.param_groups:
            group["alpha_sgd"] = share

    def _move(self, weight: Tensor, gradient: Tensor, memory: dict[str, Any], group: dict[str, Any]) -> None:
        """Do the rule in one tensor."""
        slope = gradient.add(weight, alpha=group["weight_decay"])
        square = kept(memory, "square_avg", weight).mul_(group["alpha"])
        square.addcmul_(slope, slope, value=1 - group["alpha"])
        lr, share = group["lr"], group["alpha_sgd"]
        rms = (1 - share) * group["lr_rms"] / lr if lr else 0.0
        direction = slope.mul(share).addcdiv_(slope, square.sqrt().add_(group["eps"]), value=rms)
        velocity = kept(memory, "momentum_buffer", weight).mul_(group["momentum"]).add_(direction)
        weight.sub_(velocity, alpha=lr)


def sgd_share(epochs: float, *, center: float = 10.0, period: float = 5.0) -> float:
    """Compute the share of SGD: it grows exponentially up to one half, then linearly up to one.

    Args:
        epochs: passes over the training set so far, with fractions, >= 0.
        center: where the share is one half, in epochs.
        period: twice the time from one half to one, in epochs; the slope at the centre is 1 / period on both sides.

    Returns:
        A number in (0, 1].

    Raises:
        BadInput: epochs is negative or not finite, or the period is not positive.

    Source:
        Akiba, Suzuki & Fukuda 2017, arXiv:1711.04325, section 3.1, with centre 10 and period 5.
    """
    check_not_negative(epochs=epochs)
    check_positive(period=period)
    if not math.isfinite(center):
        raise BadInput(f"center is {center}; give the epoch where half of the step is that of SGD")
    if epochs < center:
        return 0.5 * math.exp(2 * (epochs - center) / period)
    return min(1.0, 0.5 + (epochs - center) / period)
