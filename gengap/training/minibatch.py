"""One batch on its way to an update, whole or the share of one process."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gengap.problem.trees import map_tensors, split


@dataclass(frozen=True, slots=True, eq=False)
class Minibatch:
    """Samples, and where they stand.

    Attributes:
        inputs: a tensor, tuple or dict; first axis: the b samples here.
        targets: first axis: samples.
        indices: of the samples in the training set, shape (b,), int64: what augmentation goes by.
        epoch: from 0.
        step: updates made before.
        total: samples of the whole batch, of which these are a part.
        offset: place of the first of these in the whole batch.
    """

    inputs: Any
    targets: Tensor
    indices: Tensor
    epoch: int = 0
    step: int = 0
    total: int = 0
    offset: int = 0

    @classmethod
    def of(cls, inputs: Any, targets: Tensor) -> "Minibatch":
        """Make a whole batch of samples that are numbered as they come."""
        size = targets.shape[0]
        return cls(inputs, targets, torch.arange(size), total=size)

    def __len__(self) -> int:
        return self.targets.shape[0]

    @property
    def share(self) -> float:
        """Part of the whole batch, from 0 to 1: the weight of the mean over these samples."""
        return len(self) / self.total

    def pieces(self, sizes: int | Sequence[int]) -> Iterator["Minibatch"]:
        """Cut into parts of one size (the last may be smaller), or of these sizes."""
        lengths = sizes if isinstance(sizes, int) else list(sizes)
        offset = self.offset
        columns = split(self.inputs, lengths), self.targets.split(lengths), self.indices.split(lengths)
        for inputs, targets, indices in zip(*columns, strict=True):
            yield replace(self, inputs=inputs, targets=targets, indices=indices, offset=offset)
            offset += targets.shape[0]

    def of_none(self) -> "Minibatch":
        """Keep nothing but the place."""
        rows = torch.empty(0, dtype=torch.int64, device=self.targets.device)
        inputs = map_tensors(lambda x: x[rows], self.inputs)
        return replace(self, inputs=inputs, targets=self.targets[rows], indices=self.indices[:0])

    def with_inputs(self, inputs: Any) -> "Minibatch":
        """Give the same samples with other inputs."""
        return replace(self, inputs=inputs)
