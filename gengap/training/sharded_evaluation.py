"""Loss and accuracy of a sharded network, whose weights are never whole on any process."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gengap.problem.evaluate import CHUNK, Score, compared
from gengap.problem.problem import Problem
from gengap.problem.samples import Samples
from gengap.problem.trees import feed, map_tensors
from gengap.training.ranks import Ranks


class ShardedEvaluation:
    """Scores a network on every split by going through it on all processes in step.

    Args:
        problem: what is learnt.
        ranks: the processes; each takes a part of every split.
        model: sharded.
        device: of this process.
    """

    def __init__(self, problem: Problem, ranks: Ranks, model: nn.Module, device: torch.device) -> None:
        self._ranks, self._model, self._loss, self._device = ranks, model, problem.loss, device
        dtype = next(model.parameters()).dtype
        self._parts = [Part(problem.samples(which), ranks, device, dtype) for which in problem.splits]

    def __call__(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> list[Score]:  # noqa: ARG002
        """Give the scores of the network as it is, in the order of the problem's splits, equal on all processes."""
        self._model.eval()
        try:
            with torch.no_grad():
                return [self._score(part) for part in self._parts]
        finally:
            self._model.train()

    def _score(self, part: "Part") -> Score:
        """Go through one split, as many times as the process that has most of it."""
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)  # loss, right answers, chunks without such
        for inputs, targets, counts in part:
            outputs = feed(self._model, inputs)
            if not counts:
                continue
            sums[0] += self._loss.mean(*compared(self._loss, outputs, targets)).double() * targets.shape[0]
            right = self._loss.correct(outputs, targets) if isinstance(outputs, Tensor) else None
            sums[2 if right is None else 1] += 1.0 if right is None else right
        self._ranks.add([sums])
        loss, correct, uncounted = sums.tolist()
        return Score(loss / part.total, None if uncounted else 100 * correct / part.total, part.total)


class Part:
    """What a process scores of a split, in as many chunks on all of them.

    Args:
        samples: the split.
        ranks: the processes.
        device: of this process.
        dtype: of the network.

    Attributes:
        total: samples in the split.
    """

    def __init__(self, samples: Samples, ranks: Ranks, device: torch.device, dtype: torch.dtype) -> None:
        start, stop = ranks.share(len(samples))
        self.total, self._own = len(samples), stop - start
        self._samples = samples.subset(torch.arange(start, max(stop, start + 1)) % len(samples)).to(device, dtype)
        self._passes = math.ceil(math.ceil(self.total / ranks.size) / CHUNK)

    def __iter__(self) -> Iterator[tuple[Any, Tensor, bool]]:
        """Give inputs and targets, and whether they count."""
        left = self._passes
        for inputs, targets in self._samples.batches(CHUNK):
            left -= 1
            yield inputs, targets, self._own > 0
        for _ in range(left):
            yield map_tensors(lambda x: x[:1], inputs), targets[:1], False
