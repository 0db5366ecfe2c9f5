"""The numbers behind the pictures, for spreadsheets and scripts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gengap.core.files import write_text
from gengap.report.csv_files import Row, text

Document = Mapping[str, Any]
NUMBERS = (
    *("measure", "key", "name", "unit", "value", "stderr", "stdev", "n", "low", "high", "kind"),
    *("batch_norm", "dtype", "samples", "note"),
)


def write_csv(document: Document, folder: Path) -> list[Path]:
    """Write the tables of a measurement.

    Args:
        document: in the form `gengap.measure/1`.
        folder: where; made if missing.

    Returns:
        numbers.csv, and for each measure with a curve a file of its own. Numbers are written in full.
    """
    tables = csv_tables(document)
    for name, content in tables.items():
        write_text(folder / name, content)
    return [folder / name for name in tables]


def csv_tables(document: Document) -> dict[str, str]:
    """Write the tables as text, by the names of their files."""
    tables = {"numbers.csv": text(NUMBERS, number_rows(document))}
    for measure in document["measures"]:
        maker = CURVES.get(measure["name"])
        if maker is not None and measure["record"] is not None:
            tables[f"{measure['name']}.csv"] = text(*maker(measure["record"]))
    return tables


def number_rows(document: Document) -> Iterator[Row]:
    """Give one row for each number."""
    for one in document["numbers"]:
        estimate = one["estimate"]
        low, high = estimate["interval"] or (None, None)
        flat = {**one, **{key: estimate[key] for key in ("value", "stderr", "stdev", "n")}, "low": low, "high": high}
        yield [flat[key] for key in NUMBERS]


def density(record: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[Row]]:
    """Give the spectral density with its band."""
    columns = ("grid", "density", "low", "high")
    return ("eigenvalue", *columns[1:]), iter(list(zip(*(record[name] for name in columns), strict=True)))


def path(record: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[Row]]:
    """Give losses and accuracies along the path."""
    nothing = [None] * len(record["alphas"])
    columns = [record["alphas"], *record["losses"], *(row or nothing for row in record["accuracies"])]
    heading = ("alpha", "train_loss", "test_loss", "train_accuracy", "test_accuracy")
    return heading, iter(list(zip(*columns, strict=True)))


def line(record: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[Row]]:
    """Give losses and accuracies along a line."""
    heading, rows = path({**record, "alphas": record["positions"]})
    return ("position", *heading[1:]), rows


def plane(record: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[Row]]:
    """Give the training loss at every point of a grid."""
    grid = record["grid"]
    rows = [
        [x, y, loss]
        for y, line in zip(grid["y"], grid["losses"][0], strict=True)
        for x, loss in zip(grid["x"], line, strict=True)
    ]
    return ("x", "y", "train_loss"), iter(rows)


def growth(record: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[Row]]:
    """Give the distance at every snapshot."""
    columns = ("steps", "distances", "norms", "angles")
    return ("step", "distance", "norm", "angle"), iter(list(zip(*(record[name] for name in columns), strict=True)))


def way(record: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[Row]]:
    """Give the place of every snapshot on the plane."""
    rows = [
        [i, *point, off] for i, (point, off) in enumerate(zip(record["coordinates"], record["off_plane"], strict=True))
    ]
    return ("snapshot", "x", "y", "off_plane"), iter(rows)


CURVES = {
    "trajectory": way,
    "spectral_density": density,
    "path": path,
    "slice_1d": line,
    "slice_2d": plane,
    "distance_curve": growth,
}
