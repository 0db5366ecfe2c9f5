"""One measure about to be taken: the loss it sees, and what it may use."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gengap.core.events import Listener, silent
from gengap.data.order import subset
from gengap.measurement.settings import Settings
from gengap.measurement.subject import Subject
from gengap.problem.evaluate import LossFunction


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A subject, settings and a number of samples.

    Attributes:
        subject: what is measured.
        settings: how.
        samples: training samples that are used.
        listen: told of the progress.
        folder: where a grid may keep its finished points, or None.
    """

    subject: Subject
    settings: Settings
    samples: int
    listen: Listener = silent
    folder: Path | None = None

    def loss(self, split: str = "train", buffers: Any = None) -> LossFunction:
        """Give the mean loss over the samples: of the training set those in use, of the test set as many at most."""
        total, problem = len(self.subject.problem.samples(split)), self.subject.problem
        chosen = subset(self.settings.seed, total, self.samples) if self.samples < total else None
        return problem.loss_function(
            split,
            batch_norm=self.settings.batch_norm,  # type: ignore[arg-type]
            buffers=self.subject.buffers if buffers is None else buffers,
            samples=chosen,
        )

    @property
    def weights(self) -> int:
        """How many numbers the weights are that are moved and differentiated by."""
        return sum(p.numel() for p in self.subject.moved(self.settings.only).values())

    @property
    def common(self) -> dict[str, Any]:
        """The arguments that every measure takes; that the loss is deterministic was checked before the first one."""
        limits = {"memory_limit": self.settings.memory_limit, "check": False}
        return {"only": self.settings.only, "listen": self.listen, **limits}

    @property
    def curved(self) -> dict[str, Any]:
        """The same for a measure that needs the second derivative, which torch may have wrong without a word."""
        return self.common | {"check": True}

    @property
    def quiet(self) -> dict[str, Any]:
        """The same for a measure that is over before there is progress to tell of."""
        return {name: value for name, value in self.common.items() if name != "listen"}

    def points(self, name: str) -> dict[str, Any]:
        """The same for a measure of many points, whose finished ones outlive Ctrl-C in a file of this name."""
        if self.folder is None:
            return self.common
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.common | {"resume": self.folder / f"{name}-{self.samples}.jsonl"}

    def on(self, samples: int) -> "Task":
        """Give the same on another number of samples."""
        return replace(self, samples=samples)

    @property
    def conditions(self) -> dict[str, Any]:
        """Under which the number holds, as JSON values."""
        facts = self.subject.facts
        mode = self.settings.batch_norm if facts["has_batch_norm"] else "none"
        return {"batch_norm": mode, "dtype": facts["dtype"], "samples": self.samples}


def samples_in_use(subject: Subject, settings: Settings) -> int:
    """Say how many training samples are used."""
    total = len(subject.problem.samples("train"))
    return min(total, settings.samples or total)
