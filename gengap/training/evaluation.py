"""Loss and accuracy on all splits while a run goes on, each process scoring its part."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gengap.problem.evaluate import LossFunction, Score
from gengap.problem.problem import Problem
from gengap.training.ranks import Ranks


class Evaluation:
    """Scores a network on the training, the test and any validation set, with running statistics of batch norm.

    Args:
        problem: what is learnt.
        ranks: the processes; each takes a part of every split.
    """

    def __init__(self, problem: Problem, ranks: Ranks) -> None:
        self._ranks = ranks
        self._parts = [part_of(problem, which, ranks) for which in problem.splits]

    def __call__(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> list[Score]:
        """Give the scores in the order of the problem's splits, equal on all processes."""
        own = [Score(0.0, 0.0, 0) if loss is None else loss.with_buffers(buffers).score(params) for loss in self._parts]
        if self._ranks.size == 1:
            return own
        uncounted = [score.accuracy is None for score in own]
        sums = torch.tensor(
            [
                [s.loss * s.samples, (s.accuracy or 0.0) * s.samples, s.samples, n]
                for s, n in zip(own, uncounted, strict=True)
            ],
            dtype=torch.float64,
        )
        self._ranks.add([sums])
        return [
            Score(loss / samples, None if unknown else accuracy / samples, int(samples))
            for loss, accuracy, samples, unknown in sums.tolist()
        ]


def part_of(problem: Problem, which: str, ranks: Ranks) -> LossFunction | None:
    """Give the loss over this process's part of a split, or None where that is nothing."""
    if ranks.size == 1:
        return problem.loss_function(which)
    start, stop = ranks.share(len(problem.samples(which)))
    return problem.loss_function(which, samples=torch.arange(start, stop)) if stop > start else None
