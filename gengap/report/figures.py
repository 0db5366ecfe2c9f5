"""Which pictures a comparison has: document in, figures out; nothing here knows how they are drawn."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gengap.core import estimate
from gengap.report import curves, numbers
from gengap.report.shapes import Axis, Figure, Guide, Point, Role, Series, Word, drawable, nothing, padded

Document = Mapping[str, Any]
Arm = Mapping[str, Any]
ARMS: tuple[tuple[Role, float], ...] = (("small", 0.0), ("large", 1.0))
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
BESIDE = 0.3  # how far outside its dots a mean stands
SHOWN_AS_LOG = 100.0  # a larger ratio than this hides the small values on a linear axis


def figures(document: Document) -> list[Figure]:
    """Choose and fill every figure of a comparison.

    Args:
        document: the comparison, in the form `gengap.comparison/1`.

    Returns:
        Test result, sharpness, the path between the minima, then the training curves. A figure whose data do not
        exist is there too and says why in `empty`.
    """
    return [outcome(document), sharpness(document), path(document), *curves.training(document)]


def outcome(document: Document) -> Figure:
    """Draw how every seed tests: accuracy, or the loss where the problem has no accuracy."""
    measure = next((m for m in ("test_accuracy", "test_loss") if has(document, m)), None)
    if measure is None:
        return nothing("test_accuracy", "Test accuracy", "No run was finished, so there is nothing to test.")
    title, unit = ("Test accuracy", "%") if measure == "test_accuracy" else ("Test loss", "nats per sample")
    values = {role: by_seed(document[role], measure) for role, _ in ARMS}
    means = {role: document[role][measure] for role, _ in ARMS}
    series = dots_and_means(document, values, means, unit=unit)
    shown = [y for one in series for y in (*one.y, *(end for bar in one.intervals if bar for end in bar))]
    limits = padded(shown, ceiling=100.0 if unit == "%" else math.inf)
    caption = f"{seeds_said(values)}{mean_said(means, 'mean', 'Student t')}"
    words = tuple(Word(x, "no finished run") for role, x in ARMS if not values[role])
    return Figure(measure, title, caption, arms_axis(document), Axis(title, unit, limits=limits), series, words=words)


def sharpness(document: Document) -> Figure:
    """Draw how sharp every minimum is, on a logarithmic axis, with the geometric mean of each arm."""
    name, title = "sharpness", "Sharpness of the minimum"
    measured = {role: measured_sharpness(document[role]) for role, _ in ARMS}
    values = {role: {s: v for s, v in found.items() if v > 0} for role, found in measured.items()}
    zeros = sum(len(measured[role]) - len(values[role]) for role, _ in ARMS)
    said = f" {zeros} {'run' if zeros == 1 else 'runs'} with a sharpness of 0 cannot be shown." if zeros else ""
    if not any(values.values()):
        return nothing(name, title, "Sharpness was not measured." if not zeros else said.strip())
    means = {role: geometric_mean(list(found.values())) for role, found in values.items()}
    series = dots_and_means(document, values, means, unit="")
    caption = (
        f"{seeds_said(values)}{mean_said(means, 'geometric mean', 'Student t on logarithms')}"
        f"{said}{search_said(document)} Equal distances are equal ratios."
    )
    words = tuple(
        Word(x, "0 in every run" if measured[role] else "not measured") for role, x in ARMS if not values[role]
    )
    axis = Axis("Sharpness", "%", log=True)
    return Figure(name, title, caption, arms_axis(document), axis, series, words=words)


def path(document: Document) -> Figure:
    """Draw loss and accuracy on the straight line through the two minima."""
    name, title = "interpolation", "The path between the minima"
    lines = document["interpolation"]
    if not lines:
        return nothing(name, title, "The path was not measured; it needs a finished run of each batch size.")
    losses = [y for line in lines for key in ("train_loss", "test_loss") for y in line[key] if y is not None]
    log = bool(losses) and min(losses) > 0 and max(losses) / min(losses) > SHOWN_AS_LOG
    series = [one for line in lines for one in path_of_seed(line, log=log, alone=len(lines) == 1)]
    accuracies = any(one.side == "right" for one in series)
    right = Axis("Accuracy", "%", limits=(0.0, 102.0)) if accuracies else None
    series = path_legend(series)
    guides = tuple(Guide(x, document[role]["label"], role) for role, x in ARMS)
    scale = "Logarithmic" if log else "Linear"
    caption = (
        f"Weights (1 {numbers.MINUS} {ALPHA})·small + {ALPHA}·large; {counted(len(lines), 'seed')}, no error bars. "
        f"Loss on the left axis{', accuracy in green on the right' if accuracies else ''}. "
        f"Solid: train, dashed: test. {scale} loss axis.{norm_said(lines)}"
    )
    left = Axis("Loss", "nats per sample", log=log)
    return Figure(
        name,
        title,
        caption,
        Axis(f"Position {ALPHA} on the path"),
        left,
        tuple(series),
        right,
        guides,
        key=curves.PART_KEYS,
    )


def path_of_seed(line: Mapping[str, Any], *, log: bool, alone: bool) -> list[Series]:
    """Make the four lines of one seed; those without any value are left out."""
    found = []
    for part, style in (("train", "solid"), ("test", "dashed")):
        for role, side in (("accuracy", "right"), ("loss", "left")):
            y = drawable(line[f"{part}_{role}"], log=log and role == "loss")
            if any(value is not None for value in y):
                label = f"{part} {role}" if alone else f"{part} {role}, seed {line['seed']}"
                x = tuple(line["alphas"])
                found.append(Series(label, x, y, role, style, side, faint=not alone))  # type: ignore[arg-type]
    return found


def path_legend(series: Sequence[Series]) -> list[Series]:
    """Add the mean over seeds where all were measured at the same points."""
    several = sorted({one.label.split(",")[0] for one in series if one.faint})
    means = []
    for label in several:
        same = [one for one in series if one.label.startswith(f"{label},")]
        if len({one.x for one in same}) == 1:
            y = tuple(curves.mean_of(column) for column in zip(*(one.y for one in same), strict=True))
            means.append(Series(f"{label}, mean", same[0].x, y, same[0].role, same[0].style, same[0].side))
    return [*series, *means]


def dots_and_means(
    document: Document,
    values: Mapping[Role, Mapping[int, float]],
    means: Mapping[Role, Mapping[str, Any] | None],
    *,
    unit: str,
) -> tuple[Series, ...]:
    """Make dots for the seeds, a mean beside them, and a line between two runs of the same seed."""
    series = [
        Series(f"seed {seed}", (0.0, 1.0), (values["small"][seed], values["large"][seed]), "ink", "solid", faint=True)
        for seed in sorted(values["small"].keys() & values["large"].keys())
    ]
    for role, x in ARMS:
        label, found = document[role]["label"], values[role]
        notes = tuple(f"{label}, seed {seed}: {numbers.number(y, 4)} {unit}".rstrip() for seed, y in found.items())
        series.append(Series(label, (x,) * len(found), tuple(found.values()), role, "dots", notes=notes))
        mean = means[role]
        if mean is not None and mean["value"] is not None and mean["n"] > 1:
            bar = numbers.ends(mean)
            note = f"{label}, mean: {numbers.number(mean['value'], 4)} {unit}".rstrip()
            place = x - BESIDE if x == 0 else x + BESIDE
            bars = (bar if bar and all(map(math.isfinite, bar)) else None,)
            series.append(Series(f"{label}, mean", (place,), (mean["value"],), role, "mean", "left", bars, (note,)))
    return tuple(one for one in series if one.x)


def arms_axis(document: Document) -> Axis:
    """Make the axis whose two places are the two batch sizes."""
    names = tuple((x, str(document[role]["label"])) for role, x in ARMS)
    return Axis("", limits=(-0.85, 1.85), names=names)


def by_seed(arm: Arm, measure: str) -> dict[int, float]:
    """Collect a measure of the finished runs."""
    return {run["seed"]: run[measure] for run in arm["runs"] if is_number(run[measure]) and is_finished(run)}


def measured_sharpness(arm: Arm) -> dict[int, float]:
    """Collect the sharpness of the runs where it was measured."""
    runs = (run for run in arm["runs"] if run["sharpness"])
    return {run["seed"]: run["sharpness"]["percent"] for run in runs if is_number(run["sharpness"]["percent"])}


def geometric_mean(values: Sequence[float]) -> dict[str, Any] | None:
    """Average on the logarithmic axis that the values are drawn on."""
    if not values:
        return None
    found = estimate.mean([math.log(x) for x in values])
    bar = None if found.interval is None else [estimate.safe_exp(x) for x in found.interval]
    return {"value": math.exp(found.value), "stdev": None, "n": found.n, "interval": bar}


def has(document: Document, measure: str) -> bool:
    """Tell whether any finished run has a value of this measure."""
    return any(by_seed(document[role], measure) for role, _ in ARMS)


def is_number(x: Any) -> bool:
    """Tell whether a field was measured."""
    return x is not None and math.isfinite(x)


def is_finished(run: Mapping[str, Any]) -> bool:
    """Tell whether a run came to its end."""
    return bool(run["outcome"] == "finished")


def seeds_said(values: Mapping[Role, Mapping[int, Point]]) -> str:
    """Say what a dot is, how many there are, and which are joined."""
    small, large = len(values["small"]), len(values["large"])
    n = f"n = {small}" if small == large else f"n = {small} and {large}"
    paired = values["small"].keys() & values["large"].keys()
    joined = "; lines join runs of the same seed" if paired else ""
    return f"One dot a seed, {n}{joined}."


def mean_said(means: Mapping[Role, Mapping[str, Any] | None], kind: str, method: str) -> str:
    """Say what the large marks and the error bars are, or that there are none."""
    if not any(mean and mean["n"] > 1 for mean in means.values()):
        return " One seed has no interval."
    return f" Diamond: {kind} with its 95 % interval ({method})."


def search_said(document: Document) -> str:
    """Say how sharpness was searched, where all runs agree about it."""
    found = [run["sharpness"] for role, _ in ARMS for run in document[role]["runs"] if run["sharpness"]]
    searches = {(one["search"], one.get("radius")) for one in found}
    if len(searches) != 1:
        return " The runs were searched in different ways: see the table of runs."
    mode, radius = searches.pop()
    bound = ", a lower bound" if all(one.get("bound") == "lower" for one in found) else ""
    box = f", radius {numbers.tick(radius)}" if radius is not None else ""
    return f" Search: {mode}{box}{bound}."


def norm_said(lines: Sequence[Mapping[str, Any]]) -> str:
    """Say which statistics batch norm used on the path, where the network has any."""
    forms = sorted({str(line["batch_norm"]) for line in lines} - {"none"})
    return f" Batch norm: {', '.join(forms)} statistics." if forms else ""


def counted(n: int, what: str) -> str:
    """Write a count with its noun."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
