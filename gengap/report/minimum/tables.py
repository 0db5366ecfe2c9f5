"""What the table says: one block a measure, one line a number; page and terminal show the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gengap.report import numbers
from gengap.report.minimum.rows import BOUNDED, EXACT, LOWER, SAMPLED, UPPER, Number, numbers_of

Document = Mapping[str, Any]
NEGLIGIBLE, NARROW = 1e-5, 2e-3  # relative errors and widths that the digits of a table do not show
SIGNS = {LOWER: "≥ ", UPPER: "≤ "}


@dataclass(frozen=True, slots=True)
class Line:
    """One number, ready to be read.

    Attributes:
        name: what it is.
        unit: its unit, or "".
        value: with its error.
        interval: of it, or what kind of number it is.
        note: how far it can be trusted, or "".
    """

    name: str
    unit: str
    value: str
    interval: str
    note: str


@dataclass(frozen=True, slots=True)
class Block:
    """One measure.

    Attributes:
        title: what it is called.
        conditions: batch norm, dtype and samples in words.
        seconds: what it took.
        lines: its numbers.
    """

    title: str
    conditions: str
    seconds: str
    lines: tuple[Line, ...]


def blocks(document: Document) -> list[Block]:
    """Say every measure that was taken and has numbers."""
    made = []
    for measure in document["measures"]:
        found = numbers_of(measure)
        if found:
            lines = tuple(line(one) for one in found)
            made.append(Block(measure["title"], conditions(measure), numbers.seconds(measure["seconds"]), lines))
    return made


def line(one: Number) -> Line:
    """Say one number."""
    return Line(one.name, one.unit, f"{SIGNS.get(one.kind, '')}{with_error(one)}", bounds(one), one.note)


def with_error(one: Number) -> str:
    """Write a number with its error, where that is not too small to be of interest."""
    estimate, value = one.estimate, one.value
    if value is None:
        return numbers.MISSING
    if one.kind == BOUNDED and estimate["interval"]:
        error = estimate["interval"][1] - value
        return f"{numbers.number(value, 4)} ± {numbers.tick(float(f'{error:.0e}'))}"
    if estimate["stderr"] and estimate["stderr"] > NEGLIGIBLE * abs(value):
        return numbers.spread({**estimate, "stdev": estimate["stderr"]})
    return numbers.number(value, 4)


def bounds(one: Number) -> str:
    """Write the interval of a number; where it is too narrow to be written, or there is none, the kind of number it is."""
    ends = numbers.ends(one.estimate)
    if ends is None or one.value is None:
        return "" if one.kind == SAMPLED else one.kind
    if one.kind == SAMPLED:
        return numbers.interval(one.estimate) if ends[1] - ends[0] > NEGLIGIBLE * abs(one.value) else EXACT
    return (
        one.kind
        if one.kind == BOUNDED or ends[1] - ends[0] <= NARROW * abs(one.value)
        else numbers.interval(one.estimate)
    )


def conditions(measure: Mapping[str, Any]) -> str:
    """Say under which conditions a measure was taken."""
    found = measure["conditions"]
    if measure["group"] == "distance":  # of weights, whatever the samples
        return str(found["dtype"])
    norm = "" if found["batch_norm"] == "none" else f"batch norm {found['batch_norm']}, "
    return f"{norm}{found['dtype']}, {numbers.whole(found['samples'])} samples"


def left_out(document: Document) -> list[str]:
    """List what was not measured, or failed, with the reasons; what has the same reason stands together."""
    titles: dict[str, list[str]] = {}
    failed = [(m["title"], m["reason"]) for m in document["measures"] if m["record"] is None]
    for title, why in [*failed, *((one["title"], one["why"]) for one in document["left_out"])]:
        titles.setdefault(why, []).append(title)
    return [f"{', '.join(names)}: {why}." for why, names in titles.items()]


def costs(document: Document) -> list[tuple[str, str, str, str]]:
    """Put the forecast beside what each measure took: title, forecast, seconds, work."""
    taken = {measure["name"]: measure for measure in document["measures"]}
    found = []
    for row in document["forecast"]:
        measure = taken.get(row["name"])
        kept = measure and row["seconds"] == 0 and measure["forecast"]
        forecast = measure["forecast"] if measure and kept else row["seconds"]
        spent = numbers.MISSING if measure is None else numbers.seconds(measure["seconds"])
        found.append((row["title"], numbers.seconds(forecast), spent, row["detail"]))
    return found


def forecast_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Say what is planned: title, seconds, work."""
    return [(row["title"], numbers.seconds(row["seconds"]), row["detail"]) for row in rows]
