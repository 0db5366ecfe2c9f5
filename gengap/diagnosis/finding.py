"""What the doctor says: findings with their numbers, and all of them together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gengap.core.records import Record, json_form

State = Literal["ok", "fault", "not checked"]
MARKS: dict[State, str] = {"ok": "ok         ", "fault": "FAULT      ", "not checked": "not checked"}


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """One thing that was looked at.

    Attributes:
        name: what.
        state: "ok", "fault", or "not checked".
        compared: what was compared with what, with the numbers; for "not checked" the reason.
        difference: how large the fault is, in the unit that `compared` names; None where there is nothing to compare.
        fix: what to change; empty unless it is a fault.
    """

    name: str
    state: State
    compared: str
    difference: float | None = None
    fix: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.state]}  {self.name}: {self.compared}" + (
            f"\n{' ' * 13}fix: {self.fix}" if self.fix else ""
        )


@dataclass(frozen=True, slots=True)
class Diagnosis(Record):
    """Everything that was looked at in one training function.

    Attributes:
        train: name of the function.
        findings: in the order of the page docs/how-to/doctor.md.
        batch_size: samples of one backward pass of one process in the comparisons.
        accumulate: backward passes per update in the comparisons.
        processes: in the comparisons.
        samples: of the training data that were used.
        passes: backward passes made, on all processes.
        seconds: that it took.
    """

    train: str
    findings: tuple[Finding, ...]
    batch_size: int
    accumulate: int
    processes: int
    samples: int
    passes: int
    seconds: float

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are faults."""
        return tuple(finding for finding in self.findings if finding.state == "fault")

    @property
    def healthy(self) -> bool:
        """Whether there are no faults; what was not checked does not count."""
        return not self.faults

    @property
    def sentence(self) -> str:
        """The answer."""
        unchecked = sum(finding.state == "not checked" for finding in self.findings)
        checked = len(self.findings) - unchecked
        return (
            f"{self.train}: {numbered(len(self.faults), 'fault')} in {numbered(checked, 'check')}"
            f"{f', {unchecked} not checked' if unchecked else ''}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, the answer first."""
        return {"sentence": self.sentence, "healthy": self.healthy, **json_form(self)}

    def __str__(self) -> str:
        return "\n".join([self.sentence, *map(str, self.findings)])


def numbered(count: int, word: str) -> str:
    """Write "no fault", "1 fault", "2 faults"."""
    return f"{count or 'no'} {word}{'' if count == 1 else 's'}"


def ok(name: str, compared: str, difference: float | None = None) -> Finding:
    """A finding that is as it should be."""
    return Finding(name, "ok", compared, difference)


def fault(name: str, compared: str, fix: str, difference: float | None = None) -> Finding:
    """A finding that is not as it should be."""
    return Finding(name, "fault", compared, difference, fix)


def not_checked(name: str, why: str) -> Finding:
    """Something that could not be looked at."""
    return Finding(name, "not checked", why)


def judged(found: Sequence[tuple[bool, str, str]], name: str, healthy: str) -> Finding:
    """Join several questions to one finding.

    Args:
        found: (whether it is a fault, what was found, how to fix it) of each question.
        name: of the finding.
        healthy: what to say if none is a fault.

    Returns:
        A fault with all that is wrong, or a finding that is ok.
    """
    wrong = [(text, fix) for bad, text, fix in found if bad]
    if not wrong:
        return ok(name, healthy)
    return fault(
        name, "; ".join(text for text, _ in wrong), "; ".join(dict.fromkeys(fix for _, fix in wrong)), len(wrong)
    )
