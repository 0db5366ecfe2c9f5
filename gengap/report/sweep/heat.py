"""The whole grid at a glance: the test result of every batch size and learning rate, and the best rate of each batch."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from gengap.report import numbers
from gengap.report.shapes import Figure, Key, Role, Series, Tiles
from gengap.report.sweep import parts
from gengap.report.sweep.view import Line, Run, Sweep, averaged, foremost

LADDER = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # distances from the best at which the colour changes
MOST_STEPS = 6
MOST_GRIDS = 4
ROOM = 36  # characters below the tiles; the strip of colours takes the rest
ROLE: Role = "accuracy"


def figures(sweep: Sweep) -> list[Figure]:
    """Draw a grid for each line of the first kind of budget that has at least two batch sizes and two learning rates."""
    lines = foremost(sweep)[:MOST_GRIDS]
    drawn = (grid(sweep, line, alone=len(lines) == 1) for line in lines)
    return [figure for figure in drawn if figure is not None]


def grid(sweep: Sweep, line: Line, *, alone: bool) -> Figure | None:
    """Draw the grid of one line with the ridge over it."""
    batches = [cell["batch_size"] for cell in line.cells]
    runs = [sweep.runs[line.way, batch] for batch in batches]
    rates = sorted({run["lr"] for own in runs for run in own})
    if len(batches) < 2 or len(rates) < 2:
        return None
    table = [[[run for run in own if run["lr"] == rate] for own in runs] for rate in rates]
    means = [[averaged(own, sweep.metric) for own in row] for row in table]
    z = tuple(tuple(one["value"] if one else None for one in row) for row in means)
    spreads = [one["stdev"] for row in means for one in row if one and one["stdev"]]
    notes = tuple(
        tuple(tile_note(batch, rate, own, one) for batch, own, one in zip(batches, row, averages, strict=True))
        for rate, row, averages in zip(rates, table, means, strict=True)
    )
    unit = "%" if sweep.rises else "nats"
    x, y = edges(batches), edges(rates)
    tiles = Tiles(
        x,
        y,
        z,
        levels(sweep, [value for row in z for value in row if value is not None], spreads),
        f"{parts.title_of(sweep)} ({unit})",
        ROLE,
        sweep.rises,
        notes,
    )
    crosses = marked(batches, rates, table)
    ridge = Series(
        "best learning rate",
        tuple(float(cell["batch_size"]) for cell in line.trained),
        tuple(cell["best_lr"] for cell in line.trained),
        "ink",
        "solid",
    )
    dots = Series("best learning rate", ridge.x, ridge.y, "ink", "dots")
    name = "grid" if alone else f"grid_{line.way.optimizer}_{numbers.tick(line.way.momentum)}"
    said = " Crosses: runs that diverged, faint where only some did." if crosses else ""
    return Figure(
        name,
        f"{parts.title_of(sweep)} over the grid",
        f"{parts.setting(line.way, alone=True)}. Mean over finished seeds; steps of the colour count from the best. "
        f"Line: the best learning rate of each batch size.{said} Bare: no run.",
        parts.at_values(parts.BATCH, map(float, batches), limits=(x[0], x[-1]), room=ROOM),
        parts.at_values("Learning rate", rates, upright=True, limits=(y[0], y[-1])),
        (*crosses, ridge, dots),
        key=(Key("best lr", "ink", "dots"), *([Key("diverged", "loss", "cross")] if crosses else [])),
        tiles=tiles,
    )


def edges(places: Sequence[float]) -> tuple[float, ...]:
    """Put edges half-way between neighbours, in logarithms."""
    logs = [math.log(place) for place in places]
    middles = [(a + b) / 2 for a, b in pairwise(logs)]
    outer = [2 * logs[0] - middles[0], *middles, 2 * logs[-1] - middles[-1]]
    return tuple(math.exp(place) for place in outer)


def levels(sweep: Sweep, values: Sequence[float], spreads: Sequence[float]) -> tuple[float, ...]:
    """Choose where the colour changes: round distances from the best, none finer than the seeds scatter."""
    if not values:
        return ()
    best, worst = (max(values), min(values)) if sweep.rises else (min(values), max(values))
    scale = 1.0 if sweep.rises else (abs(best) or 1.0)
    finest = statistics.median(spreads) if spreads else 0.0
    rungs = [rung for rung in LADDER if finest <= rung * scale <= abs(worst - best)]
    kept = parts.spread_out(rungs, MOST_STEPS)
    sign = -1.0 if sweep.rises else 1.0
    return tuple(sorted(float(f"{best + sign * rung * scale:.3g}") for rung in kept))


def tile_note(batch: int, rate: float, runs: Sequence[Run], average: Mapping[str, Any] | None) -> str:
    """Say a tile under the pointer."""
    lost = sum(run["outcome"] == "diverged" for run in runs)
    diverged = f", {lost} of {len(runs)} diverged" if lost else ""
    return f"batch {numbers.whole(batch)}, lr {numbers.tick(rate)}: {numbers.spread(average)}{diverged}" if runs else ""


def marked(batches: Sequence[int], rates: Sequence[float], table: Sequence[Sequence[Sequence[Run]]]) -> list[Series]:
    """Put crosses where runs diverged: all of them, or some."""
    found: dict[bool, list[tuple[float, float, str]]] = {True: [], False: []}
    for rate, row in zip(rates, table, strict=True):
        for batch, runs in zip(batches, row, strict=True):
            lost = sum(run["outcome"] == "diverged" for run in runs)
            if lost:
                found[lost == len(runs)].append((float(batch), rate, f"{lost} of {len(runs)} diverged"))
    series = []
    for every, places in found.items():
        if places:
            x, y, notes = zip(*places, strict=True)
            series.append(Series("diverged", x, y, "loss", "cross", notes=notes, faint=not every))
    return series
