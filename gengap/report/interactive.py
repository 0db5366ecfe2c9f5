"""The same figures for zooming: dictionaries that plotly.js draws; colours are CSS variables that the page fills in."""

from typing import Any

from plotly.offline import get_plotlyjs

from gengap.report.shapes import Axis, Figure, Role, Series

COLOURS: dict[Role, str] = {
    "small": "var(--small)",
    "large": "var(--large)",
    "loss": "var(--ink)",
    "accuracy": "var(--accuracy)",
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
        "data": [trace(series) for series in figure.series],
        "layout": layout(figure),
        "config": {**CONFIG, "toImageButtonOptions": {"format": "svg", "filename": figure.name}},
    }


def trace(series: Series) -> dict[str, Any]:
    """Describe one series."""
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
        "opacity": 0.4 if series.faint else 1.0,
        "hoverlabel": {"namelength": -1},
    }
    if series.notes:
        found |= {"text": list(series.notes), "hoverinfo": "text"}
    if lines:
        width = 1 if series.faint else 2
        return found | {
            "line": {"color": colour, "width": width, "dash": "dash" if series.style == "dashed" else "solid"}
        }
    return found | {"marker": marker(series), "error_y": error_bars(series)}


def marker(series: Series) -> dict[str, Any]:
    """Describe the markers: small for a seed, a large diamond for a mean, open for a published number."""
    shape = {"mean": "diamond", "open": "circle-open"}.get(series.style, "circle")
    size = 13 if series.style == "mean" else 8
    return {"color": COLOURS[series.role], "symbol": shape, "size": size}


def error_bars(series: Series) -> dict[str, Any]:
    """Describe the error bars as plotly wants them: lengths up and down."""
    if not any(series.intervals):
        return {"visible": False}
    pairs = list(zip(series.y, series.intervals, strict=True))
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
        "xaxis": plotly_axis(figure.x) | {"showgrid": False},
        "yaxis": plotly_axis(figure.left),
        "paper_bgcolor": "var(--paper)",
        "plot_bgcolor": "var(--paper)",
        "font": font,
        "margin": {"l": 64, "r": 64 if figure.right else 16, "t": 40, "b": 48},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--rule)", "font": font},
        "shapes": [guide_line(guide.x, COLOURS[guide.role]) for guide in figure.guides],
        "annotations": [
            *(remark(guide.x, 1.0, guide.label) for guide in figure.guides),
            *(remark(word.x, 0.0, word.text) for word in figure.words),
        ],
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
    }
    if figure.right is not None:
        green = {"color": "var(--accuracy)"}
        right = plotly_axis(figure.right)
        right |= {"overlaying": "y", "side": "right", "showgrid": False, "tickmode": "auto", "tickfont": green}
        found["yaxis2"] = right | {"title": right["title"] | {"font": green}}
    return found


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
        found["range"] = list(axis.limits)
    if axis.names:
        found |= {"tickvals": [x for x, _ in axis.names], "ticktext": [plain(name) for _, name in axis.names]}
    return found


def guide_line(x: float, colour: str) -> dict[str, Any]:
    """Describe an upright line over the whole height."""
    line = {"color": colour, "width": 1.5}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line, "opacity": 0.7}


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
