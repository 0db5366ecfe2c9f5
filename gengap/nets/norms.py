"""Ghost batch norm: each of the consecutive ghost batches that a large batch consists of is normalised by itself.

Source: Hoffer, Hubara & Soudry 2017 (arXiv:1705.08741), algorithm 1. `gengap.nets.norm_conversion` puts it into models.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.core.errors import BadInput
from gengap.nets.part_norm import normalise


class _GhostBatchNorm(_BatchNorm):
    """What the three ghost layers share; see `GhostBatchNorm2d`."""

    def __init__(
        self, num_features: int, ghost_size: int, eps: float = 1e-5, momentum: float | None = 0.1, **options: Any
    ) -> None:
        super().__init__(num_features, eps, momentum, **options)
        self.ghost_size = checked_ghost_size(ghost_size)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; see the class."""
        if not self.training or input.shape[0] <= self.ghost_size:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        check_channels(self, input)
        left_over = input.shape[0] % self.ghost_size
        smallest = left_over or self.ghost_size
        if smallest * input[0, 0].numel() == 1:
            raise BadInput(
                f"a batch of {input.shape[0]:,} samples leaves a ghost batch of one value per channel, which has no variance; "
                f"choose another ghost_size than {self.ghost_size}, or leave the odd sample out of the batch"
            )
        made, means, variances = zip(*(self._normalised(part) for part in divided(input, left_over)), strict=True)
        track(self, torch.cat(means), torch.cat(variances))
        return made[0] if len(made) == 1 else torch.cat(made)

    def extra_repr(self) -> str:
        """Say the ghost size with the rest."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"  # type: ignore[no-untyped-call]

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise ghost batches of equal size; with means and unbiased variances (k, C)."""
        ghosts = max(1, x.shape[0] // self.ghost_size)
        made, mean, var = normalise(x, self.weight, self.bias, ghosts, self.eps)
        values = x.numel() / (ghosts * x.shape[1])
        return made, mean.detach(), var.detach() * (values / (values - 1))


class GhostBatchNorm1d(_GhostBatchNorm, nn.BatchNorm1d):
    """`GhostBatchNorm2d` for inputs (N, C) and (N, C, L)."""


class GhostBatchNorm2d(_GhostBatchNorm, nn.BatchNorm2d):
    r"""Batch norm in which every `ghost_size` consecutive samples are normalised with their own mean and variance.

    It is a `torch.nn.BatchNorm2d` with the same parameters, buffers and `state_dict`, and differs from it in training mode
    only. A forward and backward pass equals as many passes of `ghost_size` samples each through batch norm, in order:
    outputs, gradients, and running statistics, which each of the k ghost batches moves once,

    .. math::
        r \leftarrow (1 - \eta)^k r + \sum_{i=1}^{k} \eta (1 - \eta)^{k-i} s_i

    with momentum :math:`\eta` and unbiased variances, or the mean over all ghost batches seen where momentum is None.
    If the batch is not divisible, the last ghost batch is smaller; a batch of at most `ghost_size` is one ghost batch.

    In evaluation mode it is plain batch norm; without running statistics that is the whole batch as one.

    Cost: about that of plain batch norm, whatever the number of ghost batches; double backward, forward mode and `torch.func`
    work at the cost of elementwise operations. See benchmarks/ghost_batch_norm.py.

    Args:
        num_features: channels C of inputs (N, C, H, W).
        ghost_size: samples in a ghost batch, >= 1.
        eps: added to the variance.
        momentum: weight of the newest ghost batch in the running statistics; None for their plain mean.
        options: affine, track_running_stats, device, dtype as in torch.

    Raises:
        BadInput: `ghost_size` is no positive whole number; in a forward pass, a ghost batch has one value per channel.

    Source:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1; their code makes one pass per ghost batch.
    """


class GhostBatchNorm3d(_GhostBatchNorm, nn.BatchNorm3d):
    """`GhostBatchNorm2d` for inputs (N, C, D, H, W)."""


def checked_ghost_size(ghost_size: int) -> int:
    """Return a ghost size that can be used.

    Args:
        ghost_size: samples.

    Returns:
        The same.

    Raises:
        BadInput: it is no whole number, or below 1.
    """
    if not isinstance(ghost_size, int) or isinstance(ghost_size, bool) or ghost_size < 1:
        raise BadInput(f"ghost_size is {ghost_size!r}; give the samples of a ghost batch, a whole number >= 1")
    return ghost_size


def check_channels(norm: _BatchNorm, x: Tensor) -> None:
    """Refuse inputs with another number of channels, which torch's kernels find out by running statistics only.

    Args:
        norm: the layer.
        x: its input.

    Raises:
        BadInput: the channels differ.
    """
    if x.shape[1] != norm.num_features:
        raise BadInput(
            f"the input has {x.shape[1]} channels and the batch norm {norm.num_features}; give both the same"
        )


def divided(x: Tensor, left_over: int) -> tuple[Tensor, ...]:
    """Part the samples that fill whole ghost batches from those that are left over."""
    return x.split([x.shape[0] - left_over, left_over]) if left_over else (x,)


def track(norm: _BatchNorm, means: Tensor, variances: Tensor) -> None:
    """Move running statistics as k batches one after the other would.

    Args:
        norm: whose buffers are changed, if it tracks any.
        means: of each batch, (k, C).
        variances: of each batch, unbiased, (k, C).
    """
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    k = len(means)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(k)
    for running, found in ((norm.running_mean, means), (norm.running_var, variances)):
        statistics = found.to(running.dtype)
        if norm.momentum is not None:
            age = torch.arange(k - 1, -1, -1, device=running.device, dtype=running.dtype).unsqueeze(1)
            kept = 1 - norm.momentum
            running.mul_(kept**k).add_((norm.momentum * kept**age * statistics).sum(0))
        elif norm.num_batches_tracked is not None:
            running.lerp_(statistics.mean(0), k / norm.num_batches_tracked.to(running.dtype))
