"""What the ledger holds, as records."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of the ledger.

    Attributes:
        key: hash of problem and recipe.
        problem: fingerprint of the problem.
        recipe: every field of the resolved recipe.
        outcome: "finished", "diverged" or "failed".
        step: updates made, or the update that diverged.
        reason: a sentence, or "".
        cost: seconds, evaluation_seconds, steps, samples.
        environment: machine and versions.
        history: points in time, each a dict of losses, accuracies, lr, samples, seconds.
        created: UTC, ISO 8601.
    """

    key: str
    problem: str
    recipe: dict[str, Any]
    outcome: str
    step: int
    reason: str
    cost: dict[str, Any]
    environment: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    created: str


def canonical(content: Any) -> str:
    """Write JSON so that equal contents give equal texts."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
