"""Finished measures on disk: one JSON file each, written at once, so that Ctrl-C loses at most the one in progress."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput, DamagedFile
from gengap.core.files import write_text

FORMAT, INDEX = "gengap.measures/1", "measured.json"
DONE, FAILED = "done", "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measure, taken or failed.

    Attributes:
        name: of the measure.
        group: of the measure.
        title: what it is called.
        state: "done" or "failed".
        reason: why it failed, or "".
        settings: on what the number depends, beside the checkpoint.
        record: what was found, as JSON values; None where it failed.
        text: the same in words.
        conditions: batch norm, dtype and samples.
        seconds: that it took.
        forecast: seconds that it was said to take.
        created: UTC, ISO 8601.
    """

    name: str
    group: str
    title: str
    state: str
    reason: str
    settings: Mapping[str, Any]
    record: Mapping[str, Any] | None
    text: str
    conditions: Mapping[str, Any]
    seconds: float
    forecast: float
    created: str

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return asdict(replace(self, settings=dict(self.settings), conditions=dict(self.conditions)))


class Folder:
    """A folder of measures of one checkpoint.

    Args:
        path: the folder.
        subject: fingerprint of what is measured.
        resume: whether to go on with what is there.

    Raises:
        BadInput: it holds measures and they are not to be gone on with, or those of another checkpoint.
        DamagedFile: a file in it is not whole.
    """

    def __init__(self, path: Path, subject: str, *, resume: bool) -> None:
        self.path, self._subject = path, subject
        self._known: dict[str, Outcome] = {}
        index = path / "measures" / INDEX
        if not index.exists():
            return
        if not resume:
            raise BadInput(
                f"{path} holds measures already; go on with them by --resume, or choose another folder by --out"
            )
        if read_json(index).get("subject") != subject:
            raise BadInput(
                f"{path} holds measures of another checkpoint, problem or start; choose another folder by --out"
            )
        for file in sorted((path / "measures").glob("*.json")):
            if file != index:
                found = Outcome(**read_json(file))
                self._known[found.name] = found

    def find(self, name: str, settings: Mapping[str, Any]) -> Outcome | None:
        """Give a measure that was taken with these settings, or None."""
        found = self._known.get(name)
        return found if found and found.state == DONE and found.settings == settings else None

    def add(self, outcome: Outcome) -> None:
        """Write a measure."""
        index = self.path / "measures" / INDEX
        if not index.exists():
            write_text(index, json.dumps({"format": FORMAT, "subject": self._subject}, indent=2))
        text = json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(self.path / "measures" / f"{outcome.name}.json", text)
        self._known[outcome.name] = outcome


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: the file.

    Returns:
        Its value.

    Raises:
        DamagedFile: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{path} cannot be read ({error}); remove it, and the measure is taken again") from error


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
