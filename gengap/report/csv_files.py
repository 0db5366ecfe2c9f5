"""The numbers behind the pictures, for spreadsheets and scripts: one row a run, an evaluation, a point of the path."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gengap.core.files import write_text
from gengap.report.tables import every_arm, remedy_of

Document = Mapping[str, Any]
Row = Sequence[Any]
MEASURED = ("test_accuracy", "train_accuracy", "test_loss", "train_loss", "distance")
SEARCH = ("search", "radius", "evaluations", "share_at_bound", "agreement", "batch_norm", "samples", "bound")
HISTORY = (
    "epoch",
    "samples",
    "steps",
    "lr",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
)
PATH = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def write_csv(document: Document, folder: Path) -> list[Path]:
    """Write the three tables of a comparison.

    Args:
        document: the comparison, in the form `gengap.comparison/1`.
        folder: where; made if missing.

    Returns:
        runs.csv, history.csv and interpolation.csv. A number that was not measured is an empty field; the others are
        written in full, so that reading them gives the same numbers. Accuracies and sharpness are in percent.
    """
    run = (
        "key",
        "batch_size",
        "remedy",
        "seed",
        "outcome",
        "reason",
        *MEASURED,
        "sharpness",
        *(f"sharpness_{x}" for x in SEARCH),
    )
    tables = {
        "runs.csv": ([*run, "seconds"], runs(document)),
        "history.csv": (["key", "batch_size", "remedy", "seed", *HISTORY], history(document)),
        "interpolation.csv": (["seed", "alpha", *PATH, "batch_norm"], interpolation(document)),
    }
    for name, (heading, rows) in tables.items():
        write_text(folder / name, text(heading, rows))
    return [folder / name for name in tables]


def runs(document: Document) -> Iterator[Row]:
    """Give one row for each run."""
    for arm, run in every_run(document):
        found = run["sharpness"] or {}
        before = [run["key"], arm["batch_size"], remedy_of(arm), run["seed"], run["outcome"], run["reason"]]
        measured = [run[key] for key in MEASURED]
        searched = [found.get(key) for key in ("percent", *SEARCH)]
        yield [*before, *measured, *searched, run["seconds"]]


def history(document: Document) -> Iterator[Row]:
    """Give one row for each run and evaluation."""
    for arm, run in every_run(document):
        for values in zip(*(run["history"][key] for key in HISTORY), strict=True):
            yield [run["key"], arm["batch_size"], remedy_of(arm), run["seed"], *values]


def interpolation(document: Document) -> Iterator[Row]:
    """Give one row for each point of each path."""
    for line in document["interpolation"]:
        for alpha, *values in zip(line["alphas"], *(line[key] for key in PATH), strict=True):
            yield [line["seed"], alpha, *values, line["batch_norm"]]


def every_run(document: Document) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Go through the runs of both batch sizes and of the remedies."""
    for arm in every_arm(document):
        for run in arm["runs"]:
            yield arm, run


def text(heading: Row, rows: Iterable[Row]) -> str:
    """Write a table as comma-separated values."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return buffer.getvalue()
