"""What a run says while it goes on. Listeners are plain functions; the engine does not know who listens."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is.

    Attributes:
        what: the task in words, for example "batch 32, seed 0".
        done: units finished.
        total: units in all, or None where it is not known (until converged).
        unit: what is counted: "epochs", "steps", "evaluations", "points".
        note: the latest figures in words, or "".
    """

    what: str
    done: float
    total: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """Something a person should know, once: a sentence."""

    text: str
    warning: bool = False


Event = Progress | Message
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore an event."""
