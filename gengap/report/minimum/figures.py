"""Which pictures a minimum has: document in, figures out; nothing here knows how they are drawn."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gengap.report import numbers
from gengap.report.minimum.rows import Number, by_key, numbers_of
from gengap.report.shapes import Axis, Figure, Guide, Key, Role, Series, Surface, drawable, nothing, padded

Document = Mapping[str, Any]
Records = Mapping[str, Mapping[str, Any]]
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
SHOWN_AS_LOG = 100.0  # a larger ratio than this hides the small values on a linear axis
CONTOURS_AS_RATIOS = 20.0
DEEPEST = 1e-7  # of the highest density: what is lower is the foot of the figure
PARTS: tuple[tuple[str, Any], ...] = (("train", "solid"), ("test", "dashed"))


def figures(document: Document) -> list[Figure]:
    """Draw every picture whose measure was taken, the ones that say most first."""
    records = {m["name"]: m["record"] for m in document["measures"] if m["record"] is not None}
    made = (draw(document, records) for draw in DRAWN)
    return [figure for figure in made if figure is not None]


def sharpness(document: Document, records: Records) -> Figure | None:
    """Draw every kind of sharpness on one logarithmic axis."""
    del records
    every = [
        (short_name(one), one)
        for measure in document["measures"]
        if measure["group"] == "sharpness"
        for one in numbers_of(measure)
        if one.unit == "%" and one.value is not None
    ]
    found = [(label, one) for label, one in every if (one.value or 0.0) > 0]
    if not found:
        return None
    hidden = len(every) - len(found)
    caption = (
        "How far the training loss climbs, in percent of 1 + loss; bars: 95 % intervals over draws where there are any. Boxes "
        "and balls: the highest point found, a lower bound. Equal distances are equal ratios."
    )
    if hidden:
        caption += f" {hidden} {'number' if hidden == 1 else 'numbers'} not above 0 cannot be shown."
    return dot_plot("sharpness", "How far the loss climbs", caption, Axis("Climb", "%", log=True), found, "loss")


def noise(document: Document, records: Records) -> Figure | None:
    """Draw every kind of noise scale, in samples."""
    del records
    found = [
        (short_name(one), one)
        for measure in document["measures"]
        if measure["group"] == "noise"
        for one in numbers_of(measure)
        if one.unit == "samples" and one.value is not None and one.value > 0
    ]
    if not found:
        return None
    caption = (
        "Batches far below the noise scale are mostly noise, far above it samples are wasted. Bars: 95 % intervals over samples, "
        "where there are any."
    )
    return dot_plot("noise", "Noise of the gradient", caption, Axis("Batch", "samples", log=True), found, "noise")


def dot_plot(
    name: str, title: str, caption: str, axis: Axis, found: Sequence[tuple[str, Number]], role: Role
) -> Figure:
    """Put one number on each line, the first at the top."""
    height = {i: float(len(found) - 1 - i) for i in range(len(found))}
    series = []
    for i, (label, one) in enumerate(found):
        bar = numbers.ends(one.estimate)
        bars = (bar if bar and bar[0] > 0 and math.isfinite(bar[1]) else None,)
        note = f"{one.name}: {numbers.number(one.value, 4)} {one.unit}"
        series.append(Series(label, (one.value or 0.0,), (height[i],), role, "mean", "left", bars, (note,)))
    names = tuple((height[i], label) for i, (label, _) in enumerate(found))
    left = Axis("", limits=(-0.6, len(found) - 0.25), names=names)
    shown = [x for one in series for x in (*one.x, *(one.intervals[0] or ()))]
    return Figure(name, title, caption, around(axis, shown), left, tuple(series))


def around(axis: Axis, values: Sequence[float]) -> Axis:
    """Give a logarithmic axis limits with air around the data."""
    room = max(2.0, (max(values) / min(values)) ** 0.12)
    return Axis(axis.label, axis.unit, axis.log, (min(values) / room, max(values) * room))


def short_name(one: Number) -> str:
    """Name a number in a picture whose title says the rest."""
    words = one.name.replace("Sharpness, ", "").replace("of radius ", "").replace("Noise scale", "simple")
    return words.removeprefix("simple, ").partition(", radius")[0]


def spectrum(document: Document, records: Records) -> Figure | None:
    """Draw the density of curvatures with its band, and the outermost eigenvalues as strokes."""
    del document
    found, top, bottom = (records.get(name) for name in ("spectral_density", "top_eigenvalues", "bottom_eigenvalues"))
    ends = [value for one in (top, bottom) if one for value in one["values"]]
    if not ends and found is None:
        return None
    if found is None:
        return eigenvalues_only(ends)
    floor = DEEPEST * max(found["density"])
    rows = list(zip(found["grid"], found["density"], found["low"], found["high"], strict=True))
    line = Series(
        "spectral density",
        tuple(x for x, *_ in rows),
        tuple(max(floor, y) for _, y, *_ in rows),
        "curvature",
        "solid",
        "left",
        tuple((max(floor, low), max(floor, high)) for *_, low, high in rows),
    )
    foot = 3 * floor
    caption = (
        f"Share of the eigenvalues of the Hessian per unit, {found['starts']} random starts of {found['steps']} steps; band: "
        f"95 % interval over starts; each smoothed by {numbers.significant(found['width'])}. Logarithmic axis."
    )
    series: tuple[Series, ...] = (line,)
    if ends:
        series += (strokes(ends, foot),)
        caption += " Strokes: the outermost eigenvalues, one by one."
    left = Axis("Density", "", log=True, limits=(floor, 3 * max(found["high"])))
    return Figure("spectrum", "Curvatures", caption, Axis("Eigenvalue"), left, series)


def strokes(values: Iterable[float], foot: float) -> Series:
    """Mark eigenvalues at the foot of a picture."""
    found = sorted(values)
    notes = tuple(f"eigenvalue {numbers.number(x, 4)}" for x in found)
    return Series("eigenvalues", tuple(found), (foot,) * len(found), "ink", "rug", notes=notes)


def eigenvalues_only(values: Sequence[float]) -> Figure:
    """Draw eigenvalues in their order, where there is no density."""
    found = sorted(values, reverse=True)
    notes = tuple(f"eigenvalue {numbers.number(x, 4)}" for x in found)
    x = tuple(float(i) for i in range(1, len(found) + 1))
    series = Series("eigenvalues", x, tuple(found), "curvature", "dots", notes=notes)
    caption = "The outermost eigenvalues of the Hessian that were found, in their order; errors are in the table."
    below = Axis("Place in their order", limits=(0.5, len(x) + 0.5), names=tuple((i, str(int(i))) for i in x))
    left = Axis("Eigenvalue", limits=padded(found))
    return Figure("spectrum", "Curvatures", caption, below, left, (series,))


def path(document: Document, records: Records) -> Figure | None:
    """Draw loss and accuracy on the line to the second checkpoint."""
    found = records.get("path")
    if found is None:
        return None
    losses = [y for row in found["losses"] for y in row if y is not None]
    log = bool(losses) and min(losses) > 0 and max(losses) / min(losses) > SHOWN_AS_LOG
    series = []
    for (part, style), row, right in zip(PARTS, found["losses"], found["accuracies"], strict=True):
        x = tuple(found["alphas"])
        if right is not None:
            series.append(Series(f"{part} accuracy", x, drawable(right, log=False), "accuracy", style, "right"))
        series.append(Series(f"{part} loss", x, drawable(row, log=log), "loss", style))
    accuracies = any(one.side == "right" for one in series)
    names = [called(document["problem"][which]) for which in ("checkpoint", "second")]
    caption = (
        f"Weights (1 {numbers.MINUS} {ALPHA})·this + {ALPHA}·second, {len(found['alphas'])} points, exact. Loss on the left axis"
        f"{', accuracy in green on the right' if accuracies else ''}. {'Logarithmic' if log else 'Linear'} loss axis."
    )
    return Figure(
        "path",
        "The path to the second checkpoint",
        caption,
        Axis(f"Position {ALPHA} on the path"),
        Axis("Loss", "nats per sample", log=log),
        tuple(series),
        Axis("Accuracy", "%", limits=(0.0, 102.0)) if accuracies else None,
        tuple(
            Guide(x, name if names[0] != names[1] else word, "ink")
            for x, name, word in ((0.0, names[0], "this"), (1.0, names[1], "second"))
        ),
        key=tuple(Key(part, "ink", style) for part, style in PARTS),
    )


def slices(document: Document, records: Records) -> Figure | None:
    """Draw the loss on a random plane as contours, the point itself in the middle."""
    del document
    found = records.get("slice_2d")
    if found is None:
        return None
    grid, axes = found["grid"], found["axes"]
    heights = [z for row in grid["losses"][0] for z in row if z is not None]
    if not heights:
        return nothing("slice_2d", "A random plane through it", "The loss is nowhere finite on this plane.")
    surface = Surface(
        tuple(grid["x"]),
        tuple(grid["y"]),
        tuple(tuple(row) for row in grid["losses"][0]),
        levels(min(heights), max(heights)),
        "loss, nats",
        "loss",
    )
    here = Series("this checkpoint", (0.0,), (0.0,), "curvature", "dots", notes=("this checkpoint",))
    caption = (
        f"Training loss in nats on {len(grid['x'])} {numbers.TIMES} {len(grid['y'])} points, exact; dot: the checkpoint. Two "
        f"random directions of very many, scaled by {axes['scaling']}: 1 moves each {axes['scaling']} by its own length."
    )
    labels = [Axis(f"{word} direction") for word in ("First", "Second")]
    return Figure("slice_2d", "A random plane through it", caption, labels[0], labels[1], (here,), surface=surface)


def journey(document: Document, records: Records) -> Figure | None:
    """Draw the way of the training on its plane, over the contours of the training loss."""
    found = records.get("trajectory")
    grid = found and found["grid"]
    if not found or not grid:
        return None
    rows = tuple(tuple(row) for row in grid["losses"][0])
    heights = [z for row in rows for z in row if z is not None]
    if not heights:
        return nothing("trajectory", "The way of the training", "The loss is nowhere finite on this plane.")
    height = levels(min(heights), max(heights))
    surface = Surface(tuple(grid["x"]), tuple(grid["y"]), rows, height, "loss, nats", "loss")
    x, y = (tuple(point[i] for point in found["coordinates"]) for i in (0, 1))
    way = Series("training", x, y, "curvature", "solid")
    stops = Series("snapshots", x, y, "curvature", "dots", notes=tuple(f"snapshot {i}" for i in range(len(x))))
    caption = (
        f"{found['checkpoints']} snapshots projected on their two principal components, which hold "
        f"{100 * sum(found['shares'][:2]):.1f} % of the variance, and the training loss in nats on that plane. The last one is "
        f"at (0, 0)."
    )
    if document["problem"]["has_batch_norm"] and document["settings"]["batch_norm"] == "running":
        caption += " Running statistics of batch norm are those of the checkpoint everywhere."
    labels = [Axis(f"{word} component", "distance of weights") for word in ("First", "Second")]
    limits = [Axis(one.label, one.unit, limits=(grid[k][0], grid[k][-1])) for one, k in zip(labels, "xy", strict=True)]
    return Figure("trajectory", "The way of the training", caption, limits[0], limits[1], (way, stops), surface=surface)


def levels(low: float, high: float) -> tuple[float, ...]:
    """Choose round heights for contours: ratios where the loss spans decades, else equal steps."""
    if low > 0 and high / low > CONTOURS_AS_RATIOS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1.0,) if len(decades) > 6 else (1.0, 3.0) if len(decades) > 3 else (1.0, 2.0, 5.0)
        inside = [factor * 10.0**k for k in decades for factor in steps]
    else:
        step = nice((high - low) / 6) or 1.0
        inside = [step * k for k in range(math.floor(low / step), math.ceil(high / step) + 1)]
    kept = [level for level in inside if low <= level <= high]
    return (*([inside[0]] if not kept or kept[0] > low else []), *kept, max(high, *inside[-1:]) * 1.0001)


def nice(x: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    if x <= 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(x))
    return next(factor * unit for factor in (1.0, 2.0, 5.0, 10.0) if factor * unit >= x)


def line(document: Document, records: Records) -> Figure | None:
    """Draw the loss along a random direction."""
    del document
    found = records.get("slice_1d")
    if found is None:
        return None
    losses = [y for row in found["losses"] for y in row if y is not None]
    log = bool(losses) and min(losses) > 0 and max(losses) / min(losses) > SHOWN_AS_LOG
    x = tuple(found["positions"])
    series = tuple(
        Series(f"{part} loss", x, drawable(row, log=log), "loss", style)
        for (part, style), row in zip(PARTS, found["losses"], strict=True)
    )
    scaling = found["axes"]["scaling"]
    caption = (
        f"Loss along one random direction of very many, {len(x)} points, exact; 1 moves each {scaling} by its own length. Solid: "
        f"train, dashed: test. {'Logarithmic' if log else 'Linear'} axis."
    )
    left = Axis("Loss", "nats per sample", log=log)
    key = tuple(Key(part, "ink", style) for part, style in PARTS)
    return Figure("slice_1d", "A random line through it", caption, Axis("Random direction"), left, series, key=key)


def growth(document: Document, records: Records) -> Figure | None:
    """Draw the distance from the start against the logarithm of the updates."""
    del document
    found = records.get("distance_curve")
    if found is None:
        return None
    points = [(float(t), y) for t, y in zip(found["steps"], found["distances"], strict=True) if t > 0]
    if len(points) < 2:
        return None
    x, y = zip(*points, strict=True)
    series = [
        Series(
            "distance", x, y, "loss", "dots", notes=tuple(f"update {t:,.0f}: {numbers.number(d)}" for t, d in points)
        )
    ]
    fit, said = found["log_fit"], ""
    if fit is not None:
        times = [t for t in x if found["fitted"][0] <= t <= found["fitted"][1]]
        height = tuple(fit["intercept"]["value"] + fit["slope"]["value"] * math.log(t) for t in times)
        series.insert(0, Series("log law", tuple(times), height, "ink", "dashed"))
        said = f" Dashed: the log law; compared with powers: {found['laws']['verdict']}."
    caption = f"Distance of the weights from the start at {len(x)} snapshots, exact.{said} Logarithmic axis of updates."
    below = Axis("Updates", log=True)
    return Figure("distance_curve", "How far it went", caption, below, Axis("Distance from the start"), tuple(series))


def called(checkpoint: str | None) -> str:
    """Shorten the path of a checkpoint to the name that tells it from others."""
    parts = [part for part in str(checkpoint or "").split("/") if part]
    if len(parts) > 1 and parts[-1].partition(".")[0] in {"params", "final", "model", "checkpoint"}:
        return parts[-2]
    return parts[-1] if parts else ""


def finding(document: Document, figure: Figure) -> str:
    """Say the main number of a figure, beside its title."""
    found = by_key([m for m in document["measures"] if m["record"] is not None])
    boxes = [one for key, one in found.items() if key.startswith("sharpness_")]
    chosen = {
        "sharpness": boxes[-1] if boxes else None,
        "spectrum": found.get("top_eigenvalue_1"),
        "noise": found.get("noise_scale"),
        "path": found.get("barrier_train"),
    }.get(figure.name)
    if chosen is None or chosen.value is None:
        return ""
    words = {"spectrum": "top ", "path": "barrier "}.get(figure.name, "")
    return f"{words}{numbers.significant(chosen.value)} {chosen.unit}".strip()


Draw = Callable[[Document, Records], Figure | None]
DRAWN: tuple[Draw, ...] = (sharpness, spectrum, slices, noise, path, growth, journey, line)
