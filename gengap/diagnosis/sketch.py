"""Gradients made short, so that comparing many of them costs no memory."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from gengap.core.seeds import stream
from gengap.diagnosis.trace import Vector

LENGTH = 4096


class Sketch:
    """A fixed linear map of P numbers to at most 4,096: each is added, with a random sign, to a random one of the sums.

    Being linear, it keeps every relation "this gradient is that weighted sum of others" exactly; squared lengths are right on
    average, to within a relative standard deviation of at most sqrt(2 / 4096) = 2 %. Up to 4,096 numbers are kept as they are.

    Args:
        sizes: numbers in each tensor.
        seed: of signs and places.

    Source:
        Charikar, Chen, Farach-Colton 2002, "Finding frequent items in data streams" (count sketch).
    """

    def __init__(self, sizes: Sequence[int], *, seed: int) -> None:
        self.sizes, self.total = list(sizes), sum(sizes)
        self._places: list[Tensor] = []
        self._signs: list[Tensor] = []
        if self.total > LENGTH:
            rng = torch.Generator().manual_seed(stream(seed, "sketch"))
            for size in self.sizes:
                self._places.append(torch.randint(LENGTH, (size,), generator=rng, dtype=torch.int32))
                self._signs.append(torch.randint(2, (size,), generator=rng, dtype=torch.int8) * 2 - 1)

    def __call__(self, tensors: Iterable[Tensor | None]) -> Vector:
        """Shorten tensors of the sizes of this sketch; None stands for zeros."""
        found = torch.zeros(LENGTH if self._places else self.total, dtype=torch.float64)
        place = 0
        for i, tensor in enumerate(tensors):
            size = self.sizes[i]
            if tensor is not None:
                values = tensor.detach().to("cpu", torch.float64).reshape(-1)
                if self._places:
                    found.index_add_(0, self._places[i], values * self._signs[i])
                else:
                    found[place : place + size] = values
            place += size
        return np.asarray(found.numpy())
