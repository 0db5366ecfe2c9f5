"""When a run reached a target: read off its history with straight lines between the evaluations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gengap.core.errors import BadInput
from gengap.core.records import Record

MEASURES = (
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "validation_loss",
    "validation_accuracy",
)


@dataclass(frozen=True, slots=True)
class Target(Record):
    """A loss to get down to, or an accuracy to get up to.

    Attributes:
        measure: "train_loss", "test_loss", "validation_loss", or the same with accuracy.
        value: nats per sample, or percent.
        origin: "given", or how it was chosen.

    Raises:
        BadInput: there is no such measure, or the value is no number.
    """

    measure: str
    value: float
    origin: str = "given"

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise BadInput(f"the target's measure is {self.measure!r}; choose one of {', '.join(MEASURES)}")
        if not math.isfinite(self.value):
            raise BadInput(f"the target's value is {self.value!r}; give a finite number")

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.measure.endswith("accuracy")

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read "test_accuracy=95".

        Args:
            text: measure and value.

        Returns:
            The target.

        Raises:
            BadInput: the text is not of this form.
        """
        measure, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError as error:
            raise BadInput(f"target is {text!r}; write a measure and a number, such as test_accuracy=95") from error
        return cls(measure.strip(), number)

    def is_met(self, value: float) -> bool:
        """Tell whether a value is as good as the target."""
        return value >= self.value if self.rises else value <= self.value

    def reached(self, history: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
        """Find when a run first reached the target.

        Args:
            history: evaluations in order, each with step, samples and the measure; those without it are passed over.

        Returns:
            Updates and samples at the first crossing, on a straight line between two evaluations; (None, None): never.
            The line cuts off what a curve does between evaluations: more of them make this more exact.
        """
        before = None
        for point in history:
            value = point.get(self.measure)
            if value is None:
                continue
            if self.is_met(value):
                if before is None:
                    return float(point["step"]), float(point["samples"])
                part = (self.value - before[self.measure]) / (value - before[self.measure])
                return between(before["step"], point["step"], part), between(before["samples"], point["samples"], part)
            before = point
        return None, None

    def __str__(self) -> str:
        unit = " %" if self.rises else ""
        return f"{self.measure.replace('_', ' ')} {self.value:.4g}{unit}"


def between(first: float, second: float, part: float) -> float:
    """Go a part of the way from one number to another."""
    return first + part * (second - first)
