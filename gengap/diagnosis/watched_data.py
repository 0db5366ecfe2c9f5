"""A small part of the training data that says which of its samples were asked for."""

import random
from collections import deque
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.diagnosis.trace import Epoch
from gengap.problem.random_state import kept


class WatchedData(Dataset[Any]):
    """The first samples of a fixed random choice, each made once, so that random augmentation is the same in every run.

    Args:
        data: a map-style data set.
        samples: how many to use.
        seed: of the choice and of each sample's augmentation.

    Raises:
        BadInput: it is no map-style data set, or it has fewer samples.
    """

    def __init__(self, data: Any, samples: int, *, seed: int) -> None:
        if isinstance(data, IterableDataset) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise BadInput(
                f"the data is a {type(data).__name__}; give a map-style data set, with __len__ and __getitem__, so that it "
                f"can be told which samples a batch holds"
            )
        if len(data) < samples:
            raise BadInput(
                f"the data has {len(data)} samples, but {samples} are needed; give more, or a smaller batch_size"
            )
        rng = torch.Generator().manual_seed(stream(seed, "doctor"))
        self.source, self.seed = data, seed
        self.chosen = torch.randperm(len(data), generator=rng)[:samples].tolist()
        self.epochs: list[Epoch] = []
        self._made: dict[int, Any] = {}
        self._read: deque[tuple[int, int]] = deque()
        self._epoch = -1

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Any:
        index = range(len(self))[int(index)]
        self._read.append((index, self._epoch))
        if self._epoch >= 0:
            self.epochs[self._epoch].reads.append(index)
        if index not in self._made:
            with kept():
                seed_everything(stream(self.seed, "doctor", index))
                self._made[index] = self.source[self.chosen[index]]
        return self._made[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def begin_run(self) -> None:
        """Forget who read what."""
        self.epochs, self._epoch = [], -1
        self._read.clear()

    def begin_epoch(self, drop_last: bool) -> int:
        """A loader begins to iterate; return the number of this iteration."""
        self._read.clear()
        self.epochs.append(Epoch(drop_last))
        return len(self.epochs) - 1

    def reading(self, epoch: int) -> None:
        """What is read now is of this iteration."""
        self._epoch = epoch

    def take(self, rows: int | None) -> tuple[tuple[int, ...] | None, int]:
        """Say which samples a forward pass of so many rows has, and of which iteration; they are the next that were read."""
        if rows is None or not 0 < rows <= len(self._read):
            return None, max(self._epoch, 0)
        taken = [self._read.popleft() for _ in range(rows)]
        return tuple(index for index, _ in taken), max(taken[-1][1], 0)


def seed_everything(seed: int) -> None:
    """Seed the global generators; only inside `kept`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
