"""The training curves: every seed thin, their mean thick."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gengap.report.shapes import Axis, Figure, Key, Point, Role, Series, Style, drawable, nothing

ARMS: tuple[Role, ...] = ("small", "large")
PARTS: tuple[tuple[str, Style], ...] = (("train", "solid"), ("test", "dashed"))

PART_KEYS = tuple(Key(part, "ink", style) for part, style in PARTS)


def training(document: Mapping[str, Any]) -> list[Figure]:
    """Draw accuracy and loss against epochs.

    Args:
        document: the comparison.

    Returns:
        Two figures; the accuracy is left out where no run has one.
    """
    accuracy = curve(document, "accuracy", Axis("Accuracy", "%"))
    loss = curve(document, "loss", Axis("Loss", "nats per sample", log=True))
    return [accuracy, loss] if accuracy.series else [loss]


def curve(document: Mapping[str, Any], quantity: str, left: Axis) -> Figure:
    """Draw one quantity of all runs against epochs."""
    series = [one for role in ARMS for one in curves_of_arm(document[role], role, quantity, log=left.log)]
    name, title = f"training_{quantity}", f"{left.label} while training"
    if not series:
        return nothing(name, title, "No run recorded its training.")
    small, large = (len(document[role]["runs"]) for role in ARMS)
    n = f"{small} {'run' if small == 1 else 'runs'} each" if small == large else f"{small} and {large} runs"
    several = any(one.faint for one in series)
    thick = " Thin: one seed; thick: the mean of the finished seeds, where all were evaluated." if several else ""
    caption = f"Solid: train, dashed: test; n = {n}, no error bars.{thick}"
    arms = (Key(document[role]["label"], role, "dots") for role in ARMS)
    key = (*arms, *PART_KEYS)
    back_to_front = tuple(sorted(series, key=lambda one: not one.faint))
    return Figure(name, title, caption, Axis("Epochs"), left, back_to_front, key=key)


def curves_of_arm(arm: Mapping[str, Any], role: Role, quantity: str, *, log: bool) -> Iterator[Series]:
    """Make the curves of one batch size, train and test, and their means."""
    runs = [run for run in arm["runs"] if run["history"]["epoch"]]
    for part, style in PARTS:
        lines = []
        for run in runs:
            y = drawable(run["history"][f"{part}_{quantity}"], log=log)
            if any(value is not None for value in y):
                label = f"{arm['label']}, {part}, seed {run['seed']}"
                line = Series(label, tuple(run["history"]["epoch"]), y, role, style, faint=len(runs) > 1)
                lines.append((run["outcome"], line))
        yield from (line for _, line in lines)
        finished = [line for outcome, line in lines if outcome == "finished"]
        if len(runs) > 1 and finished:
            yield mean_curve(finished, f"{arm['label']}, {part}, mean")


def mean_curve(lines: Sequence[Series], label: str) -> Series:
    """Average curves over the epochs at which every one of them was evaluated."""
    tables = [dict(zip(line.x, line.y, strict=True)) for line in lines]
    x = tuple(sorted(set.intersection(*(set(table) for table in tables))))
    y = tuple(mean_of([table[epoch] for table in tables]) for epoch in x)
    return Series(label, x, y, lines[0].role, lines[0].style)


def mean_of(column: Sequence[Point]) -> Point:
    """Average values; a gap in one is a gap in the mean."""
    known = [y for y in column if y is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(column) else None
