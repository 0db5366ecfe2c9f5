"""What is one run's own in a fleet."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from gengap.core.recipe import Recipe
from gengap.training.run import Cost, Outcome, Point, Run

Named = dict[str, Tensor]


@dataclass(slots=True, eq=False)
class Member:
    """One run.

    Attributes:
        recipe: resolved.
        initial: weights it began with.
        history: points so far.
        outcome: None while it goes on.
        best: lowest mean loss of an epoch, as far as it counted.
        stale: epochs since then.
        epoch_loss: sum over the samples of the epoch so far.
        seconds: its share of the time in updates.
        evaluation_seconds: its share of the time in measurements.
        params: its weights at the end.
        buffers: its buffers at the end.
        steps: updates made with it in the fleet.
        samples: used by them.
    """

    recipe: Recipe
    initial: Named
    history: list[Point] = field(default_factory=list)
    outcome: Outcome | None = None
    best: float = math.inf
    stale: int = 0
    epoch_loss: float = 0.0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    params: Named = field(default_factory=dict)
    buffers: Named = field(default_factory=dict)
    steps: int = 0
    samples: int = 0

    def leave(self, params: Named, buffers: Named, *, steps: int, samples: int) -> None:
        """Take what is its own out of the fleet."""
        self.params, self.buffers, self.steps, self.samples = params, buffers, steps, samples

    def result(self, problem: str) -> Run:
        """Give the run as it stands."""
        return Run(
            problem=problem,
            recipe=self.recipe,
            outcome=self.outcome or Outcome("interrupted", self.steps, "by Ctrl-C; it begins anew"),
            history=tuple(self.history),
            params=self.params,
            initial_params=self.initial,
            buffers=self.buffers,
            cost=Cost(self.seconds, self.evaluation_seconds, self.steps, self.samples),
        )
