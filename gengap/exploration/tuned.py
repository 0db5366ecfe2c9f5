"""What tuning gives: the settings that were tried, how it went from one to the next, and the recipe it ended with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gengap.core.estimate import Estimate
from gengap.core.recipe import Recipe
from gengap.core.records import Record
from gengap.exploration.sweep import SweepResult

StageName = Literal["batch and rate", "batch and momentum", "batch"]


@dataclass(frozen=True, slots=True)
class Tried(Record):
    """One setting that was tried.

    Attributes:
        batch_size: B.
        lr: learning rate.
        momentum: m.
        score: what chooses, over seeds: accuracy in percent, or loss in nats; None where a run diverged or failed.
        test: the same on the test set.
        runs: seeds.
        diverged: how many of them ended early.
    """

    batch_size: int
    lr: float
    momentum: float
    score: Estimate | None
    test: Estimate | None
    runs: int
    diverged: int


@dataclass(frozen=True, slots=True)
class Stage(Record):
    """One step of the procedure.

    Attributes:
        name: what it looks for.
        tried: settings, in the order of their batch sizes.
        chosen: the best of them.
        why: one sentence.
    """

    name: StageName
    tried: tuple[Tried, ...]
    chosen: Tried | None
    why: str


@dataclass(frozen=True, slots=True)
class Tuned(Record):
    """What tuning found.

    Attributes:
        recipe: to train with.
        chosen: its setting with its scores.
        stages: how it was found.
        selection: "validation" or "test": what chose.
        metric: "accuracy" or "loss".
        document: all runs as a JSON document of the form gengap.sweep/1.
        folder: where the runs lie; None where they were not kept.
    """

    recipe: Recipe
    chosen: Tried
    stages: tuple[Stage, ...]
    selection: str
    metric: str
    document: Mapping[str, Any]
    folder: Path | None

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        best = self.chosen
        tests = f"tests {shown(best.test, self.metric)}" if best.test else "was not tested"
        return (
            f"Batch {best.batch_size:,} with momentum {best.momentum:.4g} and learning rate {best.lr:.4g} {tests}; "
            f"chosen on the {self.selection} set from {sum(len(stage.tried) for stage in self.stages)} settings"
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form: recipe, chosen setting and stages."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "chosen": self.chosen.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
            "selection": self.selection,
            "metric": self.metric,
            "sentence": self.sentence,
        }

    def report(self, folder: str | Path) -> Path:
        """Write the page of all runs into a folder, and return its path."""
        return SweepResult(self.document, self.folder).report(folder)

    def __str__(self) -> str:
        lines = [self.sentence]
        for stage in self.stages:
            lines.append(f"{stage.name}: {stage.why}")
            for one in stage.tried:
                mark = "*" if one == stage.chosen else " "
                score = "diverged" if one.score is None else shown(one.score, self.metric)
                lines.append(
                    f" {mark} batch {one.batch_size:>6,}  momentum {one.momentum:<7.5g} lr {one.lr:<7.4g} {score}"
                )
        return "\n".join(lines)

    __repr__ = __str__


def shown(score: Estimate | None, metric: str) -> str:
    """Write a score with its spread over seeds."""
    if score is None:
        return "-"
    digits, unit = ("2f", " %") if metric == "accuracy" else ("4g", " nats")
    spread = "" if score.stdev is None else f" ± {score.stdev:.2g}"
    return f"{score.value:.{digits}}{spread}{unit} (n={score.n})"
