"""Batch norm of the parts of a batch as one function, with a backward pass of its own for speed.

Where more is asked of it (double backward, forward mode, `torch.func`) it is made of ordinary operations.
"""

from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor

from gengap.nets.norm_kernels import accumulator, parts_of


def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, parts: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each part of a batch with its own statistics.

    Args:
        x: (N, C, *positions).
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        parts: k, which divides N; a part is N / k consecutive samples.
        eps: added to the variances.

    Returns:
        The normalised batch, and means and biased variances, each (k, C), through which no gradient flows.
    """
    if torch._C._are_functorch_transforms_active() or fwAD._current_level >= 0:
        return by_definition(x, weight, bias, parts, eps)
    made, mean, var = Normalise.apply(x, weight, bias, parts, eps)  # type: ignore[no-untyped-call]
    return made, mean, var


def by_definition(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, parts: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `normalise` does in operations that can be transformed and differentiated to any order."""
    hat, var, mean = standardised(x, parts, eps)
    scaled = hat if weight is None else hat * weight.view(1, 1, -1, 1)
    shifted = scaled if bias is None else scaled + bias.view(1, 1, -1, 1)
    return shifted.reshape(x.shape).to(x.dtype), mean, var


def standardised(x: Tensor, parts: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Give (x - mean) / sqrt(var + eps) as (k, g, C, S), variances and means."""
    wide = x.reshape(parts, x.shape[0] // parts, x.shape[1], -1).to(accumulator(x))
    var, mean = torch.var_mean(wide, (1, 3), correction=0, keepdim=True)
    return (wide - mean) * (var + eps).rsqrt(), var[:, 0, :, 0], mean[:, 0, :, 0]


class Normalise(torch.autograd.Function):
    """`normalise` for the usual backward pass: two tensors of the size of the batch in all, and few passes over it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, parts: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise with y = scale * x + shift."""
        batch = parts_of(x, parts)
        mean, var = batch.moments()
        ctx.save_for_backward(x, weight, mean, var)
        ctx.parts, ctx.eps, ctx.has_bias = parts, eps, bias is not None
        ctx.mark_non_differentiable(mean, var)
        return batch.affine(*scale_and_shift(mean, var, weight, bias, eps)), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Give the gradients; if they are to be differentiated themselves, by the definition."""
        x, weight, mean, var = ctx.saved_tensors
        if torch.is_grad_enabled():
            dx, dweight, dbias = differentiable_gradients(x, weight, dy, ctx.parts, ctx.eps)
        else:
            batch, values = parts_of(x, ctx.parts), x.numel() / (ctx.parts * x.shape[1])
            plain, products = batch.sums(dy, mean)
            dx = batch.combine(dy, *input_gradient(plain, products, mean, var, weight, values, ctx.eps))
            dweight, dbias = (products * (var + ctx.eps).rsqrt()).sum(0), plain.sum(0)
        return dx, None if weight is None else dweight, dbias if ctx.has_bias else None, None, None


def scale_and_shift(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Write weight * (x - mean) / sqrt(var + eps) + bias as scale * x + shift."""
    scale = (var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


def input_gradient(
    plain: Tensor, products: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, values: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the gradient of the input as a * dy + b * x + c.

    Args:
        plain: sums of dy over each part, (k, C).
        products: sums of dy * (x - mean).
        mean: of each part.
        var: of each part, biased.
        weight: (C,), or None for 1.
        values: numbers in a sum.
        eps: added to the variances.

    Returns:
        a, b and c, each (k, C).
    """
    inverse = (var + eps).reciprocal()
    a = inverse.sqrt() if weight is None else inverse.sqrt() * weight
    b = -a * inverse * products / values
    return a, b, -a * plain / values - b * mean


def differentiable_gradients(
    x: Tensor, weight: Tensor | None, dy: Tensor, parts: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of input, weight and bias in operations that can be differentiated again."""
    hat, var, _ = standardised(x, parts, eps)
    d = dy.reshape(hat.shape).to(hat.dtype)
    dweight, dbias = (d * hat).sum((0, 1, 3)), d.sum((0, 1, 3))
    dhat = d if weight is None else d * weight.view(1, 1, -1, 1)
    centred = dhat - dhat.mean((1, 3), keepdim=True) - hat * (dhat * hat).mean((1, 3), keepdim=True)
    dx = centred * (var + eps).rsqrt()[:, None, :, None]
    return dx.reshape(x.shape).to(x.dtype), dweight, dbias
