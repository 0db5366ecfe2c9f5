"""What batch norm of several parts of a batch is made of: statistics of each part, and maps that are linear in a part.

Torch's own kernels want the parts along the channel axis, which costs a copy of the activations both ways. Here the batch
stays where it is, and each of forward and backward allocates one tensor of its size, as plain batch norm does: on
a CPU fresh memory costs about as much as the arithmetic. There is one class for each way in which activations lie in memory.
What they return is no view, so that an activation function may work in place on it.

Shapes: N samples in k parts of g, C channels, S positions of a sample; a value per part and channel is (k, C).
"""

import math
from typing import Protocol

import torch
from torch import Tensor

aten = torch.ops.aten
WITH_KERNELS = ("cpu", "cuda")  # devices that can count moments without normalising


class Parts(Protocol):
    """The parts of a batch x."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Give mean and variance (divided by the count) of each part and channel, each (k, C), at least float32."""
        ...

    def affine(self, scale: Tensor, shift: Tensor) -> Tensor:
        """Give scale * x + shift, for scale and shift (k, C), in the shape and dtype of x."""
        ...

    def sums(self, gradient: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Give the sums of gradient and of gradient * (x - mean) over each part, each (k, C)."""
        ...

    def combine(self, gradient: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Give a * gradient + b * x + c, for a, b and c (k, C), in the shape and dtype of x."""
        ...


def parts_of(x: Tensor, count: int) -> Parts:
    """Choose the class that suits the memory of a batch.

    Args:
        x: (N, C, *positions).
        count: parts k, which divides N.

    Returns:
        The batch in parts of consecutive samples.
    """
    in_rows = x.ndim > 2 and x.numel() > 0 and x.is_contiguous() and x.device.type in WITH_KERNELS
    return Rows(x, count) if in_rows else Columns(x, count)


class Rows:
    """Positions of a sample and channel side by side: N C rows of S values, as contiguous images are.

    A row is a channel to torch's kernels. Moments of rows make moments of parts by the law of total variance, which, other than
    a mean of squares, loses nothing to cancellation.
    """

    def __init__(self, x: Tensor, count: int) -> None:
        self._x = x
        self._parts = (count, x.shape[0] // count, x.shape[1])
        self._rows = self._in_rows(x)
        dtype = accumulator(x)
        self._zeros = torch.zeros(self._rows.shape[1], dtype=dtype, device=x.device)
        self._ones = torch.ones_like(self._zeros)

    def moments(self) -> tuple[Tensor, Tensor]:
        """See `Parts`."""
        mean, var = (t.view(self._parts) for t in channel_moments(self._rows))
        whole = mean.mean(1)
        return whole, (var + (mean - whole.unsqueeze(1)).square()).mean(1)

    def affine(self, scale: Tensor, shift: Tensor) -> Tensor:
        """See `Parts`."""
        made = torch.empty_like(self._x)
        self._write(self._in_rows(made), scale, shift)
        return made

    def sums(self, gradient: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parts`."""
        _, products, plain = aten.native_batch_norm_backward(
            self._in_rows(gradient),
            self._rows,
            self._ones,
            self._spread(mean),
            self._ones,
            None,
            None,
            False,
            0.0,
            [False, True, True],
        )
        return plain.view(self._parts).sum(1), products.view(self._parts).sum(1)

    def combine(self, gradient: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """See `Parts`."""
        made = torch.empty_like(self._x)
        self._write(self._in_rows(made), b, c)
        factor = self._spread(a).view(1, -1, 1).to(made.dtype)
        self._in_rows(made).addcmul_(self._in_rows(gradient), factor)
        return made

    def _write(self, rows: Tensor, scale: Tensor, shift: Tensor) -> None:
        """Normalise with mean 0 and variance 1, so that only weight and bias act."""
        unused = self._zeros[:0]
        aten.native_batch_norm.out(
            self._rows,
            self._spread(scale),
            self._spread(shift),
            self._zeros,
            self._ones,
            False,
            0.0,
            0.0,
            out=rows,
            save_mean=unused.clone(),
            save_invstd=unused.clone(),
        )

    def _spread(self, values: Tensor) -> Tensor:
        """Repeat (k, C) for every row; the kernels read memory without a look at strides."""
        return values.unsqueeze(1).expand(self._parts).reshape(-1).contiguous()

    def _in_rows(self, t: Tensor) -> Tensor:
        return t.reshape(1, t.shape[0] * t.shape[1], -1)


class Columns:
    """Channels side by side: g S rows of C values for each part, as vectors and channels_last images are."""

    def __init__(self, x: Tensor, count: int) -> None:
        self._x = x
        self._shape = (count, x.shape[0] // count * math.prod(x.shape[2:]), x.shape[1])
        self._columns = self._in_columns(x).contiguous()
        self._dtype = accumulator(x)
        self._left_behind: Tensor | None = None

    def moments(self) -> tuple[Tensor, Tensor]:
        """See `Parts`."""
        k, M, C = self._shape
        if not M:  # a rank may have no samples
            return (torch.zeros(k, C, dtype=self._dtype, device=self._x.device),) * 2
        if self._x.device.type not in WITH_KERNELS:
            var, mean = torch.var_mean(self._columns.to(self._dtype), 1, correction=0)
            return mean, var
        # The kernel wants the parts along the channel axis; the memory of the copy becomes the output.
        self._left_behind = self._fresh()
        side_by_side = self._left_behind.movedim(1, -1).view(M, k, C).copy_(self._columns.transpose(0, 1))
        mean, var = channel_moments(side_by_side.view(M, k * C))
        return mean.view(k, C), var.view(k, C)

    def affine(self, scale: Tensor, shift: Tensor) -> Tensor:
        """See `Parts`."""
        return self._affine(scale, shift).to(self._x.dtype)

    def sums(self, gradient: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parts`."""
        columns = self._in_columns(gradient)
        self._left_behind = self._fresh()
        products = torch.mul(self._columns.to(self._dtype), columns, out=self._in_columns(self._left_behind))
        plain = columns.sum(1, dtype=self._dtype)
        return plain, products.sum(1) - mean * plain

    def combine(self, gradient: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """See `Parts`."""
        made = self._affine(b, c)
        self._in_columns(made).addcmul_(self._in_columns(gradient), a.unsqueeze(1))
        return made.to(self._x.dtype)

    def _affine(self, scale: Tensor, shift: Tensor) -> Tensor:
        """Write scale * x + shift over what the reduction before it left behind."""
        made = self._fresh() if self._left_behind is None else self._left_behind
        self._left_behind = None
        torch.addcmul(shift.unsqueeze(1), self._columns, scale.unsqueeze(1), out=self._in_columns(made))
        return made

    def _fresh(self) -> Tensor:
        """Allocate the shape of x with channels side by side."""
        like = self._columns.view(self._x.movedim(1, -1).shape).movedim(-1, 1)
        return torch.empty_like(like, dtype=self._dtype)

    def _in_columns(self, t: Tensor) -> Tensor:
        return t.movedim(1, -1).reshape(self._shape)


def channel_moments(t: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and variance of each channel of (B, C, ...), in `accumulator(t)`."""
    # Running statistics, used for nothing, make the kernel answer in their dtype where t has half precision.
    unused = torch.zeros(2, t.shape[1], dtype=torch.float32, device=t.device) if t.itemsize == 2 else (None, None)
    mean, var = torch.batch_norm_update_stats(t, unused[0], unused[1], 0.0)
    return mean, var


def accumulator(x: Tensor) -> torch.dtype:
    """Name the dtype that statistics of x are kept in."""
    return torch.promote_types(x.dtype, torch.float32)
