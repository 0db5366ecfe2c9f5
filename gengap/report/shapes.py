"""What a picture consists of, said once: paper and screen draw the same records."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["small", "large", "loss", "accuracy", "curvature", "noise", "remedy", "ink"]
Style = Literal["solid", "dashed", "dots", "open", "mean", "rug", "cross"]
Side = Literal["left", "right"]
Point = float | None


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        label: the quantity.
        unit: its unit, or "" where it has none.
        log: whether equal distances mean equal ratios.
        limits: first and last value shown; None lets the data decide.
        names: places with a word instead of a number; empty for numbers.
    """

    label: str
    unit: str = ""
    log: bool = False
    limits: tuple[float, float] | None = None
    names: tuple[tuple[float, str], ...] = ()

    @property
    def text(self) -> str:
        """Quantity and unit, as written beside the axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together.

    Attributes:
        label: its name in the legend and under the pointer.
        x: positions.
        y: values; None leaves a gap.
        role: what the colour stands for.
        style: a line, dots, open markers (published numbers, peaks), means with error bars, short upright strokes, or crosses.
        side: the axis the values belong to.
        intervals: low and high end of each value's error bar, of a line its band; empty where there are none. Where the
            axis on the left has names, the bars lie along the one below.
        notes: a text for each point, shown under the pointer.
        faint: whether it stands behind the others (one seed among several).
        strength: of the colour, in (0, 1]: tells the values of an ordered setting apart.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[Point, ...]
    role: Role
    style: Style
    side: Side = "left"
    intervals: tuple[tuple[float, float] | None, ...] = ()
    notes: tuple[str, ...] = ()
    faint: bool = False
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Guide:
    """An upright line with a word at its top.

    Attributes:
        x: where it stands.
        label: the word.
        role: what the colour stands for.
        interval: of x, shaded; None where it is exact or has none.
    """

    x: float
    label: str
    role: Role
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A remark at the foot of a place that has no marks, saying why."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """What one colour or one kind of line means."""

    label: str
    role: Role
    style: Style
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Surface:
    """A height over a plane, drawn as contours.

    Attributes:
        x: positions along the axis below, ascending.
        y: positions along the axis on the left, ascending.
        z: the height at each y (rows) and x (columns); None leaves a gap.
        levels: heights at which a contour runs, ascending.
        label: what the height is, with its unit.
        role: what the colour stands for; it is the denser, the higher.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    z: tuple[tuple[Point, ...], ...]
    levels: tuple[float, ...]
    label: str
    role: Role


@dataclass(frozen=True, slots=True)
class Tiles:
    """Values over a grid, drawn as tiles that are the denser, the more of the levels their value reaches.

    Attributes:
        x: edges of the columns along the axis below, ascending, one more than there are columns.
        y: edges of the rows along the axis on the left, likewise.
        z: the value of each row and column; None leaves the paper bare.
        levels: values at which the colour changes, ascending.
        label: what the value is, with its unit.
        role: what the colour stands for.
        rising: whether the densest tiles are those of the highest values.
        notes: a text for each tile, shown under the pointer.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    z: tuple[tuple[Point, ...], ...]
    levels: tuple[float, ...]
    label: str
    role: Role
    rising: bool
    notes: tuple[tuple[str, ...], ...]

    def strength(self, value: float) -> float:
        """Say how dense a tile is, from a little at the wrong end of the levels to full at the right one."""
        passed = sum(value >= level for level in self.levels)
        return 0.08 + 0.87 * (passed if self.rising else len(self.levels) - passed) / max(1, len(self.levels))


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture.

    Attributes:
        name: the name of its files.
        title: what it shows, a few words.
        caption: what the marks are, n, and what the error bars are.
        x: the axis below.
        left: the axis on the left.
        series: what is drawn, back to front.
        surface: contours behind everything else, if there are any.
        tiles: a grid of values behind everything else, if there is one.
        height: in units of the usual one.
        right: the axis on the right, if there is one.
        guides: upright lines.
        words: remarks where marks are missing.
        key: colours and kinds of line that no axis explains.
        empty: why there is nothing to draw, or "".
    """

    name: str
    title: str
    caption: str
    x: Axis
    left: Axis
    series: tuple[Series, ...] = ()
    right: Axis | None = None
    guides: tuple[Guide, ...] = ()
    words: tuple[Word, ...] = ()
    key: tuple[Key, ...] = ()
    empty: str = ""
    surface: Surface | None = None
    tiles: Tiles | None = None
    height: float = 1.0


def nothing(name: str, title: str, why: str) -> Figure:
    """Make a figure that only says why there is nothing to draw."""
    return Figure(name, title, "", Axis(""), Axis(""), empty=why)


def drawable(values: Iterable[Point], *, log: bool) -> tuple[Point, ...]:
    """Replace what an axis cannot show by a gap."""
    return tuple(y if y is not None and math.isfinite(y) and (y > 0 or not log) else None for y in values)


def padded(values: Iterable[Point], *, ceiling: float = math.inf) -> tuple[float, float]:
    """Give limits with a little air around the data.

    Args:
        values: what must be seen; gaps are left out, and at least one value is there.
        ceiling: the largest value possible (100 for percentages): air above it is kept small.

    Returns:
        Lower and upper limit.
    """
    seen = [y for y in values if y is not None]
    low, high = min(seen), min(max(seen), ceiling)
    air = 0.1 * (high - low) or 0.02 * abs(high) or 1.0
    return low - air, min(high + air, ceiling + 0.3 * air)
