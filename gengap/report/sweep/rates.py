"""What the learning rate does: the test result against it, for several batch sizes."""

from collections.abc import Mapping
from typing import Any

from gengap.report.shapes import Figure, Key, Role, Series
from gengap.report.sweep import parts
from gengap.report.sweep.view import Line, Sweep, at, averaged, foremost, rates

ROLE: Role = "accuracy"


def figures(sweep: Sweep) -> list[Figure]:
    """Draw the first line's curves, where at least one batch size was tried with two learning rates."""
    drawn = [against_lr(sweep, line) for line in foremost(sweep)[:1]]
    return [figure for figure in drawn if figure is not None]


def against_lr(sweep: Sweep, line: Line) -> Figure | None:
    """Draw one curve for each batch size."""
    shown = parts.spread_out(line.trained)
    strengths = parts.strengths(len(shown))
    series: list[Series] = []
    averages: list[Mapping[str, Any]] = []
    for cell, strength in zip(shown, strengths, strict=True):
        tried = rates(sweep, line.way, cell["batch_size"])
        estimates = [averaged(at(sweep, line.way, cell["batch_size"], rate), sweep.metric) for rate in tried]
        known = [(rate, one) for rate, one in zip(tried, estimates, strict=True) if one]
        if len(known) > 1:
            x, y = zip(*known, strict=True)
            averages += y
            series += parts.joined(f"batch {cell['batch_size']:,}", x, y, ROLE, strength=strength)
    if not series:
        return None
    title = parts.title_of(sweep)
    left_out = f" {len(shown)} of {len(line.trained)} batch sizes are drawn." if len(shown) < len(line.trained) else ""
    return Figure(
        f"{sweep.metric}_against_lr",
        f"{title} against learning rate",
        f"{parts.setting(line.way, alone=True)}. {parts.counted(averages)}{left_out}",
        parts.at_values("Learning rate", parts.widths(series)),
        parts.upright(sweep, series, title),
        tuple(series),
        key=tuple(
            Key(f"batch {cell['batch_size']:,}", ROLE, "solid", strength)
            for cell, strength in zip(shown, strengths, strict=True)
        ),
    )
