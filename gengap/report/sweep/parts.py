"""Parts that several figures of a sweep are made of: colours, axes, points with bars, what a caption says of n."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gengap.report import numbers
from gengap.report.shapes import Axis, Key, Role, Series, drawable, padded
from gengap.report.sweep.view import Sweep, Way, interval, named, rule, value

Estimates = Sequence[Mapping[str, Any] | None]
ORDER: tuple[Role, ...] = ("noise", "curvature", "accuracy", "large", "small", "remedy")
MOST = 6  # lines that a reader can tell apart in one picture
ROOM_FOR_TICKS, GAP = 44, 2  # characters side by side, and between two
MOST_ROWS, ROOM_FOR_ROWS = 10, 14  # ticks one above the other: at even distances, and until they touch
LOGARITHMIC = 100.0  # a larger ratio than this hides the small values on a linear axis
LOWEST = -2.0  # percent: no accuracy lies below 0, whatever a bar says
BATCH = "Batch size"


def colours(ways: Sequence[Way]) -> dict[Way, Role]:
    """Give each way of training its colour: plain SGD the first one, so that it looks the same in every figure."""
    plain = [way for way in ways if not way.momentum]
    ordered = [*plain[:1], *(way for way in ways if way not in plain[:1])]
    shift = 0 if plain else 1
    return {way: ORDER[(i + shift) % len(ORDER)] for i, way in enumerate(ordered)}


def strengths(count: int) -> list[float]:
    """Give the values of an ordered setting colours from weak to strong."""
    return [1.0] if count == 1 else [0.3 + 0.7 * i / (count - 1) for i in range(count)]


def spread_out(values: Sequence[Any], most: int = MOST) -> list[Any]:
    """Choose values that stand evenly in their order, both ends among them."""
    if len(values) <= most:
        return list(values)
    places = {round(i * (len(values) - 1) / (most - 1)) for i in range(most)}
    return [value for i, value in enumerate(values) if i in places]


def joined(
    label: str, x: Sequence[float], estimates: Estimates, role: Role, *, log: bool = False, strength: float = 1.0
) -> list[Series]:
    """Draw means with their intervals, joined by a line."""
    y = drawable([value(one) for one in estimates], log=log)
    bars = tuple(seen(interval(one), log=log) for one in estimates)
    notes = tuple(
        f"{label}, {numbers.tick(at)}: {numbers.spread(one)}" if one else ""
        for at, one in zip(x, estimates, strict=True)
    )
    line = Series(label, tuple(x), y, role, "solid", strength=strength)
    return [line, Series(label, tuple(x), y, role, "dots", intervals=bars, notes=notes, strength=strength)]


def seen(bar: tuple[float, float] | None, *, log: bool) -> tuple[float, float] | None:
    """Keep a bar that its axis can show."""
    return bar if bar and (bar[0] > 0 or not log) and all(map(math.isfinite, bar)) else None


def around(label: str, values: Iterable[float], unit: str = "") -> Axis:
    """Make a logarithmic axis with air around its values."""
    known = [x for x in values if x > 0]
    room = max(1.25, (max(known) / min(known)) ** 0.06)
    return Axis(label, unit, log=True, limits=(min(known) / room, max(known) * room))


def at_values(
    label: str,
    values: Iterable[float],
    *,
    upright: bool = False,
    limits: tuple[float, float] | None = None,
    room: int = ROOM_FOR_TICKS,
) -> Axis:
    """Make a logarithmic axis whose ticks are the values that were tried, as many as there is room for."""
    known = sorted(set(values))
    axis = around(label, known) if limits is None else Axis(label, log=True, limits=limits)
    step = 1
    while crowded([numbers.tick(x) for x in known[::step]], MOST_ROWS if upright else room, upright=upright):
        step += 1
    return replace(axis, names=tuple(apart(axis, known[::step], ROOM_FOR_ROWS if upright else room, upright=upright)))


def crowded(names: Sequence[str], room: int, *, upright: bool) -> bool:
    """Tell whether ticks at even distances would touch: too many one above the other, or too long side by side."""
    return (len(names) if upright else sum(len(name) + GAP for name in names)) > room


def apart(axis: Axis, values: Sequence[float], room: int, *, upright: bool) -> Iterator[tuple[float, str]]:
    """Name the ticks of an axis, ascending; one that would touch the name before it has none."""
    low, high = map(math.log, axis.limits or (values[0], values[-1]))
    end = -math.inf
    for x in values:
        name = numbers.tick(x)
        middle, half = room * (math.log(x) - low) / (high - low), (1 if upright else len(name)) / 2
        if middle - half >= end:
            yield x, name
            end = middle + half + (0 if upright else GAP / 2)


def upright(sweep: Sweep, series: Sequence[Series], title: str) -> Axis:
    """Make the axis of the metric, with all means in sight; a bar that is longer than twice their spread is cut."""
    means = [y for one in series for y in one.y if y is not None]
    ends = [end for one in series for bar in one.intervals if bar for end in bar]
    reach = 2 * (max(means) - min(means)) or math.inf
    near = [end for end in ends if min(means) - reach <= end <= max(means) + reach]
    if sweep.rises:
        low, high = padded([*means, *near], ceiling=100.0)
        return Axis(title, "%", limits=(max(low, LOWEST), high))
    return Axis(title, "nats per sample", log=max(means) > LOGARITHMIC * min(means) > 0)


def loss_axis(title: str, series: Sequence[Series]) -> Axis:
    """Make the axis of a loss: logarithmic where it spans decades."""
    means = [y for one in series for y in one.y if y is not None]
    return Axis(title, "nats per sample", log=min(means) > 0 and max(means) > 10 * min(means))


def title_of(sweep: Sweep) -> str:
    """Name the metric."""
    return "Test accuracy" if sweep.rises else "Test loss"


def keys(names: Mapping[Way, str], roles: Mapping[Way, Role]) -> tuple[Key, ...]:
    """Explain the colours of lines, where there are several."""
    return tuple(Key(name, roles[way], "solid") for way, name in names.items()) if len(names) > 1 else ()


def counted(estimates: Estimates) -> str:
    """Say over how many seeds means were taken, and what their bars are."""
    known = [one["n"] for one in estimates if one and one.get("n")]
    if not known:
        return ""
    fewest, most = min(known), max(known)
    if most == 1:
        return "n = 1 seed each, no error bars."
    n = str(most) if fewest == most else f"{fewest} to {most}"
    return f"n = {n} seeds each; bars: 95 % intervals (Student t)."


def setting(way: Way, *, alone: bool) -> str:
    """Say budget, training-set size and, of a single line, the rule, as a caption begins."""
    size = f"{numbers.whole(way.train_size)} training samples" if way.train_size else ""
    return ", ".join(part for part in (way.budget, size, rule(way) if alone else "") if part)


def on_grid(
    label: str, x: Sequence[float], winners: Sequence[Mapping[str, Any]], role: Role, *, bars: bool = True
) -> list[Series]:
    """Draw best learning rates: bars reach to the neighbours on the grid, those at its edge are open."""
    found = [(at, one) for at, one in zip(x, winners, strict=True) if one.get("best_lr") is not None]
    series = [Series(label, tuple(at for at, _ in found), tuple(one["best_lr"] for _, one in found), role, "solid")]
    for edge in (False, True):
        own = [(at, one) for at, one in found if bool(one["at_edge"]) is edge]
        if own:
            y = tuple(one["best_lr"] for _, one in own)
            ends = (
                tuple((one["lr_low"] or one["best_lr"], one["lr_high"] or one["best_lr"]) for _, one in own)
                if bars
                else ()
            )
            notes = tuple(f"{label}, {numbers.whole(at)}: {grid_said(one)}" for at, one in own)
            places = tuple(at for at, _ in own)
            series.append(Series(label, places, y, role, "open" if edge else "dots", intervals=ends, notes=notes))
    return series


def grid_said(winner: Mapping[str, Any]) -> str:
    """Say a best learning rate with its neighbours."""
    ends = [numbers.MISSING if end is None else numbers.tick(end) for end in (winner["lr_low"], winner["lr_high"])]
    return f"{numbers.tick(winner['best_lr'])} (next tried: {ends[0]} and {ends[1]})"


def bars_said(series: Sequence[Series]) -> str:
    """Explain the marks of `on_grid`."""
    edge = any(one.style == "open" for one in series)
    said = ["Bars reach to the next values tried."] if any(one.intervals for one in series) else []
    return " ".join([*said, *(["Open: at the edge of the grid."] if edge else [])])


def reach(series: Iterable[Series]) -> list[float]:
    """List every height of a picture, bars included."""
    heights: list[float | None] = []
    for one in series:
        heights += [*one.y, *(end for bar in one.intervals if bar for end in bar)]
    return [y for y in heights if y is not None]


def widths(series: Iterable[Series]) -> list[float]:
    """List every position of a picture along the axis below."""
    return [x for one in series for x in one.x]


def legend(ways: Sequence[Way]) -> tuple[dict[Way, str], dict[Way, Role]]:
    """Name and colour the lines of a picture."""
    return named(ways), colours(ways)
