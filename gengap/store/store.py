"""A store: a folder with the ledger of all runs and their weights. It can be copied, moved and shared."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from gengap.core.errors import BadInput, DamagedFile, OutOfSpace
from gengap.core.files import is_disk_full
from gengap.store.artefacts import Arrays, load_arrays, save_arrays
from gengap.store.rows import RunRow, canonical, now

LEDGER = "ledger.sqlite"
VERSION = "1"
BUSY_SECONDS = 60.0


class Store:
    """The ledger and its files.

    Several processes may use one store at once: SQLite serialises their transactions, and `claim` keeps two of them
    from training the same run.

    Args:
        folder: where it lies; made where it does not exist.
        create: whether to make a new store; otherwise it must be there.

    Raises:
        BadInput: there is no store and none is to be made, or it was written by another version.
        DamagedFile: the ledger is not an SQLite database.
    """

    def __init__(self, folder: str | Path, *, create: bool = True) -> None:
        self.folder = Path(folder)
        path = self.folder / LEDGER
        if not create and not path.exists():
            raise BadInput(f"{self.folder} holds no results ({LEDGER} is not there); name a folder that --out wrote")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"cannot make the folder {self.folder}: {error.strerror}; choose another") from error
        # SQLite gives up at once, whatever the timeout, where two processes switch a new ledger to WAL together
        with self._alone(), self._explained():
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare(path)
            except BaseException:
                self._db.close()
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from opening the store meanwhile.

        Yields:
            Nothing.

        Raises:
            BadInput: another process has been at it for too long, or the folder cannot be written to.
        """
        lock = FileLock(self.folder / "locks" / "open.lock", timeout=BUSY_SECONDS)
        try:
            (self.folder / "locks").mkdir(exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise BadInput(
                f"{self.folder} has been locked by another process for {BUSY_SECONDS:.0f} s; end it first"
            ) from error
        except OSError as error:
            raise BadInput(
                f"cannot write to {self.folder}: {error.strerror}; copy it to a folder that you may write to"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _prepare(self, path: Path) -> None:
        """Make the tables where they are not there, and refuse those of another version."""
        with self._explained():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(files("gengap.store").joinpath("schema.sql").read_text(encoding="utf-8"))
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (VERSION,))
        found = self._one("SELECT value FROM meta WHERE name = 'version'")
        if found != VERSION:
            raise BadInput(
                f"{path} was written in format {found}, this gengap reads {VERSION}; use the version that wrote it"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger; what was in the write-ahead log is folded in where nobody else is reading."""
        # where it fails the log stays beside the ledger, and the next one to open it reads it
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    # reading

    def run(self, key: str) -> RunRow | None:
        """Give a run of the ledger, or None."""
        rows = self._runs("WHERE key = ?", key)
        return rows[0] if rows else None

    def runs(self) -> list[RunRow]:
        """Give all runs, oldest first."""
        return self._runs("")

    def listed(self, *, problem: str | None = None, outcome: str | None = None, **recipe: Any) -> list[RunRow]:
        """List runs without their histories, which are most of what a ledger holds; oldest first.

        Args:
            problem: fingerprint of the problem; None: any.
            outcome: "finished", "diverged" or "failed"; None: any.
            recipe: fields of the recipe with the values they must have, as the ledger keeps them: batch_size=32.

        Returns:
            The rows, each with an empty history. 10,000 of them take a fraction of a second.

        Raises:
            BadInput: a field's name is not a name.
        """
        for name in recipe:
            if not name.isidentifier():
                raise BadInput(f"there is no field {name!r} in a recipe; name one such as batch_size")
        asked = {"problem = ?": problem, "outcome = ?": outcome}
        asked = {condition: value for condition, value in asked.items() if value is not None}
        asked |= dict(field_is(name, value) for name, value in recipe.items())
        where = f"WHERE {' AND '.join(asked)}" if asked else ""
        with self._explained():
            rows = self._db.execute(f"SELECT * FROM runs {where} ORDER BY rowid", list(asked.values())).fetchall()
        return [as_row(row, []) for row in rows]

    def problem(self, fingerprint: str) -> dict[str, Any]:
        """Give the facts of a problem; {} where it is not known."""
        text = self._one("SELECT facts FROM problems WHERE fingerprint = ?", fingerprint)
        return json.loads(text) if text else {}

    def measure(self, subject: str, name: str, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Give a measure's record, or None where it was not taken with these settings."""
        query = "SELECT record FROM measures WHERE subject = ? AND name = ? AND settings = ?"
        text = self._one(query, subject, name, canonical(settings))
        return json.loads(text) if text else None

    def weights(self, key: str, which: str) -> dict[str, Any]:
        """Read "final", "initial" or "buffers" of a run as numpy arrays."""
        return load_arrays(self._file(key, which))

    def recall(self, name: str) -> Any:
        """Give what `remember` noted, or None."""
        text = self._one("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(text) if text else None

    def has_weights(self, key: str) -> bool:
        """Tell whether the files of a run are there."""
        return all(self._file(key, which).exists() for which in ("final", "initial", "buffers"))

    # writing

    def remember(self, name: str, value: Any) -> None:
        """Note a JSON value about the whole store, in place of the one before."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, canonical(value)))

    def add_problem(self, fingerprint: str, facts: dict[str, Any]) -> None:
        """Note a problem's facts."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO problems VALUES (?, ?)", (fingerprint, canonical(facts)))

    def add_run(self, row: RunRow, weights: Mapping[str, Arrays]) -> None:
        """Note a run: its files first, then its row and its history in one transaction.

        Killed in between, it leaves files without a row: they are written over when the run is trained again.

        Args:
            row: the run.
            weights: arrays by name, for "final", "initial" and "buffers".

        Raises:
            OutOfSpace: the disk is full; the ledger is as it was.
        """
        for which, arrays in weights.items():
            save_arrays(self._file(row.key, which), arrays)
        with self.transaction() as db:
            db.execute("DELETE FROM history WHERE run = ?", (row.key,))
            db.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    row.key,
                    row.problem,
                    canonical(row.recipe),
                    row.outcome,
                    row.step,
                    row.reason,
                    canonical(row.cost),
                    canonical(row.environment),
                    row.created,
                ),
            )
            points = [(row.key, point["step"], canonical(point)) for point in row.history]
            db.executemany("INSERT INTO history VALUES (?, ?, ?)", points)
        self.checkpoint(row.key).unlink(missing_ok=True)

    def add_measure(self, subject: str, name: str, settings: dict[str, Any], record: dict[str, Any]) -> None:
        """Note a measure of a run, or of a pair of runs."""
        with self.transaction() as db:
            values = (subject, name, canonical(settings), canonical(record), now())
            db.execute("INSERT OR REPLACE INTO measures VALUES (?, ?, ?, ?, ?)", values)

    def checkpoint(self, key: str) -> Path:
        """Name the file where a run that is not finished keeps its state."""
        return self._file(key, "checkpoint")

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Try to become the one process that works on something; the claim ends with the block or the process.

        Args:
            name: a run's key.

        Yields:
            Whether the claim was granted.
        """
        lock = FileLock(self.folder / "locks" / f"{name}.lock")
        lock_folder = self.folder / "locks"
        lock_folder.mkdir(exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all or nothing.

        Yields:
            The connection.
        """
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite takes some back by itself, for example on a full disk
                    self._db.execute("ROLLBACK")
                raise

    # inside

    def _runs(self, where: str, *values: str) -> list[RunRow]:
        with self._explained():
            rows = self._db.execute(f"SELECT * FROM runs {where} ORDER BY rowid", values).fetchall()
            points = {
                row[0]: self._db.execute("SELECT point FROM history WHERE run = ? ORDER BY step", row[:1])
                for row in rows
            }
            return [as_row(row, [json.loads(text) for (text,) in points[row[0]]]) for row in rows]

    def _one(self, query: str, *values: str) -> Any:
        with self._explained():
            row = self._db.execute(query, values).fetchone()
        return row[0] if row else None

    def _file(self, key: str, which: str) -> Path:
        return self.folder / "runs" / key / f"{which}.safetensors"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into sentences."""
        try:
            yield
        except sqlite3.Error as error:
            path = self.folder / LEDGER
            if is_disk_full(error):
                raise OutOfSpace(
                    f"the disk is full: {path} is as it was; free some space and go on with --resume"
                ) from error
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise BadInput(
                    f"{path} has been locked by another process for {BUSY_SECONDS:.0f} s; end it first"
                ) from error
            raise DamagedFile(
                f"{path} cannot be used as a ledger: {error}; move it away or choose another folder"
            ) from error


def field_is(name: str, value: Any) -> tuple[str, Any]:
    """Give the condition that a field of the recipe has a value: numbers by size, everything else by its JSON text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"json_extract(recipe, '$.{name}') = ?", value
    return f"recipe -> '$.{name}' = ?", canonical(value)


def as_row(columns: tuple[Any, ...], history: list[dict[str, Any]]) -> RunRow:
    """Read a row of the table of runs."""
    key, problem, recipe, outcome, step, reason, cost, environment, created = columns
    return RunRow(
        key=key,
        problem=problem,
        recipe=json.loads(recipe),
        outcome=outcome,
        step=step,
        reason=reason,
        cost=json.loads(cost),
        environment=json.loads(environment),
        history=tuple(history),
        created=created,
    )
