"""What a target costs: steps and samples against batch size with the fitted law, and time against devices."""

from collections.abc import Mapping, Sequence
from typing import Any

from gengap.report import numbers
from gengap.report.shapes import Figure, Guide, Key, Series
from gengap.report.sweep import parts
from gengap.report.sweep.fits import group_of
from gengap.report.sweep.fitted import Cost, cost_of, plan_of
from gengap.report.sweep.view import Line, Sweep, Way, interval, value

LEAST = 2  # batch sizes
MOST_LAWS = 1  # in one picture; the bands of more would cover each other
PERFECT = Key("perfect scaling", "ink", "dashed")
Costs = Mapping[Way, Cost]


def figures(sweep: Sweep) -> list[Figure]:
    """Draw steps and samples to the target, then its time, where enough batch sizes reached it."""
    lines = reached(sweep)
    if not lines:
        return []
    found = [(line.way, cost) for line in lines if (cost := cost_of(group_of(sweep, line.way))) is not None]
    decided = [one for one in found if one[1].fit.verdict == "resolved"] or found
    costs = dict(decided[:MOST_LAWS])
    drawn: list[Figure | None] = [against_batch(sweep, lines, costs, what) for what in ("steps", "samples")]
    first = next((line for line in lines if line.way in costs), None)
    drawn += [time_against_devices(sweep, first, costs[first.way])] if first else []
    return [figure for figure in drawn if figure is not None]


def reached(sweep: Sweep) -> list[Line]:
    """Choose the lines of one budget and training set that reached the target with several batch sizes."""
    lines = [line for line in sweep.lines if len(hits(line, "samples")) >= LEAST]
    same = [line for line in lines if line.way[:2] == lines[0].way[:2]]
    return sorted(same, key=lambda line: (line.way.optimizer, line.way.momentum))


def hits(line: Line, what: str) -> list[tuple[float, Mapping[str, Any]]]:
    """List the batch sizes that reached the target, with what it took."""
    name = f"{what}_to_target"
    return [(float(cell["batch_size"]), cell[name]) for cell in line.cells if value(cell.get(name)) is not None]


def against_batch(sweep: Sweep, lines: Sequence[Line], costs: Costs, what: str) -> Figure | None:
    """Draw steps or samples to the target against batch size, at the fastest learning rate of each; None where it took none."""
    names, roles = parts.legend([line.way for line in lines])
    series: list[Series] = []
    for line in lines:
        x, estimates = zip(*hits(line, what), strict=True)
        measured = parts.joined(names[line.way], x, estimates, roles[line.way], log=True)
        if line.way in costs:
            curves = costs[line.way].curves(what, x, roles[line.way])
            series += curves if not series else curves[-1:]  # perfect scaling once
            measured = measured[1:]  # the law takes the place of the line from point to point
        series += measured
    if not any(height > 0 for height in parts.reach(series)):
        return None
    word = "Updates" if what == "steps" else "Samples"
    guides = critical(costs, roles)
    law = " Curve: the fitted law, shaded: its 95 % band." if costs else ""
    law += " Upright: the critical batch with its interval." if guides else ""
    n = parts.counted([one for line in lines for _, one in hits(line, what)])
    return Figure(
        f"{what}_to_target",
        f"{word} to the target",
        f"{word} until {target_said(sweep)}, at the fastest learning rate of each batch size. {n}{law}",
        parts.at_values(parts.BATCH, [x for line in lines for x, _ in hits(line, what)]),
        parts.around(f"{word} to the target", parts.reach(series)),
        tuple(series),
        guides=guides,
        key=(*parts.keys(names, roles), *([PERFECT] if any(one.label == PERFECT.label for one in series) else [])),
    )


def critical(costs: Costs, roles: Mapping[Way, Any]) -> tuple[Guide, ...]:
    """Mark the critical batches."""
    guides = []
    for way, cost in costs.items():
        found = value(cost.b_crit)
        if found is not None:
            guides.append(
                Guide(found, f"critical batch {numbers.significant(found)}", roles[way], interval(cost.b_crit))
            )
    return tuple(guides)


def target_said(sweep: Sweep) -> str:
    """Say the target in words."""
    target = sweep.document.get("target")
    if not target:
        return "the target"
    unit = " %" if target["measure"].endswith("accuracy") else ""
    given = f" ({target['origin']})" if target.get("origin") not in {None, "given"} else ""
    return f"{target['measure'].replace('_', ' ')} {numbers.number(target['value'], 4)}{unit}{given}"


def time_against_devices(sweep: Sweep, line: Line, cost: Cost) -> Figure | None:
    """Draw the fastest time to the target for each number of devices."""
    found = plan_of(sweep, line, cost)
    if found is None:
        return None
    plan, step = found
    x, y = tuple(float(way.devices) for way in plan.fastest), tuple(way.seconds for way in plan.fastest)
    bars = tuple(
        way.seconds_interval if way.seconds_interval and way.seconds_interval[0] > 0 else None for way in plan.fastest
    )
    notes = tuple(str(way) for way in plan.fastest)
    straight = tuple(y[0] * x[0] / devices for devices in x)
    series = (
        Series("perfect scaling", x, straight, "ink", "dashed", strength=0.7),
        Series("fastest", x, y, "curvature", "solid"),
        Series("fastest", x, y, "curvature", "dots", intervals=bars, notes=notes),
    )
    return Figure(
        "time_to_target",
        "Time to the target against devices",
        f"Forecast for {parts.setting(line.way, alone=True)}: time until {target_said(sweep)} at the fastest batch size for each "
        f"number of devices; bars: 95 % intervals. A step was timed here as {step}; what devices say to each other is taken "
        f"to cost nothing, so times of several are the least possible.",
        parts.at_values("Devices", x),
        parts.around("Time to the target", parts.reach(series), "s"),
        series,
        key=(PERFECT,),
    )
