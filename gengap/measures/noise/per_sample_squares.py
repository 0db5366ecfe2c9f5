r"""Squared norms of the gradients of single samples, from what layers were given and the slopes at what they gave.

The gradient of a sample by the weight of a linear layer is a sum of outer products over positions,
:math:`\sum_t \delta_t a_t^T`, with a_t the input and delta_t the slope there; a convolution is such a layer on patches.
For one position its squared norm is :math:`|\delta|^2 |a|^2` (Goodfellow 2015, arXiv:1510.01799); for several it is
:math:`\sum_{t t'} (\delta_t \cdot \delta_{t'}) (a_t \cdot a_{t'})`, or the product is made, whichever is cheaper.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gengap.measures.noise.per_sample_capture import Use

ELEMENTS = 1 << 20  # of the largest tensor made at once, unless one sample takes more: larger ones leave the cache
CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


def squares(use: Use, metric: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return the squared norm of every sample's gradient by the weights of one use.

    Args:
        use: of a layer.
        metric: factors of the squared entries of a gradient, by name; None: all 1.

    Returns:
        Shape (size,), float64, on the CPU.
    """
    total = torch.zeros(len(use.slope), dtype=torch.float64)
    for place, name in use.weights.items():
        factors = None if metric is None else metric[name]
        work = of_bias if place == "bias" else of_weight(use.function)
        total += work(use, factors).to("cpu", torch.float64)
    return total


def of_weight(function: Callable[..., Tensor]) -> Callable[[Use, Tensor | None], Tensor]:
    """Choose how the squares of a layer's weight are made."""
    if function is F.embedding:
        return of_embedding
    return of_products if function is F.linear or function in CONVOLUTIONS else of_scale


def of_bias(use: Use, factors: Tensor | None) -> Tensor:
    """Square what a bias gets: slopes summed over the positions of a sample."""
    return weighted(summed(use, use.slope), factors)


def of_scale(use: Use, factors: Tensor | None) -> Tensor:
    """Square what the scale of a normalisation gets: slopes times the normalised input, summed likewise."""
    normalised = use.function(**(dict(use.arguments) | {"weight": None, "bias": None}))
    return weighted(summed(use, use.slope * normalised), factors)


def summed(use: Use, x: Tensor) -> Tensor:
    """Sum over the positions of every sample what is shaped like the output, to the shape (size, C, ...) of a bias."""
    if use.function is F.layer_norm:
        last = len(use.arguments["normalized_shape"])
        return x.sum(tuple(range(1, x.ndim - last))) if x.ndim > last + 1 else x
    if use.function is F.linear:
        return x.flatten(1, -2).sum(1) if x.ndim > 2 else x
    return x.flatten(2).sum(2) if x.ndim > 2 else x


def weighted(rows: Tensor, factors: Tensor | None) -> Tensor:
    """Return the squared norms of rows, shape (size, ...), their squares multiplied by factors."""
    square = rows.square() if factors is None else rows.square() * factors
    return square.flatten(1).sum(1)


def of_embedding(use: Use, factors: Tensor | None) -> Tensor:
    """Square what the rows of a table get; a row looked up several times by one sample gets the sum."""
    index, rows = use.input.flatten(1), use.arguments["weight"].shape[0]
    samples = torch.arange(len(index), device=index.device).repeat_interleave(index.shape[1])
    found, place = torch.unique(samples * rows + index.flatten(), return_inverse=True)
    slope = use.slope.reshape(len(place), -1)
    sums = slope.new_zeros(len(found), slope.shape[1]).index_add_(0, place, slope)
    square = weighted(sums, None if factors is None else factors[found % rows])
    return slope.new_zeros(len(index)).index_add_(0, found // rows, square)


def of_products(use: Use, factors: Tensor | None) -> Tensor:
    """Square sums of outer products, some samples at a time."""
    parts = []
    for block in blocks(use):
        inputs, slopes = patches(block) if use.function in CONVOLUTIONS else positions(block)
        shaped = None if factors is None else factors.reshape(inputs.shape[1], slopes.shape[3], inputs.shape[3])
        parts.append(product_squares(inputs, slopes, shaped))
    return torch.cat(parts)


def blocks(use: Use) -> Iterator[Use]:
    """Cut a use so that no tensor made of a block is larger than it needs to be."""
    weight, size = use.arguments["weight"], len(use.slope)
    spots = use.slope.numel() // (size * weight.shape[0])
    if spots == 1 and use.function is F.linear:
        yield use
        return
    patch = weight[0].numel() * int(use.arguments.get("groups", 1)) * spots
    step = max(1, ELEMENTS // max(patch, weight.numel(), 1))
    for start in range(0, size, step):
        yield use.cut(start, start + step)


def positions(use: Use) -> tuple[Tensor, Tensor]:
    """Give inputs, shape (size, 1, T, I), and slopes, shape (size, 1, T, O), of a linear layer."""

    def shaped(x: Tensor) -> Tensor:
        return x.reshape(len(x), 1, -1, x.shape[-1])

    return shaped(use.input), shaped(use.slope)


def patches(use: Use) -> tuple[Tensor, Tensor]:
    """Give the patches a convolution was applied to, shape (size, groups, T, I), and slopes, shape (size, groups, T, O)."""
    weight, groups = use.arguments["weight"], int(use.arguments.get("groups", 1))
    kernel = weight.shape[2:]
    stride, dilation = (spread(use.arguments.get(key, 1), len(kernel)) for key in ("stride", "dilation"))
    x = F.pad(use.input, padding(use.arguments.get("padding", 0), kernel, dilation))
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    spots = len(kernel)
    x = x.unflatten(1, (groups, -1)).movedim(2, 2 + spots)  # (size, groups, *spots, channels, *kernel)
    x = x.flatten(2 + spots).flatten(2, 1 + spots)
    return x, use.slope.unflatten(1, (groups, -1)).flatten(3).mT


def spread(value: Any, axes: int) -> tuple[int, ...]:
    """Give a setting of a convolution for every axis."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
    """Give the padding of every axis as `F.pad` takes it: last axis first, before and after."""
    if value == "valid":
        value = 0
    if value == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(p, p) for p in spread(value, len(kernel))]
    return [side for pair in reversed(sides) for side in pair]


def product_squares(inputs: Tensor, slopes: Tensor, factors: Tensor | None) -> Tensor:
    r"""Square :math:`\sum_t \delta_t a_t^T`.

    Args:
        inputs: a, shape (size, groups, T, I).
        slopes: delta, shape (size, groups, T, O).
        factors: of the squared entries, shape (groups, O, I), or None.

    Returns:
        The squared norms, summed over groups, shape (size,).
    """
    T, I, O = inputs.shape[2], inputs.shape[3], slopes.shape[3]  # noqa: E741 - as in the formula
    if T == 1:
        a, d = inputs.square(), slopes.square()
        if factors is None:
            return (a.sum(3) * d.sum(3)).flatten(1).sum(1)
        return (a @ factors.mT * d).flatten(1).sum(1)
    if factors is None and T * (I + O) < I * O:
        return (inputs @ inputs.mT).mul_(slopes @ slopes.mT).flatten(1).sum(1)
    return weighted(slopes.mT @ inputs, factors)
