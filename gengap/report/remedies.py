"""The remedies side by side: their table, their picture, and what they say in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gengap.report import numbers, tables
from gengap.report.figures import by_seed, has
from gengap.report.shapes import Axis, Figure, Role, Series, nothing, padded
from gengap.report.tables import Cell

Document = Mapping[str, Any]
COLUMNS = ("test", "gain", "train", "sharpness", "distance", "updates", "seconds")
LONGEST_LINE = 16
ROOM = 9.0  # ways of training that a figure of the usual height has room for
NAME, TITLE = "remedies", "The remedies side by side"


@dataclass(frozen=True, slots=True)
class Line:
    """One way of training: its name, what it does, and a cell for each of `COLUMNS`."""

    label: str
    text: str
    role: Role
    cells: tuple[Cell, ...]


def arms(document: Document) -> list[tuple[Role, Mapping[str, Any]]]:
    """Give every way of training with what its colour stands for."""
    small, large, *remedies = tables.every_arm(document)
    return [("small", small), ("large", large), *(("remedy", one) for one in remedies)]


def columns(document: Document) -> list[int]:
    """Choose the columns that say anything."""
    rows = lines(document)
    return [i for i, _ in enumerate(COLUMNS) if any(row.cells[i].text not in {"", numbers.MISSING} for row in rows)]


def headings(document: Document) -> tuple[str, ...]:
    """Name each of `COLUMNS` by what is compared: accuracy or loss."""
    measure = measure_of(key_of(document))
    rest = ("Sharpness", "Distance", "Updates", "Time of a run")
    return (f"Test {measure}", "Against large", f"Train {measure}", *rest)


def lines(document: Document) -> list[Line]:
    """Say every way of training in one row.

    Args:
        document: the comparison.

    Returns:
        A row for each; nothing where there are no remedies.
    """
    if not document.get("remedies"):
        return []
    return [line(role, one, key_of(document)) for role, one in arms(document)]


def key_of(document: Document) -> str:
    """Choose what is compared: accuracy, or the loss where nothing counts right answers."""
    return "test_accuracy" if has(document, "test_accuracy") else "test_loss"


def measure_of(key: str) -> str:
    """Name what is compared."""
    return key.partition("_")[2]


def line(role: Role, one: Mapping[str, Any], key: str) -> Line:
    """Say one way of training."""
    measured = [tables.cell(one, name) for name in (key, key.replace("test", "train"), "sharpness", "distance")]
    seconds = tables.cell(one, "seconds")
    updates = Cell(numbers.whole(one["steps"]) if one["steps"] is not None else numbers.MISSING)
    gain = against(one, "to_large", key)
    return Line(one["label"], one.get("text", ""), role, (measured[0], gain, *measured[1:], updates, seconds))


def against(one: Mapping[str, Any], which: str, key: str) -> Cell:
    """Say the paired difference of a remedy to the plain large or small batch."""
    found = (one.get(which) or {}).get(key)
    if found is None:
        return Cell("")
    estimate = found["estimate"]
    return tables.paired(estimate, f"{numbers.difference(estimate)} {found['unit']}", numbers.interval(estimate))


def sentence(document: Document) -> str:
    """Say which remedy does most and how it stands to the small batch, or that none can be told from the large batch.

    Args:
        document: the comparison.

    Returns:
        One sentence; "" where there are no remedies, or none was finished. A remedy is named the best only where the
        interval of its difference to the large batch leaves 0 out.
    """
    key = key_of(document)
    named = document.get("remedies") or []
    made = [one for one in named if one.get(key) and gain_of(one, key)]
    if not made:
        return ""
    by_gain = sorted(made, key=lambda one: -better(gain_of(one, key)["value"], key))
    told = [one for one in by_gain if is_told(gain_of(one, key))]
    if not told or better(gain_of(told[0], key)["value"], key) <= 0:
        return none_helps(
            by_gain[0], key, count_of(named, made), verb="told to be better than" if told else "told from"
        )
    best, count = told[0], count_of(named, made)
    among = "" if best is by_gain[0] else " of those that can be told from the large batch"
    said = f"Of {count} {best['label']} does most{among}" if count else f"The remedy {best['label']}"
    unit, rest = best["to_large"][key]["unit"], (best["to_small"].get(key) or {}).get("estimate")
    said = f"{said}: {signed(gain_of(best, key), unit)} to the large batch{sureness(gain_of(best, key))}"
    return f"{said}, {signed(rest, unit)} to the small one{sureness(rest)}." if rest else f"{said}."


def none_helps(best: Mapping[str, Any], key: str, count: str, *, verb: str) -> str:
    """Say that no remedy is better beyond doubt, and how far the best one comes."""
    gain = gain_of(best, key)
    interval = numbers.interval(gain)
    sure = f", 95 % interval {interval}, n = {gain['n']}" if interval else " in the only seed"
    found = f"{signed(gain, best['to_large'][key]['unit'])}{sure}"
    measure = key.replace("_", " ")
    if not count:
        return f"The remedy {best['label']} cannot be {verb} the large batch in {measure} ({found})."
    return f"None of {count} can be {verb} the large batch in {measure} (best: {best['label']}, {found})."


def count_of(named: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]) -> str:
    """Count remedies, and those that came to nothing; "" where there is only one."""
    if len(named) == 1:
        return ""
    lost = [one for one in named if one not in made]
    ends = [run["outcome"] for one in lost for run in one["runs"]]
    diverged = bool(ends) and all(one["runs"] for one in lost) and set(ends) == {"diverged"}
    aside = f" ({len(lost)} {'diverged' if diverged else 'not finished'})" if lost else ""
    return f"{len(named)} remedies{aside}"


def gain_of(one: Mapping[str, Any], key: str) -> Any:
    """Give the estimate of a remedy's difference to the plain large batch; None where there is none."""
    return (one["to_large"].get(key) or {}).get("estimate")


def better(difference: float, key: str) -> float:
    """Turn a difference so that more is better."""
    return difference if key == "test_accuracy" else -difference


def is_told(estimate: Mapping[str, Any]) -> bool:
    """Tell whether the interval of a difference leaves 0 out; one seed has no interval, and tells nothing."""
    bounds = numbers.ends(estimate)
    return bounds is not None and not bounds[0] <= 0 <= bounds[1]


def signed(estimate: Mapping[str, Any], unit: str) -> str:
    """Write a difference with its unit."""
    return f"{numbers.difference(estimate)} {unit}"


def sureness(estimate: Mapping[str, Any]) -> str:
    """Write the interval of a difference, or that one seed has none."""
    interval = numbers.interval(estimate)
    return f" (95 % interval {interval}, n = {estimate['n']})" if interval else " (one seed)"


def figure(document: Document) -> Figure:
    """Draw the test accuracy of every seed of every way of training, one line each, with means and their intervals.

    Args:
        document: the comparison.

    Returns:
        The figure; where there is nothing to draw it says why.
    """
    key = key_of(document)
    title, unit = ("Test accuracy", "%") if key == "test_accuracy" else ("Test loss", "nats per sample")
    shown = [(role, one) for role, one in arms(document) if by_seed(one, key)]
    if len(shown) < 3:
        return nothing(NAME, TITLE, "No run with a remedy was finished.")
    places = places_of([str(one["label"]) for _, one in shown])
    series = [made for role, one in shown for made in marks(role, one, key, places[one["label"]])]
    values = [x for one in series for x in (*one.x, *(end for bar in one.intervals if bar for end in bar))]
    limits = padded(values, ceiling=100.0 if unit == "%" else float("inf"))
    names = tuple((y, in_lines(label)) for label, y in places.items())
    left = Axis("", limits=(min(places.values()) - 0.6, 0.7), names=names)
    seeds = sorted({len(by_seed(one, key)) for _, one in shown})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    caption = f"One dot a seed, n = {counted}. Diamond: mean with its 95 % interval (Student t), not paired."
    height = max(1.0, (1.3 - min(places.values())) / ROOM)
    return Figure(NAME, TITLE, caption, Axis(title, unit, limits=limits), left, tuple(series), height=height)


def places_of(labels: Sequence[str]) -> dict[str, float]:
    """Put names below one another, those of several lines with more room."""
    found, place, before = {}, 0.0, 1.0
    for i, label in enumerate(labels):
        room = max(1.0, 0.62 * (1 + in_lines(label).count("\n")))
        place -= (before + room) / 2 if i else 0.0
        found[label], before = place, room
    return found


def in_lines(label: str) -> str:
    """Break a long name between its remedies."""
    return label if len(label) <= LONGEST_LINE else label.replace("+", "\n+ ")


def marks(role: Role, one: Mapping[str, Any], key: str, place: float) -> list[Series]:
    """Make the dots of one way of training, and the mean above them."""
    found = by_seed(one, key)
    notes = tuple(f"{one['label']}, seed {seed}: {numbers.number(value, 4)}" for seed, value in found.items())
    dots = Series(one["label"], tuple(found.values()), (place - 0.14,) * len(found), role, "dots", notes=notes)
    mean = one[key]
    if mean is None or mean["n"] < 2:
        return [dots]
    note = (f"{one['label']}, mean: {numbers.number(mean['value'], 4)}",)
    bars = (numbers.ends(mean),)
    return [dots, Series(f"{one['label']}, mean", (mean["value"],), (place + 0.14,), role, "mean", "left", bars, note)]
