"""The same figures for zooming: dictionaries that plotly.js draws; colours are CSS variables that the page fills in."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from plotly.offline import get_plotlyjs

from gengap.report.shapes import Axis, Figure, Guide, Role, Series

COLOURS: dict[Role, str] = {
    "small": "var(--small)",
    "large": "var(--large)",
    "loss": "var(--ink)",
    "accuracy": "var(--accuracy)",
    "curvature": "var(--curvature)",
    "noise": "var(--noise)",
    "remedy": "var(--remedy)",
    "ink": "var(--muted)",
}
SIGNIFICANT = 7  # digits kept of a value: more cannot be seen at any zoom
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,
    "showEditInChartStudio": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendDataToCloud", "lasso2d", "select2d"],
}


def script() -> str:
    """Give the text of plotly.js, to be put into a page once."""
    return str(get_plotlyjs())


def interactive(figure: Figure) -> dict[str, Any]:
    """Describe a figure to plotly.js.

    Args:
        figure: one that is not empty.

    Returns:
        `data`, `layout` and `config`, plain values only; a colour is written `var(--name)`.
    """
    return {
        "data": [
            *contours(figure),
            *tiles(figure),
            *(one for series in figure.series for one in traces(series, figure)),
        ],
        "layout": layout(figure),
        "config": {**CONFIG, "toImageButtonOptions": {"format": "svg", "filename": figure.name}},
    }


def contours(figure: Figure) -> list[dict[str, Any]]:
    """Describe the heights behind the series, the colour denser with each level."""
    surface = figure.surface
    if surface is None:
        return []
    heights = [[rounded(z) for z in row] for row in surface.z]
    steps = [[rank(z, surface.levels) for z in row] for row in surface.z]
    text = [["" if z is None else f"{plain(surface.label)}: {z:.5g}" for z in row] for row in heights]
    shade = [[0, "var(--paper)"], [1, COLOURS[surface.role]]]
    found = {"type": "contour", "x": list(surface.x), "y": list(surface.y), "z": steps, "text": text}
    lines = {"start": 0, "end": len(surface.levels) - 1, "size": 1}
    return [
        found | {"hoverinfo": "x+y+text", "colorscale": shade, "showscale": False, "opacity": 0.6, "contours": lines}
    ]


def tiles(figure: Figure) -> list[dict[str, Any]]:
    """Describe a grid of values behind the series: every tile a step of the colour."""
    grid = figure.tiles
    if grid is None:
        return []
    shade = [[None if z is None else grid.strength(z) for z in row] for row in grid.z]
    found = {"type": "heatmap", "x": list(grid.x), "y": list(grid.y), "z": shade, "zmin": 0, "zmax": 1}
    colours = [[0, "var(--paper)"], [1, COLOURS[grid.role]]]
    text = [[plain(note) for note in row] for row in grid.notes]
    looks = {"colorscale": colours, "showscale": False, "xgap": 1, "ygap": 1}
    return [found | looks | {"text": text, "hoverinfo": "text", "hoverongaps": False}]


def rank(z: float | None, levels: Sequence[float]) -> float | None:
    """Give the place of a height among the levels, with the way from one to the next as its fraction."""
    if z is None or len(levels) < 2:
        return None if z is None else 0.0
    at = min(max(bisect_right(levels, z) - 1, 0), len(levels) - 2)
    return rounded(at + (z - levels[at]) / (levels[at + 1] - levels[at]))


def traces(series: Series, figure: Figure) -> list[dict[str, Any]]:
    """Describe one series, a line's band before it."""
    lines = series.style in {"solid", "dashed"}
    if not (lines and any(series.intervals)):
        return [trace(series, lying=bool(figure.left.names))]
    bands = [bar or (None, None) for bar in series.intervals]
    edge: dict[str, Any] = {"type": "scatter", "mode": "lines", "line": {"width": 0}}
    edge |= {"x": [rounded(x) for x in series.x]}
    edge |= {"hoverinfo": "skip", "showlegend": False, "opacity": 0.22 * series.strength}
    low = edge | {"y": [rounded(bar[0]) for bar in bands]}
    high = edge | {"y": [rounded(bar[1]) for bar in bands], "fill": "tonexty", "fillcolor": COLOURS[series.role]}
    return [low, high, trace(series, lying=False)]


def trace(series: Series, *, lying: bool) -> dict[str, Any]:
    """Describe one series; its error bars lie where the axis on the left has names."""
    colour = COLOURS[series.role]
    lines = series.style in {"solid", "dashed"}
    found: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines" if lines else "markers",
        "name": series.label,
        "x": [rounded(x) for x in series.x],
        "y": [rounded(y) for y in series.y],
        "yaxis": "y2" if series.side == "right" else "y",
        "showlegend": False,
        "cliponaxis": False,
        "opacity": 0.4 if series.faint else series.strength,
        "hoverlabel": {"namelength": -1},
    }
    if series.notes:
        found |= {"text": list(series.notes), "hoverinfo": "text"}
    if lines:
        width = 1 if series.faint else 2
        return found | {
            "line": {"color": colour, "width": width, "dash": "dash" if series.style == "dashed" else "solid"}
        }
    return found | {"marker": marker(series), "error_x" if lying else "error_y": error_bars(series, lying=lying)}


def marker(series: Series) -> dict[str, Any]:
    """Describe the markers: small for a seed, a large diamond for a mean, open for a published number."""
    shape = {"mean": "diamond", "open": "circle-open", "rug": "line-ns-open", "cross": "x-thin-open"}.get(
        series.style, "circle"
    )
    size = 13 if series.style == "mean" else 8
    return {"color": COLOURS[series.role], "symbol": shape, "size": size}


def error_bars(series: Series, *, lying: bool) -> dict[str, Any]:
    """Describe the error bars as plotly wants them: lengths up and down, or right and left."""
    if not any(series.intervals):
        return {"visible": False}
    pairs = list(zip(series.x if lying else series.y, series.intervals, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [rounded(bar[1] - y) if bar and y is not None else 0 for y, bar in pairs],
        "arrayminus": [rounded(y - bar[0]) if bar and y is not None else 0 for y, bar in pairs],
        "color": COLOURS[series.role],
        "width": 0,
        "thickness": 2,
    }


def layout(figure: Figure) -> dict[str, Any]:
    """Describe axes, guides and colours."""
    font = {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"}
    found: dict[str, Any] = {
        "xaxis": plotly_axis(figure.x) | {"showgrid": bool(figure.left.names) and figure.tiles is None},
        "yaxis": plotly_axis(figure.left)
        | {"showgrid": not figure.left.names and figure.surface is None and figure.tiles is None},
        "paper_bgcolor": "var(--paper)",
        "plot_bgcolor": "var(--paper)",
        "font": font,
        "margin": {"l": 64, "r": 64 if figure.right else 16, "t": 40, "b": 48},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--rule)", "font": font},
        "shapes": [shape for guide in figure.guides for shape in guide_shapes(guide)],
        "annotations": [
            *(remark(position(guide.x, figure.x), 1.0, guide.label) for guide in figure.guides),
            *(remark(position(word.x, figure.x), 0.0, word.text) for word in figure.words),
        ],
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
    }
    if figure.right is not None:
        green = {"color": "var(--accuracy)"}
        right = plotly_axis(figure.right)
        right |= {"overlaying": "y", "side": "right", "showgrid": False, "tickmode": "auto", "tickfont": green}
        found["yaxis2"] = right | {"title": right["title"] | {"font": green}}
    return found


def position(x: float, axis: Axis) -> float:
    """Give the position of a remark: on a logarithmic axis plotly wants the exponent."""
    return math.log10(x) if axis.log else x


def plotly_axis(axis: Axis) -> dict[str, Any]:
    """Describe one axis."""
    found: dict[str, Any] = {
        "title": {"text": plain(axis.text), "standoff": 8},
        "gridcolor": "var(--rule)",
        "linecolor": "var(--rule)",
        "zeroline": False,
        "automargin": True,
    }
    if axis.log:
        found |= {"type": "log", "dtick": "D2", "tickformat": ",~g"}
    if axis.limits is not None:
        found["range"] = [math.log10(x) for x in axis.limits] if axis.log else list(axis.limits)
    if axis.names:
        found |= {
            "tickvals": [x for x, _ in axis.names],
            "ticktext": [plain(name).replace("\n", "<br>") for _, name in axis.names],
        }
    return found


def guide_line(x: float, colour: str) -> dict[str, Any]:
    """Describe an upright line over the whole height."""
    line = {"color": colour, "width": 1.5}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line, "opacity": 0.7}


def guide_shapes(guide: Guide) -> list[dict[str, Any]]:
    """Describe a guide, its interval before it."""
    line = guide_line(guide.x, COLOURS[guide.role])
    if guide.interval is None:
        return [line]
    low, high = guide.interval
    band = {"type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    return [band | {"line": {"width": 0}, "fillcolor": COLOURS[guide.role], "opacity": 0.12}, line]


def remark(x: float, height: float, text: str) -> dict[str, Any]:
    """Describe a word that stands on a height of the frame, 0 at its foot."""
    place = {"x": x, "y": height, "yref": "paper", "yanchor": "bottom"}
    return place | {"text": plain(text), "showarrow": False}


def plain(text: str) -> str:
    """Keep plotly from reading markup in a name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def rounded(x: float | None) -> float | None:
    """Cut digits that nobody can see, to keep the page small."""
    return None if x is None else float(f"{x:.{SIGNIFICANT}g}")
