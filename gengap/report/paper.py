"""Figures for papers and for pages without JavaScript: PNG, SVG, and SVG that takes its colours from the page."""

import html
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as AxisLine, YAxis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator

from gengap.core.files import whole_file
from gengap.report import numbers
from gengap.report.shapes import Axis, Figure, Key, Role, Series, Side, Style, Surface, Tiles

WIDTH, HEIGHT = 380, 300  # points; a page shows them about as large, so that text is read at its size
TEXT = 12.0
DOTS_PER_INCH = 200
PAPER, INK, MUTED, RULE = "#ffffff", "#1f2328", "#59636e", "#d9dee3"
COLOURS: dict[Role, str] = {
    "small": "#0072b2",
    "large": "#d55e00",
    "loss": "#1f2328",
    "accuracy": "#007a5a",
    "curvature": "#8a3b9c",
    "noise": "#96690a",
    "remedy": "#9a3c78",
    "ink": MUTED,
}
VARIABLES = {  # the page's names for the colours above
    PAPER: "var(--paper)",
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    COLOURS["small"]: "var(--small)",
    COLOURS["large"]: "var(--large)",
    COLOURS["accuracy"]: "var(--accuracy)",
    COLOURS["curvature"]: "var(--curvature)",
    COLOURS["noise"]: "var(--noise)",
    COLOURS["remedy"]: "var(--remedy)",
}
DASHES: dict[Style, tuple[float, ...]] = {"dashed": (4.0, 2.0)}
MARKERS: dict[Style, tuple[str, float]] = {"mean": ("D", 8.5), "rug": ("|", 13.0), "cross": ("x", 7.0)}
LONGEST_NAME = 16
ROOM_FOR_NAMES = 22  # characters that fit above two neighbouring guides
ROOM_FOR_KEY = 52  # characters that fit above the axes
HALF_WAY = 0.5  # between the small batch at 0 and the large one at 1


def save(figure: Figure, folder: Path) -> list[Path]:
    """Write a figure as files.

    Args:
        figure: one that is not empty.
        folder: where; made if missing.

    Returns:
        The PNG (200 dpi) and the SVG file; the same figure gives the same bytes.
    """
    paths = [folder / f"{figure.name}.png", folder / f"{figure.name}.svg"]
    with whole_file(paths[0]) as part:
        part.write_bytes(rendered(figure, "png"))
    with whole_file(paths[1]) as part:
        part.write_bytes(vector(figure).encode())
    return paths


def inline(figure: Figure) -> str:
    """Draw a figure as an SVG element for a page.

    Args:
        figure: one that is not empty.

    Returns:
        The element: text as text, ids that begin with the figure's name, and colours as CSS variables (`--paper`,
        `--ink`, `--muted`, `--rule`, and one for each role), so that it follows light and dark.
    """
    text = vector(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    label = html.escape(f"{figure.title}. {figure.caption}")
    text = re.sub(
        r"<svg[^>]*>",
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT * figure.height:g}" role="img" aria-label="{label}">',
        text,
        count=1,
    )
    text = re.sub(r'(?<=\sid=")|(?<=url\(#)|(?<=href="#)', f"{figure.name}-", text).replace("xlink:href", "href")
    # matplotlib writes size and family apart, older versions together
    text = re.sub(r"font: (\S+) 'DejaVu Sans'[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*; ", "", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text.strip()


@lru_cache(maxsize=64)
def vector(figure: Figure) -> str:
    """Draw a figure as SVG with its tooltips; kept, since a page shows what its folder holds as a file."""
    return titled(figure, rendered(figure, "svg").decode())


def rendered(figure: Figure, form: str) -> bytes:
    """Draw with matplotlib's own defaults, whatever the user's settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc("svg", fonttype="none", hashsalt=figure.name)
        mpl.rc("font", size=TEXT)
        mpl.rc("text", color=INK, parse_math=False)
        buffer = io.BytesIO()
        metadata = {"Software": None} if form == "png" else dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas = draw(figure)
        canvas.savefig(buffer, format=form, dpi=DOTS_PER_INCH if form == "png" else 72, metadata=metadata)
        return buffer.getvalue()


def draw(figure: Figure) -> Canvas:
    """Put a figure on a canvas."""
    canvas = Canvas(figsize=(WIDTH / 72, HEIGHT * figure.height / 72), dpi=72, layout="constrained", facecolor=PAPER)
    left = canvas.add_subplot()
    sides: dict[Side, Axes] = {"left": left}
    dress(left, figure)
    if figure.right is not None:
        sides["right"] = left.twinx()
        dress_right(sides["right"], figure.right)
        left.set_zorder(1)
    add_guides(left, figure)
    if figure.surface is not None:
        add_contours(left, figure.surface)
    if figure.tiles is not None:
        add_tiles(left, figure.tiles)
        add_scale(left, figure.tiles)
    for word in figure.words:
        at = left.get_xaxis_transform()
        left.text(word.x, 0.04, word.text, transform=at, ha="center", color=MUTED)
    for place, series in enumerate(figure.series):
        mark(sides[series.side], series, place, figure)
    add_key(canvas, figure)
    return canvas


def add_guides(axes: Axes, figure: Figure) -> None:
    """Draw upright lines; names too long to stand side by side lean outwards."""
    crowded = sum(len(short(guide.label)) for guide in figure.guides) > ROOM_FOR_NAMES
    at = axes.get_xaxis_transform()
    for guide in figure.guides:
        if guide.interval is not None:
            axes.axvspan(*guide.interval, color=COLOURS[guide.role], alpha=0.12, lw=0, zorder=0)
        axes.axvline(guide.x, color=COLOURS[guide.role], lw=1.5, alpha=0.7, zorder=1)
        side = "center" if not crowded else "right" if guide.x < HALF_WAY else "left"
        axes.text(guide.x, 1.015, short(guide.label), transform=at, ha=side)


def dress(axes: Axes, figure: Figure) -> None:
    """Set axes and grid of the left side."""
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.tick_params(color=RULE, labelcolor=INK, labelsize=TEXT, length=3)
    if figure.surface is None and figure.tiles is None:
        axes.grid(axis="x" if figure.left.names else "y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)
    scale(axes.yaxis, figure.left, values_of(figure, "left"))
    axes.set_ylabel(figure.left.text, color=INK, fontsize=TEXT)
    axes.set_xlabel(figure.x.text, color=INK, fontsize=TEXT)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.tick(x)))
    if figure.x.log:
        scale(axes.xaxis, figure.x, [x for series in figure.series for x in series.x])
    if figure.x.limits is not None:
        axes.set_xlim(*figure.x.limits)
    if figure.x.names:
        axes.set_xticks([x for x, _ in figure.x.names], [short(name) for _, name in figure.x.names])
        axes.tick_params(axis="x", length=0, pad=6)
    if figure.left.names:
        axes.set_yticks([y for y, _ in figure.left.names], [name for _, name in figure.left.names])
        axes.tick_params(axis="y", length=0, pad=6)


def dress_right(axes: Axes, axis: Axis) -> None:
    """Set the right axis in the colour of what belongs to it."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    colour = COLOURS["accuracy"]
    axes.tick_params(color=RULE, labelcolor=colour, labelsize=TEXT, length=3)
    scale(axes.yaxis, axis, [])
    axes.set_ylabel(axis.text, color=colour, fontsize=TEXT)


def scale(line: AxisLine, axis: Axis, values: Sequence[float]) -> None:
    """Set scale, limits and ticks of an axis."""
    upright = isinstance(line, YAxis)
    if axis.log:
        line.axes.set(**{"yscale" if upright else "xscale": "log"})
    if axis.limits is not None:
        line.axes.set(**{"ylim" if upright else "xlim": axis.limits})
    line.axes.margins(y=0.08) if upright else line.axes.margins(x=0.08)
    line.set_major_locator(ticks(axis, axis.limits if axis.log and axis.limits else values))
    line.set_minor_locator(FixedLocator([]))
    line.set_major_formatter(FuncFormatter(lambda y, _: numbers.tick(y)))


def ticks(axis: Axis, values: Sequence[float]) -> Locator:
    """Choose tick places: decades where there are several, else 1-2-5, else round numbers."""
    ratio = max(values) / min(values) if axis.log and values else 1.0
    if ratio >= 300:
        return LogLocator(numticks=7)
    if ratio >= 5:
        return LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 60 else (1.0, 3.0), numticks=9)
    return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])


def values_of(figure: Figure, side: Side) -> list[float]:
    """Collect what one side must show, error bars included."""
    own = [series for series in figure.series if series.side == side]
    bars = [end for series in own for bar in series.intervals if bar for end in bar]
    return [y for series in own for y in series.y if y is not None] + bars


def add_contours(axes: Axes, surface: Surface) -> None:
    """Draw heights as contours with their numbers; the colour is the denser, the higher, on light and on dark."""
    z = np.ma.masked_invalid([[np.nan if value is None else value for value in row] for row in surface.z])
    steps = len(surface.levels)
    shades = [to_rgba(COLOURS[surface.role], 0.55 * (i + 1) / steps) for i in range(steps)]
    axes.contourf(surface.x, surface.y, z, levels=surface.levels, colors=shades[:-1], extend="neither", zorder=0)
    lines = axes.contour(
        surface.x, surface.y, z, levels=surface.levels, colors=COLOURS[surface.role], linewidths=0.8, zorder=1
    )
    axes.clabel(lines, fontsize=TEXT, colors=INK, fmt=numbers.tick, inline_spacing=2)


def mark(axes: Axes, series: Series, place: int, figure: Figure) -> None:
    """Draw one series; its name comes back as a tooltip through its id."""
    colour = COLOURS[series.role]
    if series.style in {"solid", "dashed"}:
        y = [float("nan") if value is None else value for value in series.y]
        width, alpha = (0.9, 0.4) if series.faint else (1.8, series.strength)
        dashes = DASHES.get(series.style, (None, None))
        add_band(axes, series)
        axes.plot(series.x, y, color=colour, lw=width, alpha=alpha, dashes=dashes, gid=f"tip-{place}", zorder=2)
        return
    for i, (x, value) in enumerate(zip(series.x, series.y, strict=True)):
        if value is not None:
            mark_point(axes, series, (x, value), f"tip-{place}-{i}", figure)
            bar = series.intervals[i] if series.intervals else None
            if bar:
                ends = (bar, (value, value)) if figure.left.names else ((x, x), bar)
                axes.plot(*ends, color=colour, lw=1.8, alpha=series.strength, zorder=3, solid_capstyle="butt")


def add_tiles(axes: Axes, tiles: Tiles) -> None:
    """Draw a grid of values; a tile without one stays bare."""
    for low, high, row in zip(tiles.y, tiles.y[1:], tiles.z, strict=False):
        for left, right, value in zip(tiles.x, tiles.x[1:], row, strict=False):
            if value is not None:
                shade = to_rgba(COLOURS[tiles.role], tiles.strength(value))
                axes.add_patch(
                    Rectangle((left, low), right - left, high - low, facecolor=shade, edgecolor=PAPER, lw=0.6)
                )


def add_scale(axes: Axes, tiles: Tiles) -> None:
    """Explain the colours of tiles on a strip beside them."""
    strip = axes.inset_axes((1.04, 0.0, 0.045, 1.0))
    steps = len(tiles.levels) + 1
    values = [tiles.levels[0] - 1.0, *tiles.levels] if tiles.levels else [0.0]
    for i, value in enumerate(values):
        shade = to_rgba(COLOURS[tiles.role], tiles.strength(value))
        strip.add_patch(Rectangle((0, i), 1, 1, facecolor=shade, edgecolor=PAPER, lw=0.6))
    strip.set(xlim=(0, 1), ylim=(0, steps), xticks=[])
    strip.yaxis.tick_right()
    strip.set_yticks(range(1, steps), [numbers.tick(level) for level in tiles.levels])
    strip.tick_params(length=0, labelsize=TEXT, labelcolor=INK)
    for spine in strip.spines.values():
        spine.set_visible(False)
    strip.yaxis.set_label_position("right")
    strip.set_ylabel(tiles.label, color=INK, fontsize=TEXT)


def add_band(axes: Axes, series: Series) -> None:
    """Draw the error band of a line."""
    if any(series.intervals):
        bands = [bar or (np.nan, np.nan) for bar in series.intervals]
        low, high = zip(*bands, strict=True)
        axes.fill_between(series.x, low, high, color=COLOURS[series.role], alpha=0.22 * series.strength, lw=0, zorder=1)


def mark_point(axes: Axes, series: Series, at: tuple[float, float], gid: str, figure: Figure) -> None:
    """Draw one point: a seed small, a mean as a diamond with its value, a published number open, a stroke upright."""
    mean, hollow = series.style == "mean", series.style in {"open", "rug"}
    colour = COLOURS[series.role]
    shape, size = MARKERS.get(series.style, ("o", 6.5))
    point = Line2D([at[0]], [at[1]], marker=shape, markersize=size, linestyle="none")
    point.set_markerfacecolor(PAPER if hollow else colour)
    point.set_markeredgecolor(colour if hollow else PAPER)
    if series.style in {"rug", "cross"}:
        point.set_markeredgecolor(colour)
        point.set_markeredgewidth(1.6)
    point.set_alpha(0.6 if series.faint else series.strength)
    point.set_clip_on(False)
    point.set_gid(gid)
    point.set_zorder(4)
    axes.add_line(point)
    if mean and figure.left.names:
        axes.annotate(numbers.short(at[0], 3), at, xytext=(0, 8), textcoords="offset points", ha="center", va="bottom")
    elif mean:
        write_value(axes, at, numbers.short(at[1], 3 if figure.left.log else 4))


def write_value(axes: Axes, at: tuple[float, float], text: str) -> None:
    """Write a value on the outer side of its mark."""
    outward, side = (-8, "right") if at[0] < HALF_WAY else (8, "left")
    axes.annotate(
        text, at, xytext=(outward, 0), textcoords="offset points", ha=side, va="center", annotation_clip=False
    )


def add_key(canvas: Canvas, figure: Figure) -> None:
    """Write the key above the axes, where it covers no data."""
    if not figure.key:
        return
    handles = []
    for entry in figure.key:
        dots = entry.style not in {"solid", "dashed"}
        line = Line2D([], [], color=COLOURS[entry.role], label=short(entry.label), linewidth=0 if dots else 1.8)
        line.set_marker(MARKERS.get(entry.style, ("o", 0.0))[0] if dots else "")
        line.set_alpha(entry.strength)
        if entry.style in DASHES:
            line.set_dashes(DASHES[entry.style])
        handles.append(line)
    canvas.legend(
        handles=handles,
        loc="outside upper center",
        ncols=columns(figure.key),
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        handletextpad=0.4,
        borderpad=0.0,
    )


def columns(key: Sequence[Key]) -> int:
    """Say how many entries of a key fit side by side."""
    widest = max(len(short(entry.label)) for entry in key)
    return min(len(key), max(1, ROOM_FOR_KEY // (widest + 4)))


def titled(figure: Figure, text: str) -> str:
    """Give marks a title, which browsers show under the pointer."""

    def with_title(found: re.Match[str]) -> str:
        place, _, point = found["which"].partition("-")
        series = figure.series[int(place)]
        note = series.notes[int(point)] if point and series.notes else series.label
        return f"{found[0]}<title>{html.escape(note)}</title>"

    return re.sub(r'<g id="tip-(?P<which>\d+(-\d+)?)">', with_title, text)


def short(name: str) -> str:
    """Cut a name that would run into its neighbour."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
