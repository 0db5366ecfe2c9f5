"""What a change of the learning rate does to a velocity that has the rate inside (Goyal et al. 2017)."""

import torch
from torch.optim import Optimizer

from gengap.optim.arguments import check_not_negative


@torch.no_grad()
def correct_momentum(optimizer: Optimizer, old_lr: float, new_lr: float, *, inside: bool | None = None) -> None:
    r"""Rescale the velocity for a new learning rate; the rate itself is not changed.

    With :math:`v \leftarrow m v + g,\ w \leftarrow w - \eta v` (torch's SGD) a new rate multiplies old gradients too. With
    :math:`u \leftarrow m u + \eta g,\ w \leftarrow w - u` (LARS) old gradients keep the old rate; after
    :math:`u \leftarrow u \cdot \eta_{new} / \eta_{old}` both forms agree again, step by step.

    Call it once per change, between two steps. Optimizers with the rate outside the velocity (all of torch's) are left as
    they are, and so is a velocity that was made at rate 0, which is zero wherever the rate was always corrected.

    Args:
        optimizer: whose velocity is `state[weight]["momentum_buffer"]`.
        old_lr: the rate before the change; with several groups any group's, as only the ratio counts.
        new_lr: the rate of the same group after it.
        inside: whether the rate is inside the velocity; None asks the optimizer's attribute `lr_in_velocity`.

    Raises:
        BadInput: a rate is negative or not finite.

    Source:
        Goyal et al. 2017, arXiv:1706.02677, section 3, remark 2.
    """
    check_not_negative(old_lr=old_lr, new_lr=new_lr)
    if inside is None:
        inside = getattr(optimizer, "lr_in_velocity", False)
    if not inside or old_lr == 0:
        return
    for memory in optimizer.state.values():
        if memory.get("momentum_buffer") is not None:
            memory["momentum_buffer"].mul_(new_lr / old_lr)
