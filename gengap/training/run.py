"""What a training gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from gengap.core.estimate import finite
from gengap.core.recipe import Recipe
from gengap.measures.noise.reading import NoiseScaleReading
from gengap.problem.evaluate import Score


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        kind: "finished", "diverged" (the loss was not finite) or "interrupted" (by Ctrl-C).
        step: updates made when it ended; for a divergence the update whose loss was not finite, counted from 0.
        reason: a sentence, or "".
    """

    kind: Literal["finished", "diverged", "interrupted"]
    step: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step:,}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class Point:
    """What was seen at one moment of a run, with the network in evaluation mode.

    Attributes:
        step: updates made.
        samples: training samples used so far, repeats counted.
        epoch: samples / size of the training set.
        lr: learning rate of the update before (at the start: of the first one).
        seconds: time spent training, measurements not counted.
        batch_loss: mean loss of the batches since the epoch began, each before its update, nats; None at the start.
        train_loss: mean over the training set, nats.
        train_accuracy: percent, or None.
        test_loss: mean over the test set, nats.
        test_accuracy: percent, or None.
        validation_loss: mean over the validation set, nats; None where there is none.
        validation_accuracy: percent, or None.
    """

    step: int
    samples: int
    epoch: float
    lr: float
    seconds: float
    batch_loss: float | None
    train_loss: float
    train_accuracy: float | None
    test_loss: float
    test_accuracy: float | None
    validation_loss: float | None = None
    validation_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form; what is not finite is null."""
        return {k: finite(v) if isinstance(v, float) else v for k, v in asdict(self).items()}


def scored(splits: Sequence[str], scores: Sequence[Score]) -> dict[str, Any]:
    """Give the fields of a `Point` for the scores of these splits."""
    named = zip(splits, scores, strict=True)
    return {f"{which}_{what}": getattr(score, what) for which, score in named for what in ("loss", "accuracy")}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run used.

    Attributes:
        seconds: time in updates.
        evaluation_seconds: time measuring loss and accuracy on the way, and in probes.
        steps: updates.
        samples: training samples used, repeats counted.
        ranks: processes that shared every batch.
        micro_batch: samples that went through the network at once; None: all of a process.
    """

    seconds: float
    evaluation_seconds: float
    steps: int
    samples: int
    ranks: int = 1
    micro_batch: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A problem trained by a recipe.

    Attributes:
        problem: name of the problem.
        recipe: as used, with the batch size as a number.
        outcome: how it ended.
        history: points in time, the first before any update.
        params: trained weights by name, detached.
        initial_params: the weights it began with.
        buffers: running statistics and other buffers at the end.
        cost: what it used.
        noise_scale: the gradient noise scale at every point but the first, where it was asked for.
    """

    problem: str
    recipe: Recipe
    outcome: Outcome
    history: tuple[Point, ...]
    params: Mapping[str, Tensor]
    initial_params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    cost: Cost
    noise_scale: tuple[NoiseScaleReading, ...] = ()

    @property
    def final(self) -> Point:
        """The last point of the history."""
        return self.history[-1]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, without the weights."""
        return {
            "problem": self.problem,
            "recipe": self.recipe.model_dump(mode="json"),
            "outcome": asdict(self.outcome),
            "history": [point.to_dict() for point in self.history],
            "cost": asdict(self.cost),
            **({"noise_scale": [reading.to_dict() for reading in self.noise_scale]} if self.noise_scale else {}),
        }

    def __str__(self) -> str:
        last = self.final
        accuracy = "" if last.test_accuracy is None else f", test accuracy {last.test_accuracy:.2f} %"
        accuracy += (
            "" if last.validation_accuracy is None else f", validation accuracy {last.validation_accuracy:.2f} %"
        )
        together = "" if self.cost.ranks == 1 else f" on {self.cost.ranks} processes"
        return (
            f"{self.problem}, batch {self.recipe.batch_size:,}, seed {self.recipe.seed}: {self.outcome}; "
            f"train loss {last.train_loss:.4g}, test loss {last.test_loss:.4g}{accuracy} ({self.cost.seconds:.1f} s{together})"
        )

    __repr__ = __str__
