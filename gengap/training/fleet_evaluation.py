"""Loss and accuracy of all members of a fleet on every split, each as it would be scored alone."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from gengap.problem.evaluate import CHUNK, Score, compared
from gengap.problem.losses import MeanLoss
from gengap.problem.problem import Problem
from gengap.problem.trees import arguments
from gengap.training.fleet_batches import held
from gengap.training.fleet_losses import mappable
from gengap.training.fleet_stack import Stack

Named = dict[str, Tensor]
ROWS = 8192  # members times samples that go through at once


class FleetEvaluation:
    """Scores all networks of a stack, with running statistics of batch norm.

    Args:
        problem: what is learnt; its splits are in memory.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem, self._model = problem, problem.model(seed=0).eval()
        losses = {which: mappable(problem.loss, held(problem, which).targets) for which in problem.splits}
        self._each = {
            which: vmap(partial(self._one, loss), in_dims=(0, 0, None, None), chunk_size=ROWS // CHUNK)
            for which, loss in losses.items()
        }

    def __call__(self, stack: Stack) -> list[tuple[Score, ...]]:
        """Give for each member its scores, in the order of the problem's splits."""
        with torch.no_grad():
            scores = [self._split(stack, which) for which in self._problem.splits]
        return list(zip(*scores, strict=True))

    def _split(self, stack: Stack, which: str) -> list[Score]:
        """Score one split, in the chunks in which one network is scored."""
        like = next(p for p in stack.params.values() if p.is_floating_point())
        samples = held(self._problem, which).to(like.device, like.dtype)
        sums: list[Tensor] = []
        for inputs, targets in samples.batches(CHUNK):
            loss, *right = self._each[which](stack.params, stack.buffers, inputs, targets)
            parts = [loss * targets.shape[0], *right]
            sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
        total = len(samples)
        columns = [(column.double() / total).tolist() for column in sums]
        losses, shares = columns[0], columns[1] if len(columns) > 1 else [None] * stack.size
        return [
            Score(loss, None if share is None else 100 * share, total)
            for loss, share in zip(losses, shares, strict=True)
        ]

    def _one(self, mean: MeanLoss, params: Named, buffers: Named, inputs: Any, targets: Tensor) -> tuple[Tensor, ...]:
        """Give mean loss and, where they can be counted, right answers of one member."""
        args, kwargs = arguments(inputs)
        loss = self._problem.loss
        outputs = functional_call(self._model, (params, buffers), args, kwargs)
        value = mean(*compared(loss, outputs, targets)).double()
        right = loss.correct(outputs, targets) if isinstance(outputs, Tensor) else None
        return (value,) if right is None else (value, right)
