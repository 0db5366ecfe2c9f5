"""Where the test result peaks: against batch size for several learning rates, training-set sizes or momenta, and the peaks."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gengap.report import numbers
from gengap.report.shapes import Axis, Figure, Key, Role, Series, padded
from gengap.report.sweep import parts
from gengap.report.sweep.fits import Fit
from gengap.report.sweep.fitted import proportion_lines
from gengap.report.sweep.view import Run, Sweep, averaged, interval, value, way_of

BESIDE = 2  # batch sizes beside each peak that are in the picture
LEAST = 3  # batch sizes that make a curve with a peak
CLIFF = 3.0  # times the fall toward large batches: what falls further toward small ones is cut off
ROLE: Role = "accuracy"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is varied beside batch size.

    Attributes:
        field: of the runs.
        symbol: before its values in the key.
        title: of the pictures.
        word: for what the best batch size is drawn against, in a title.
        axis: the same beside its axis.
    """

    field: str
    symbol: str
    title: str
    word: str
    axis: str

    def place(self, level: float) -> float:
        """Put a value where the best batch size should be in proportion to it."""
        return 1 / (1 - level) if self.field == "momentum" else level

    def label(self, level: float) -> str:
        """Write a value with its symbol."""
        return f"{self.symbol} = {numbers.tick(level)}"


SETTINGS = (
    Setting("lr", "lr", "learning rates", "learning rate", "Learning rate"),
    Setting("train_size", "N", "training-set sizes", "training-set size", "Training-set size N"),
    Setting("momentum", "m", "momenta", "momentum", "1 / (1 \N{MINUS SIGN} m)"),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """The test result against batch size at one value of the setting.

    Attributes:
        level: the value.
        batches: ascending.
        estimates: over seeds, one for each batch size.
        peak: place of the best of them.
    """

    level: float
    batches: tuple[int, ...]
    estimates: tuple[Mapping[str, Any], ...]
    peak: int

    @property
    def inside(self) -> bool:
        """Whether smaller and larger batches were tried than the best."""
        return 0 < self.peak < len(self.batches) - 1

    @property
    def bar(self) -> tuple[float, float]:
        """From the neighbour below the best batch size to the one above."""
        last = len(self.batches) - 1
        return float(self.batches[max(0, self.peak - 1)]), float(self.batches[min(last, self.peak + 1)])


def figures(sweep: Sweep) -> list[Figure]:
    """Draw the curves and the peaks of every setting with at least two curves."""
    drawn = []
    for setting in SETTINGS:
        series = sweep.fits.get("optimal_batch", {}).get(setting.field) or {}
        held = series.get("shared") or widest(sweep, setting)
        curves = curves_of(sweep, setting, sharing(sweep, held))
        if len(curves) > 1:
            drawn += [against_batch(sweep, setting, held, curves), optimum(setting, held, curves, series)]
    return drawn


def widest(sweep: Sweep, setting: Setting) -> Mapping[str, Any]:
    """Choose what is held equal so that there are most curves, where no fit has chosen."""
    names = [name for name in ("budget", "train_size", "momentum", "optimizer", "lr") if name != setting.field]
    groups: dict[tuple[Any, ...], set[Any]] = defaultdict(set)
    for run in sweep.document["runs"]:
        groups[tuple(run.get(name) for name in names)].add((run["batch_size"], run.get(setting.field)))
    most = max(groups, key=lambda held: len(groups[held]), default=())
    return dict(zip(names, most, strict=False))


def sharing(sweep: Sweep, held: Mapping[str, Any]) -> list[Run]:
    """List the runs that have the settings held equal."""
    return [run for run in sweep.document["runs"] if all(run.get(name) == one for name, one in held.items())]


def curves_of(sweep: Sweep, setting: Setting, runs: Sequence[Run]) -> list[Curve]:
    """Average runs over seeds; a value with fewer than three batch sizes makes no curve."""
    groups: dict[float, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.get(setting.field) is not None:
            groups[run[setting.field]][run["batch_size"]].append(run)
    curves = []
    for level, by_batch in sorted(groups.items()):
        points = [(b, one) for b, own in sorted(by_batch.items()) if (one := averaged(own, sweep.metric))]
        if len(points) >= LEAST:
            batches, estimates = zip(*points, strict=True)
            heights = [one["value"] if sweep.rises else -one["value"] for one in estimates]
            curves.append(Curve(level, batches, estimates, heights.index(max(heights))))
    return curves


def against_batch(sweep: Sweep, setting: Setting, held: Mapping[str, Any], curves: Sequence[Curve]) -> Figure:
    """Draw the curves, a ring at each peak."""
    shown = parts.spread_out(curves)
    series: list[Series] = []
    for curve, strength in zip(shown, parts.strengths(len(shown)), strict=True):
        label, x = setting.label(curve.level), [float(b) for b in curve.batches]
        series += parts.joined(label, x, curve.estimates, ROLE, strength=strength)
    left = around_peaks(sweep, shown)
    series = [within(one, left) for one in series]
    series += [mark for curve in shown for mark in peak_marks(curve, setting)]
    title = parts.title_of(sweep)
    left_out = f" {len(shown)} of {len(curves)} {setting.title} are drawn." if len(shown) < len(curves) else ""
    n = parts.counted([one for curve in shown for one in curve.estimates])
    return Figure(
        f"{sweep.metric}_by_{setting.field}",
        f"{title} for several {setting.title}",
        f"{held_said(held)}. Rings: the best batch size of each, bars to the next ones tried. {n}{left_out}",
        parts.at_values(parts.BATCH, parts.widths(series)),
        left,
        tuple(series),
        key=tuple(
            Key(setting.label(curve.level), ROLE, "solid", strength)
            for curve, strength in zip(shown, parts.strengths(len(shown)), strict=True)
        ),
    )


def around_peaks(sweep: Sweep, curves: Sequence[Curve]) -> Axis:
    """Make the axis of the metric so that the peaks fill the picture, and not what small batches lose that hardly train."""
    near: list[float] = []
    for curve in curves:
        beyond = [one["value"] for one in curve.estimates[curve.peak :]]
        below = [one["value"] for one in curve.estimates[max(0, curve.peak - BESIDE) : curve.peak]]
        room = CLIFF * (max(beyond) - min(beyond))
        near += beyond + [one for one in below if not room or abs(one - beyond[0]) <= room]
    title, unit = parts.title_of(sweep), "%" if sweep.rises else "nats per sample"
    return Axis(title, unit, limits=padded(near, ceiling=100.0 if sweep.rises else math.inf))


def within(series: Series, axis: Axis) -> Series:
    """Take away marks that its axis does not reach; lines are cut where they leave it."""
    if series.style == "solid" or axis.limits is None:
        return series
    low, high = axis.limits
    return replace(series, y=tuple(y if y is not None and low <= y <= high else None for y in series.y))


def peak_marks(curve: Curve, setting: Setting) -> list[Series]:
    """Mark the best batch size of a curve, with a lying bar to its neighbours."""
    height = value(curve.estimates[curve.peak])
    best = float(curve.batches[curve.peak])
    label = f"best at {setting.label(curve.level)}: batch {numbers.whole(best)}"
    bar = Series(label, curve.bar, (height, height), "ink", "solid")
    return [bar, Series(label, (best,), (height,), "ink", "open", notes=(label,))]


def optimum(setting: Setting, held: Mapping[str, Any], curves: Sequence[Curve], fit: Fit) -> Figure:
    """Draw the best batch size against the setting, with the fitted power and the line in proportion."""
    points = fit.get("points") or ()
    smooth = bool(points) and all(point["smooth"] for point in points if point["verdict"] == "peak")
    lines = proportion_lines(fit, [setting.place(curve.level) for curve in curves])
    series = [*lines, *(tops(setting, points) if smooth else grid_bests(setting, curves))]
    edge = " Open: at the edge of the grid or flat, so a bound only." if any(s.style == "open" for s in series) else ""
    marks = (
        "Dots: tops of parabolas through the results, bars: 95 % intervals."
        if smooth
        else "Bars reach to the next batch sizes tried."
    )
    fitted = " Line: fitted power, shaded: its 95 % band; dashed: in proportion." if lines else ""
    return Figure(
        f"best_batch_by_{setting.field}",
        f"Best batch size against {setting.word}",
        f"{held_said(held)}. {marks}{edge}{fitted}",
        parts.at_values(setting.axis, parts.widths(series))
        if not lines
        else parts.around(setting.axis, parts.widths(series)),
        parts.around("Best batch size", parts.reach(series)),
        tuple(series),
    )


def tops(setting: Setting, points: Sequence[Mapping[str, Any]]) -> list[Series]:
    """Mark the tops of the parabolas, and where there is none the best batch size of the grid."""
    series = []
    for peaked in (True, False):
        own = [point for point in points if (point["verdict"] == "peak") is peaked]
        if own:
            y = tuple(point["smooth"]["value"] if peaked else point["batch_size"] for point in own)
            bars = tuple(interval(point["smooth"]) if peaked else None for point in own)
            notes = tuple(f"{setting.label(point['value'])}: {point['reason']}" for point in own)
            x = tuple(point["x"] for point in own)
            series.append(
                Series("best batch size", x, y, ROLE, "dots" if peaked else "open", intervals=bars, notes=notes)
            )
    return series


def grid_bests(setting: Setting, curves: Sequence[Curve]) -> list[Series]:
    """Mark the best batch sizes of the grid."""
    series = []
    for inside in (True, False):
        own = [curve for curve in curves if curve.inside is inside]
        if own:
            x = tuple(setting.place(curve.level) for curve in own)
            y = tuple(float(curve.batches[curve.peak]) for curve in own)
            notes = tuple(f"{setting.label(c.level)}: batch {numbers.whole(c.batches[c.peak])}" for c in own)
            bars = tuple(curve.bar for curve in own)
            series.append(
                Series("best batch size", x, y, ROLE, "dots" if inside else "open", intervals=bars, notes=notes)
            )
    return series


def held_said(held: Mapping[str, Any]) -> str:
    """Say what is equal in a picture."""
    lr = f"lr {numbers.tick(held['lr'])}" if held.get("lr") else ""
    return ", ".join(part for part in (parts.setting(way_of(held), alone="momentum" in held), lr) if part)
