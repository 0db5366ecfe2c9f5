"""Finished measures on disk: one JSON file each, written at once, so that Ctrl-C loses at most the one in progress."""

import json
from collections.abc import Callable, Mapping
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

    Attributes:
        path: the folder.
        notes: what in it cannot be used, one sentence each.

    Args:
        path: the folder.
        subject: fingerprint of what is measured.
        samples: that may be used at most.
        resume: whether to go on with what is there.

    Raises:
        BadInput: it holds measures and they are not to be gone on with, or those of another checkpoint or other samples.
        DamagedFile: the file that says what it holds is not whole.
    """

    def __init__(self, path: Path, subject: str, samples: int, *, resume: bool) -> None:
        self.path, self.notes = path, list[str]()
        self._index = {"format": FORMAT, "subject": subject, "samples": samples}
        self._known: dict[str, Outcome] = {}
        self._indexed = (path / "measures" / INDEX).exists()
        if self._indexed and not resume:
            raise BadInput(
                f"{path} holds measures already; go on with them by --resume, or choose another folder by --out"
            )
        if self._indexed:
            self._indexed = self._fits()
        if self._indexed:
            self._read()

    @property
    def done(self) -> list[Outcome]:
        """The measures that were taken."""
        return [found for found in self._known.values() if found.state == DONE]

    def find(self, name: str, settings: Mapping[str, Any] | None = None) -> Outcome | None:
        """Give a measure that was taken: with these settings, on as many samples or more; without settings, with any."""
        found = self._known.get(name)
        if found is None or found.state != DONE:
            return None
        if settings is None:
            return found
        same = {**found.settings, "samples": 0} == {**settings, "samples": 0}
        return found if same and found.settings["samples"] >= settings["samples"] else None

    def drop(self, unknown: Callable[[Outcome], bool]) -> None:
        """Leave out measures whose records cannot be read."""
        for found in [one for one in self._known.values() if unknown(one)]:
            self._note(self._file(found.name))
            del self._known[found.name]

    def add(self, outcome: Outcome) -> None:
        """Write a measure."""
        if not self._indexed:
            write_text(self.path / "measures" / INDEX, json.dumps(self._index, indent=2))
            self._indexed = True
        text = json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(self._file(outcome.name), text)
        self._known[outcome.name] = outcome

    def _file(self, name: str) -> Path:
        return self.path / "measures" / f"{name}.json"

    def _note(self, file: Path) -> None:
        self.notes.append(f"{file} is damaged or was written by another version, and is not used")

    def _fits(self) -> bool:
        """Look whether the folder is of this version, and refuse one of another subject or of other samples."""
        file, wanted = self.path / "measures" / INDEX, self._index
        found = read_json(file)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            self._note(file)
            return False
        if found.get("subject") != wanted["subject"]:
            raise BadInput(
                f"{self.path} holds measures of another checkpoint, or with another problem, start (--initial), --second or "
                f"--trajectory; repeat them, or choose another folder by --out"
            )
        asked = found.get("samples", wanted["samples"])
        if asked != wanted["samples"]:
            raise BadInput(
                f"{self.path} holds measures on {asked:,} training samples and not {wanted['samples']:,}; repeat "
                f"--samples {asked}, or choose another folder by --out"
            )
        return True

    def _read(self) -> None:
        """Read the measures; what this version cannot read is as if it were not there."""
        for file in sorted((self.path / "measures").glob("*.json")):
            if file.name == INDEX:
                continue
            try:
                found = Outcome(**read_json(file))
                whole = found.name == file.stem and "samples" in found.settings
            except (DamagedFile, TypeError):
                whole = False
            if whole:
                self._known[found.name] = found
            else:
                self._note(file)


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
        raise DamagedFile(f"{path} cannot be read ({error}); remove it, and everything is measured again") from error


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
