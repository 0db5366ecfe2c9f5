"""From a ledger to a table: one plain record for each run, with what is read off its history."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput
from gengap.core.recipe import Budget
from gengap.core.records import Record
from gengap.fitting.target import MEASURES, Target
from gengap.store.rows import RunRow
from gengap.store.store import Store

AXES = {"batch_size", "lr", "momentum", "seed", "optimizer", "budget"}  # fields of a recipe that a sweep may vary


@dataclass(frozen=True, slots=True)
class RunRecord(Record):
    """One run as a line of a table.

    Final values are those of a finished run's last evaluation; a run that diverged or failed has none.

    Attributes:
        batch_size: B.
        lr: base learning rate.
        train_size: N, size of the training set.
        momentum: m.
        seed: of the run; runs of equal seeds are pairs.
        optimizer: by its name.
        budget: as a recipe prints it, "30 epochs".
        budget_kind: "epochs", "steps" or "converged".
        budget_size: number of epochs (of "converged": at most) or steps; None where it is not known.
        outcome: "finished", "diverged" or "failed".
        reason: a sentence, or "".
        key: of the run in its store, or "".
        steps: updates made.
        samples: training samples used, repeats counted.
        seconds: time in updates.
        train_loss: nats per sample, final; None where it is not finite.
        train_accuracy: percent.
        test_loss: nats per sample.
        test_accuracy: percent.
        validation_loss: nats per sample; None where nothing was held out.
        validation_accuracy: percent.
        best_test_loss: lowest on the way.
        best_test_accuracy: highest on the way.
        steps_to_target: updates until the target of the table was first reached, interpolated; None: it was not.
        samples_to_target: samples used until then.
        history: evaluations on the way, each with step, samples and measures; not in the JSON form.
        shared: every other field of the recipe, and the problem; not in the JSON form.
    """

    batch_size: int
    lr: float
    train_size: int | None = None
    momentum: float = 0.0
    seed: int = 0
    optimizer: str = "sgd"
    budget: str = ""
    budget_kind: str = ""
    budget_size: int | None = None
    outcome: str = "finished"
    reason: str = ""
    key: str = ""
    steps: int | None = None
    samples: int | None = None
    seconds: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    best_test_loss: float | None = None
    best_test_accuracy: float | None = None
    steps_to_target: float | None = None
    samples_to_target: float | None = None
    history: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    shared: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def finished(self) -> bool:
        """Whether it has final values."""
        return self.outcome == "finished"

    @property
    def effective_lr(self) -> float:
        """How far one gradient moves the weights in the end: lr / (1 - m)."""
        return self.lr / (1 - self.momentum)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, without history and shared fields."""
        content = replace(self, history=(), shared={})
        named = Record.to_dict(content) | {"effective_lr": self.effective_lr}
        return {name: value for name, value in named.items() if name not in {"history", "shared"}}


KNOWN = frozenset(each.name for each in fields(RunRecord))
Runs = Store | str | Path | Mapping[str, Any] | Iterable[RunRecord | Mapping[str, Any]]


def run_records(runs: Runs, *, target: Target | None = None) -> list[RunRecord]:
    """Make the table of a sweep's runs.

    Args:
        runs: an open store, a folder that holds one, a sweep's JSON document or its file, or lines of such a table.
        target: of steps_to_target and samples_to_target; None: they stay as they are.

    Returns:
        One record for each run, in the order of the store.

    Raises:
        BadInput: the folder holds no store, a line lacks its batch size or learning rate, or a target is asked of lines
            that have no history.
    """
    if isinstance(runs, str | Path):
        return run_records(read_document(Path(runs)) if Path(runs).is_file() else of_folder(Path(runs)), target=target)
    if isinstance(runs, Store):
        found = stored_records(runs)
    elif isinstance(runs, Mapping):
        if "runs" not in runs:
            raise BadInput("the document holds no runs; give one that a sweep wrote, with the key 'runs'")
        found = [as_record(line) for line in runs["runs"]]
    else:
        found = [line if isinstance(line, RunRecord) else as_record(line) for line in runs]
    return found if target is None else reaching(found, target)


def of_folder(folder: Path) -> list[RunRecord]:
    """Make the table of the store in a folder."""
    with Store(folder, create=False) as store:
        return stored_records(store)


def read_document(path: Path) -> dict[str, Any]:
    """Read a sweep's JSON document.

    Args:
        path: the file.

    Returns:
        The document.

    Raises:
        BadInput: it is not JSON, or no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(
            f"{path} is not a JSON document: {error}; name a folder of runs, or a sweep's document"
        ) from error
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds no JSON object; name a folder of runs, or a sweep's document")
    return document


def stored_records(store: Store) -> list[RunRecord]:
    """Make the table of a store's runs.

    Args:
        store: an open one.

    Returns:
        One record for each run, oldest first.
    """
    rows = store.runs()
    return records_of(rows, {name: store.problem(name) for name in {row.problem for row in rows}})


def records_of(rows: Sequence[RunRow], problems: Mapping[str, Mapping[str, Any]]) -> list[RunRecord]:
    """Make the table of a ledger's rows, given the facts of their problems by fingerprint."""
    return [record_of(row, problems[row.problem].get("train_samples")) for row in rows]


def record_of(row: RunRow, train_size: int | None) -> RunRecord:
    """Make the line of one run of a ledger.

    Args:
        row: the run.
        train_size: N of its problem.

    Returns:
        The line, without a target.
    """
    recipe, budget = row.recipe, Budget(**row.recipe["budget"])
    last = row.history[-1] if row.history and row.outcome == "finished" else {}
    kind = next(name for name in ("epochs", "steps", "converged") if getattr(budget, name) is not None)
    return RunRecord(
        key=row.key,
        batch_size=recipe["batch_size"],
        lr=recipe["lr"],
        train_size=train_size,
        momentum=recipe.get("momentum", 0.0),
        seed=recipe.get("seed", 0),
        optimizer=recipe.get("optimizer", "sgd"),
        budget=str(budget),
        budget_kind=kind,
        budget_size=budget.epochs or budget.steps or (budget.converged.max_epochs if budget.converged else None),
        outcome=row.outcome,
        reason=row.reason,
        steps=row.cost.get("steps"),
        samples=row.cost.get("samples"),
        seconds=row.cost.get("seconds"),
        **{name: last.get(name) for name in MEASURES},
        best_test_loss=min(seen(row.history, "test_loss"), default=None),
        best_test_accuracy=max(seen(row.history, "test_accuracy"), default=None),
        history=row.history,
        shared={"problem": row.problem} | {name: value for name, value in recipe.items() if name not in AXES},
    )


def seen(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """List the values of a measure on the way that are there."""
    return [point[name] for point in history if point.get(name) is not None]


def as_record(line: Mapping[str, Any]) -> RunRecord:
    """Read a line of a sweep's document; what it does not know, it leaves out.

    Args:
        line: keys as in the document.

    Returns:
        The record.

    Raises:
        BadInput: batch_size or lr is missing or not positive.
    """
    for name in ("batch_size", "lr"):
        value = line.get(name)
        if not isinstance(value, int | float) or not value > 0:
            raise BadInput(f"{name} of a run is {value!r}; give each run a positive {name}")
    return RunRecord(**{name: value for name, value in line.items() if name in KNOWN})


def reaching(records: Sequence[RunRecord], target: Target) -> list[RunRecord]:
    """Read off each history when a target was first reached.

    Args:
        records: with histories.
        target: what counts as reached.

    Returns:
        The records with steps_to_target and samples_to_target; a run that did not finish has not reached it.

    Raises:
        BadInput: no finished run has a history.
    """
    if records and not any(record.history for record in records if record.finished):
        raise BadInput(f"the runs have no history to find {target} in; give the store or its folder instead")
    found = []
    for record in records:
        steps, samples = target.reached(record.history) if record.finished else (None, None)
        found.append(replace(record, steps_to_target=steps, samples_to_target=samples))
    return found
