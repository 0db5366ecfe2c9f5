"""Random numbers without a state: each is a hash of a key, a sample's index and the number of the draw.

What sample 17 gets then depends neither on the batch it is in, nor on the order, nor on how the samples are spread over
micro-batches, ranks and devices; and a resumed run needs nothing but its epoch to go on with the same numbers. Every sample
has a SplitMix64 sequence of its own (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195), whose state is the sample's
number in the SplitMix64 sequence that begins at the key. Unsigned 64-bit arithmetic is done in int64, which wraps around.
"""

import math

import torch
from torch import Tensor

BITS = 64
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, made odd
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
BLOCK = 2**18  # normal numbers made at once: few enough for the cache


def words(key: int, samples: Tensor, draws: int) -> Tensor:
    """Give 64 random bits for every sample and draw.

    Args:
        key: names the purpose, for example `stream(seed, "augment", epoch)`.
        samples: indices of samples, integers of shape (B,); their device is that of the result.
        draws: D, numbers for each sample, >= 0; the first ones do not depend on how many are asked for.

    Returns:
        int64 of shape (B, D); all 2^64 values are equally likely.
    """
    state = _mix((samples.to(torch.int64) + 1) * _signed(GOLDEN) + _signed(key))
    steps = torch.arange(1, draws + 1, device=samples.device) * _signed(GOLDEN)
    return _mix(state.unsqueeze(1) + steps)


def uniform(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn words into numbers of [0, 1): multiples of 2^-53 in float64, of 2^-24 in every other dtype's float32."""
    if dtype == torch.float64:
        return _shift(bits, BITS - 53).to(dtype) * 2.0**-53
    return _shift(bits, BITS - 24).to(torch.float32) * 2.0**-24


def below(bits: Tensor, n: int) -> Tensor:
    """Turn words into integers 0 .. n - 1 for n <= 2^31; probabilities are equal to 2^-32."""
    return (_shift(bits, 32) * n) >> 32


def happens(bits: Tensor, probability: float) -> Tensor:
    """Turn words into booleans that are true with a probability, to 2^-32."""
    return _shift(bits, 32) < round(probability * 2**32)


def normal(key: int, samples: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Give standard normal numbers for every sample, by Box and Muller's formula.

    Devices and builds of torch round logarithm and cosine differently, so that equal samples are equal to the last few bits
    there, and exactly equal on one machine.

    Args:
        key: names the purpose.
        samples: indices of samples, integers of shape (B,).
        shape: of the numbers of one sample.
        dtype: a floating one; half precisions are rounded from float32.

    Returns:
        Numbers of shape (B, *shape) on the device of `samples`.
    """
    size = math.prod(shape)
    parts = [_normal(key, some, size, dtype) for some in samples.split(max(1, BLOCK // max(size, 1)))]
    return torch.cat(parts).reshape(len(samples), *shape)


def _normal(key: int, samples: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Give the numbers of a few samples, shape (B, size): cosines first, sines after them."""
    half = (size + 1) // 2
    numbers = uniform(words(key, samples, 2 * half), dtype)
    radius = (1 - numbers[:, :half]).log_().mul_(-2).sqrt_()  # 1 - u is never 0
    angle = numbers[:, half:] * (2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :size].to(dtype)


def _mix(z: Tensor) -> Tensor:
    """Scatter the bits of every number: the finaliser of SplitMix64."""
    for shift, factor in ROUNDS:
        z = (z ^ _shift(z, shift)).mul_(_signed(factor))
    return z ^ _shift(z, LAST_SHIFT)


def _shift(z: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros; `>>` alone would fill with the sign."""
    return (z >> by).bitwise_and_((1 << (BITS - by)) - 1)


def _signed(number: int) -> int:
    """Give the int64 with the same 64 bits."""
    number &= (1 << BITS) - 1
    return number - (1 << BITS) if number >> (BITS - 1) else number
