"""Batch norm whose statistics are shared by groups of consecutive ranks of `torch.distributed`, on CPU and GPU.

`torch.nn.SyncBatchNorm` does so on GPUs only.
"""

from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.core.errors import BadInput
from gengap.nets.norm_kernels import parts_of
from gengap.nets.norms import check_channels, track
from gengap.nets.part_norm import input_gradient, scale_and_shift

Span = int | Literal["all", "rank"]


class _SpanBatchNorm(_BatchNorm):
    """What the three span layers share; see `SpanBatchNorm2d`."""

    def __init__(
        self, num_features: int, span: Span = "all", eps: float = 1e-5, momentum: float | None = 0.1, **options: Any
    ) -> None:
        super().__init__(num_features, eps, momentum, **options)
        self.span = checked_span(span)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; see the class."""
        group = group_of(self.span) if self.training else None
        if group is None:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        check_channels(self, input)
        made, mean, var, values = Shared.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, group
        )
        track(self, mean, var * (values / (values - 1)))
        return made  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Say the span with the rest."""
        return f"{super().extra_repr()}, span={self.span!r}"  # type: ignore[no-untyped-call]


class SpanBatchNorm1d(_SpanBatchNorm, nn.BatchNorm1d):
    """`SpanBatchNorm2d` for inputs (N, C) and (N, C, L)."""


class SpanBatchNorm2d(_SpanBatchNorm, nn.BatchNorm2d):
    """Batch norm with the mean and variance of the joint batch of `span` consecutive ranks.

    Outputs, gradients of inputs and running statistics are those of one process that has the samples of these ranks; they may
    have different numbers of samples, or none. Gradients of weight and bias are those of the rank's own samples, as with all
    other layers; `DistributedDataParallel` averages them. All ranks must come through the layer equally often.

    In evaluation mode, and where `torch.distributed` is not initialised or the group is one rank, it is a
    `torch.nn.BatchNorm2d`, whose parameters, buffers and `state_dict` it has in any case.

    Cost: one message of 2 C + 1 numbers to each other rank going forward, a sum of 2 C going back. Differentiable once.

    Args:
        num_features: channels C of inputs (N, C, H, W).
        span: ranks that share statistics, >= 1; "all" of them; "rank" is 1. The last group has those that are left over.
        eps: added to the variance.
        momentum: as in torch.
        options: affine, track_running_stats, device, dtype as in torch.

    Raises:
        BadInput: `span` is none of these; in a forward pass on a CPU, a group has one value per channel (on a GPU, where to
            look would be to wait, the running variance becomes infinite).

    Source:
        Goyal et al. 2017 (arXiv:1706.02677) keep statistics per worker, whatever the number of workers; Hoffer et al. 2017
        (arXiv:1705.08741) say why the number of samples that share them matters.
    """


class SpanBatchNorm3d(_SpanBatchNorm, nn.BatchNorm3d):
    """`SpanBatchNorm2d` for inputs (N, C, D, H, W)."""


def checked_span(span: Span) -> Span:
    """Return a span that can be used.

    Args:
        span: ranks, "all" or "rank".

    Returns:
        The same.

    Raises:
        BadInput: it is nothing of that.
    """
    whole = isinstance(span, int) and not isinstance(span, bool) and span >= 1
    if not whole and span not in {"all", "rank"}:
        raise BadInput(f"span is {span!r}; give the number of ranks that share statistics, >= 1, or 'all' or 'rank'")
    return span


GROUPS: WeakKeyDictionary[dist.ProcessGroup, dict[int, dist.ProcessGroup]] = WeakKeyDictionary()


def group_of(span: Span) -> dist.ProcessGroup | None:
    """Find this rank's group, or None if it shares with nobody; all ranks must call it together the first time.

    Args:
        span: ranks in a group, "all" or "rank".

    Returns:
        A group of two ranks or more.
    """
    if span in {"rank", 1} or not (dist.is_available() and dist.is_initialized()):
        return None
    world, everyone = dist.get_world_size(), dist.group.WORLD
    if world == 1 or everyone is None:
        return None
    if not isinstance(span, int) or span >= world:
        return everyone
    made = GROUPS.setdefault(everyone, {})
    if span not in made:
        # A layer holds no group, for groups can be neither copied nor stored. Every rank has to take part in making each.
        groups = [dist.new_group(list(range(i, min(i + span, world)))) for i in range(0, world, span)]
        made[span] = groups[dist.get_rank() // span]
    return made[span] if dist.get_world_size(made[span]) > 1 else None


class Shared(torch.autograd.Function):
    """Batch norm over the joint batch of a group."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise; also give mean and biased variance (1, C) and the number of values per channel."""
        batch = parts_of(x, 1)
        mean, var, values = joint_moments(*batch.moments(), x.numel() // x.shape[1], group)
        ctx.save_for_backward(x, weight, mean, var, values)
        ctx.eps, ctx.group, ctx.has_bias = eps, group, bias is not None
        ctx.mark_non_differentiable(mean, var, values)
        return batch.affine(*scale_and_shift(mean, var, weight, bias, eps)), mean, var, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Give the gradients; that of the input takes the sums over the group."""
        x, weight, mean, var, values = ctx.saved_tensors
        batch = parts_of(x, 1)
        plain, products = batch.sums(dy, mean)
        joint = torch.stack([plain, products])
        dist.all_reduce(joint, group=ctx.group)
        dx = batch.combine(dy, *input_gradient(joint[0], joint[1], mean, var, weight, values, ctx.eps))
        dweight = None if weight is None else (products * (var + ctx.eps).rsqrt()).sum(0)
        return dx, dweight, plain.sum(0) if ctx.has_bias else None, None, None


def joint_moments(mean: Tensor, var: Tensor, values: int, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Put the moments of the ranks together.

    Args:
        mean: of this rank, (1, C).
        var: of this rank, biased.
        values: numbers that these are moments of.
        group: the ranks.

    Returns:
        Mean and biased variance of all, and how many numbers there are.

    Raises:
        BadInput: there is one number per channel.
    """
    own = torch.cat([mean.flatten(), var.flatten(), mean.new_tensor([values])])
    each = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(each, own, group=group)
    table = torch.stack(each)
    means, variances = table[:, :-1].chunk(2, dim=1)
    share = table[:, -1:] / table[:, -1].sum()
    joint = (share * means).sum(0, keepdim=True)
    total = table[:, -1].sum()
    if total.device.type == "cpu" and total < 2:
        raise BadInput(
            "the ranks that share batch norm statistics have one value per channel in all; give them more samples"
        )
    return joint, (share * (variances + (means - joint).square())).sum(0, keepdim=True), total
