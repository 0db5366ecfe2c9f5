"""What a monitor of gradient noise needs of the processes that share a batch."""

from collections.abc import Sequence
from typing import Protocol

import torch.distributed as dist
from torch import Tensor


class Processes(Protocol):
    """Processes that add numbers up."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over them, in place."""


class Averaging:
    """Those of `DistributedDataParallel`, whose gradients are averaged and not added.

    Args:
        group: its process group.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group, self.rank, self.size = group, group.rank(), group.size()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over the processes, in place."""
        for tensor in tensors:
            dist.all_reduce(tensor, group=self._group)
