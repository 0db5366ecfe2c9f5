"""The numbers of a sweep as files: one row a run, one row a cell; CSV, or Parquet where pyarrow is installed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gengap.core.errors import BadInput
from gengap.core.files import whole_file, write_text
from gengap.report.csv_files import text

Document = Mapping[str, Any]
Rows = list[dict[str, Any]]
FORMATS = ("csv", "parquet")
ESTIMATES = (  # also where no cell has one, so that columns do not depend on what came out
    *("test_accuracy", "test_loss", "train_loss", "best_train_loss"),
    *("steps_to_target", "samples_to_target"),
)


def export(document: Document, folder: str | Path, format: Literal["csv", "parquet"] = "csv") -> list[Path]:
    """Write the runs and cells of a sweep as tables.

    Args:
        document: in the form `gengap.sweep/1`.
        folder: where; made if missing.
        format: "csv", or "parquet", which needs pyarrow.

    Returns:
        The paths of runs and cells. Numbers are written in full; what is not there is an empty field (null in Parquet).
        A cell's estimate has columns for its value, stdev, n, low and high end.

    Raises:
        BadInput: the format is unknown, pyarrow is not installed, or the folder cannot be written to.
        OutOfSpace: the disk is full; no file is half-written.
    """
    if format not in FORMATS:
        raise BadInput(f"format is {format!r}; choose one of {', '.join(FORMATS)}")
    write = write_csv if format == "csv" else write_parquet
    tables = {"runs": list(run_rows(document)), "cells": list(cell_rows(document))}
    paths = []
    for name, rows in tables.items():
        target = Path(folder) / f"{name}.{format}"
        write(target, rows)
        paths.append(target)
    return paths


def run_rows(document: Document) -> Iterator[dict[str, Any]]:
    """Give a row for each run, as it is in the document."""
    for run in document["runs"]:
        yield dict(run)


def cell_rows(document: Document) -> Iterator[dict[str, Any]]:
    """Give a row for each cell, its estimates and learning rates spread over columns."""
    estimates, winners = nested(document, "value").union(ESTIMATES), nested(document, "best_lr")
    for cell in document["cells"]:
        row: dict[str, Any] = {}
        for name, entry in cell.items():
            if name in estimates:
                row |= spread(name, entry)
            elif name in winners:
                row |= {name: entry["best_lr"], **{f"{name}_{end}": entry[f"lr_{end}"] for end in ("low", "high")}}
            else:
                row[name] = entry
        yield row


def nested(document: Document, key: str) -> set[str]:
    """Find the fields of cells that hold a record with some key."""
    cells = document["cells"]
    return {name for cell in cells for name, entry in cell.items() if isinstance(entry, Mapping) and key in entry}


def spread(name: str, estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    """Lay an estimate out over columns."""
    found = estimate or {}
    low, high = found.get("interval") or (None, None)
    parts = {"": found.get("value"), "_stdev": found.get("stdev"), "_n": found.get("n"), "_low": low, "_high": high}
    return {f"{name}{ending}": part for ending, part in parts.items()}


def headings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the columns of a table, in the order they are first met."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_csv(target: Path, rows: Rows) -> None:
    """Write a table as comma-separated values."""
    columns = headings(rows)
    write_text(target, text(columns, ([row.get(name) for name in columns] for row in rows)))


def write_parquet(target: Path, rows: Rows) -> None:
    """Write a table as Parquet.

    Args:
        target: the file.
        rows: with equal keys.

    Raises:
        BadInput: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise BadInput(
            'Parquet files need pyarrow, which is not installed; install it with pip install "gengap[parquet]", or choose '
            "format csv"
        ) from error
    columns = {name: [row.get(name) for row in rows] for name in headings(rows)}
    arrays = {name: pa.array(column, pa.float64() if is_empty(column) else None) for name, column in columns.items()}
    with whole_file(target) as part:
        parquet.write_table(pa.table(arrays), part)


def is_empty(column: Sequence[Any]) -> bool:
    """Tell whether a column holds nothing, so that its type cannot be seen."""
    return all(value is None for value in column)
