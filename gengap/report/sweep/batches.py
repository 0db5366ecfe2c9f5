"""What batch size does: test result, best learning rate and training loss against it, budgets and momenta side by side."""

from collections.abc import Sequence

from gengap.report.shapes import Figure, Key, Series
from gengap.report.sweep import parts
from gengap.report.sweep.fitted import transitions
from gengap.report.sweep.view import Line, Sweep, shown_together

MOST_WITH_BARS = 2  # lines; the bars of more would cover each other
WORDS = {"epochs": "equal epochs", "steps": "equal updates", "converged": "until converged"}


def figures(sweep: Sweep) -> list[Figure]:
    """Draw test result, best learning rate and training loss for each kind of budget that has several batch sizes."""
    drawn: list[Figure | None] = []
    for group in shown_together(sweep):
        if max(len(line.trained) for line in group) > 1:
            drawn += [tested(sweep, group), best_lr(sweep, group), training_loss(group)]
    return [figure for figure in drawn if figure is not None]


def tested(sweep: Sweep, group: Sequence[Line]) -> Figure | None:
    """Draw the test result at the best learning rate of each batch size."""
    names, roles = parts.legend([line.way for line in group])
    series, n = means(group, sweep.metric)
    if not parts.reach(series):
        return None
    guides, said = transitions(sweep, group, roles, "regimes")
    title = parts.title_of(sweep)
    return Figure(
        f"{sweep.metric}_{group[0].kind}",
        titled(title, group),
        f"{about(group)}, at the best learning rate of each batch size. {n}{said}",
        parts.at_values(parts.BATCH, parts.widths(series)),
        parts.upright(sweep, series, title),
        tuple(series),
        guides=guides,
        key=parts.keys(names, roles),
    )


def best_lr(sweep: Sweep, group: Sequence[Line]) -> Figure:
    """Draw the best learning rate of each batch size, with the linear rule."""
    names, roles = parts.legend([line.way for line in group])
    series: list[Series] = []
    for line in group:
        series += parts.on_grid(
            names[line.way], sizes(line), line.trained, roles[line.way], bars=len(group) <= MOST_WITH_BARS
        )
    heights = parts.reach(series)
    guides, said = transitions(sweep, group, roles, "lr_transition")
    rules = tuple(linear_rule(line, max(heights)) for line in group if len(line.trained) > 1)
    return Figure(
        f"best_lr_{group[0].kind}",
        titled("Best learning rate", group),
        f"{about(group)}. {parts.bars_said(series)} Dashed: the linear rule, lr in proportion to batch size.{said}",
        parts.at_values(parts.BATCH, parts.widths(series)),
        parts.around("Learning rate", heights),
        (*rules, *series),
        guides=guides,
        key=(*parts.keys(names, roles), *([Key("linear rule", "ink", "dashed")] if rules else [])),
    )


def linear_rule(line: Line, highest: float) -> Series:
    """Draw the linear rule through the smallest batch size, as far up as the picture goes."""
    first, last = line.trained[0], line.trained[-1]
    start, lr = float(first["batch_size"]), float(first["best_lr"])
    end = min(float(last["batch_size"]), max(start, highest * start / lr))
    return Series("linear rule", (start, end), (lr, lr * end / start), "ink", "dashed", strength=0.6)


def training_loss(group: Sequence[Line]) -> Figure | None:
    """Draw the lowest training loss of each batch size."""
    names, roles = parts.legend([line.way for line in group])
    series, n = means(group, "best_train_loss", log=True)
    if not parts.reach(series):
        return None
    return Figure(
        f"train_loss_{group[0].kind}",
        titled("Training loss", group),
        f"{about(group)}, at the learning rate with the lowest training loss of each batch size. {n}",
        parts.at_values(parts.BATCH, parts.widths(series)),
        parts.loss_axis("Training loss", series),
        tuple(series),
        key=parts.keys(names, roles),
    )


def means(group: Sequence[Line], measure: str, *, log: bool = False) -> tuple[list[Series], str]:
    """Draw a measure of the cells of each line against batch size, and say over how many seeds its means are."""
    names, roles = parts.legend([line.way for line in group])
    series: list[Series] = []
    for line in group:
        estimates = [cell[measure] for cell in line.trained]
        series += parts.joined(names[line.way], sizes(line), estimates, roles[line.way], log=log)
    return series, parts.counted([cell[measure] for line in group for cell in line.trained])


def sizes(line: Line) -> list[float]:
    """List the batch sizes of a line."""
    return [float(cell["batch_size"]) for cell in line.trained]


def titled(title: str, group: Sequence[Line]) -> str:
    """Say beside the title what is kept equal."""
    return f"{title}, {WORDS[group[0].kind]}"


def about(group: Sequence[Line]) -> str:
    """Begin a caption: budget and training-set size, and the rule where there is one only."""
    way = group[0].way
    return parts.setting(way, alone=len(group) == 1)
