"""The folder through which a driver and its jobs on other machines exchange problems and runs."""

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gengap.core.files import whole_file, write_text
from gengap.core.recipe import digest
from gengap.sweeps.engines.parcel import Parcel


class JobFolder:
    """Names of files, and what is written to them whole or not at all.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.logs, self._runs = root / "logs", root / "runs"
        self._problems, self._jobs = root / "problems", root / "jobs.json"

    def put(self, name: str, parcel: Parcel) -> Path:
        """Leave a problem for the jobs; give the file."""
        path = self._problems / f"{digest(name)}.pickle"
        with whole_file(path) as part:
            part.write_bytes(pickle.dumps(parcel))
        return path

    def path_of(self, key: str) -> Path:
        """Name the file of a run."""
        return self._runs / f"{key}.safetensors"

    def forget(self, keys: Iterable[str]) -> None:
        """Remove files of runs that the store has."""
        for key in keys:
            self.path_of(key).unlink(missing_ok=True)

    def jobs(self) -> dict[str, list[str]]:
        """Give keys of runs by the id of the job that makes them, as an earlier driver noted them."""
        return json.loads(self._jobs.read_text(encoding="utf-8")) if self._jobs.exists() else {}

    def note_jobs(self, jobs: Mapping[str, Sequence[str]]) -> None:
        """Note which job makes which runs."""
        write_text(self._jobs, json.dumps({name: list(keys) for name, keys in jobs.items()}))


def read_parcel(path: Path) -> Parcel:
    """Read what `JobFolder.put` wrote."""
    return pickle.loads(path.read_bytes())  # type: ignore[no-any-return] # a file of the driver's own
