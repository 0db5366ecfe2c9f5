"""Processes that share every batch; alone, there is one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is.

    Attributes:
        rank: from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, samples: int) -> tuple[int, int]:
        """Give the part of a batch that is this process's: start and stop."""
        return samples * self.rank // self.size, samples * (self.rank + 1) // self.size

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over the processes, in place."""


ALONE = Ranks()
