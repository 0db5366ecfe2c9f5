"""What was fitted, in words: clauses of the answer, the refusals, a number beside a picture's title, and the table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gengap.report import numbers
from gengap.report.sweep.tables import several, way_said
from gengap.report.sweep.view import Line, Sweep, Way, foremost, interval, rule, shown_together, value, way_of

Fit = Mapping[str, Any]
MOST_CLAUSES = 2  # more is left to the table
AXES = {"lr": "learning rate", "train_size": "training-set size", "momentum": "1 / (1 \N{MINUS SIGN} m)"}
NUMBERS = {
    "regimes": "Transition batch",
    "lr_exponent": "Exponent of the best lr in batch size",
    "lr_transition": "Batch from which on the best lr stays",
    "loss_lr_exponent": "Exponent of the lr that is best for training loss",
    "b_crit": "Critical batch",
    "e_min": "Samples to target, small batches",
    "s_min": "Updates to target, large batches",
}
POWERS = {"lr_exponent", "loss_lr_exponent"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of fits.

    Attributes:
        name: what was fitted, and to which runs.
        value: with the digits that its interval justifies.
        interval: 95 %, or "".
        reason: what it rests on, or why there is none.
    """

    name: str
    value: str
    interval: str
    reason: str


def group_of(sweep: Sweep, way: Way) -> Fit | None:
    """Give the fits over batch sizes of one way of training; None where there are none."""
    return next((group for group in sweep.fits.get("groups", ()) if way_of(group) == way), None)


def clauses(sweep: Sweep, way: Way) -> list[str]:
    """Say what goes into the answer: regimes, learning rate, critical batch.

    Args:
        sweep: the sweep.
        way: how the best run was trained; one that stands beside it is asked where more was fitted to that.

    Returns:
        Clauses without a full stop, all of one way of training.
    """
    beside = [line.way for line in foremost(sweep)]
    found = []
    for one in sorted(beside, key=lambda one: one != way):
        group = group_of(sweep, one)
        said = [say(sweep, group) for say in (regime_clause, rate_clause, critical_clause)] if group else []
        found.append((one, [clause for clause in said if clause][:MOST_CLAUSES]))
    if not found:
        return []
    asked, said = max(found, key=lambda each: len(each[1]))
    return [f"with {rule(asked)}, {said[0]}", *said[1:]] if said and len(beside) > 1 else said


def regime_clause(sweep: Sweep, group: Fit) -> str:
    """Say where the test result begins to fall."""
    fell, word = group["regimes"], "test accuracy" if sweep.rises else "test loss"
    if fell["verdict"] == "transition":
        return f"{word} is flat up to batch {with_interval(fell)} and then gets worse"
    if fell["verdict"] == "falls throughout":
        return f"{word} gets worse over all batch sizes tried"
    return f"{word} does not depend on batch size" if fell["verdict"] == "insensitive" else ""


def rate_clause(sweep: Sweep, group: Fit) -> str:
    """Say how the best learning rate goes with the batch size."""
    del sweep
    power, stop = group["lr_exponent"], group["lr_transition"]
    if value(power) is None or interval(power) is None or power["verdict"] == "not resolvable":
        return ""
    up_to = f" up to batch {numbers.significant(stop['value'])}" if value(stop) is not None else ""
    ends = numbers.interval(power)
    exponent = f"{numbers.beside(power['value'], width(power))} ({ends})"
    if power["verdict"] == "constant":
        return f"the best learning rate stays the same{up_to}, as batch to the power {exponent}"
    return f"the best learning rate goes as batch to the power {exponent}{up_to}"


def critical_clause(sweep: Sweep, group: Fit) -> str:
    """Say the critical batch, or its bound."""
    del sweep
    found = group["b_crit"]
    if value(found) is not None:
        return f"the critical batch is {with_interval(found)}"
    low, high = found.get("interval") or (None, None)
    if found["verdict"] == "lower bound" and low:
        return f"the critical batch is at least {numbers.significant(low)}"
    return (
        f"the critical batch is at most {numbers.significant(high)}"
        if found["verdict"] == "upper bound" and high
        else ""
    )


def with_interval(fit: Fit) -> str:
    """Write a batch size with its interval."""
    ends = numbers.ratio_interval(fit) if interval(fit) else ""
    return f"{numbers.significant(fit['value'])}{f' ({ends})' if ends else ''}"


def width(fit: Fit) -> float:
    """Give the width of an interval, 0.0 where there is none."""
    ends = interval(fit)
    return ends[1] - ends[0] if ends else 0.0


def refused(sweep: Sweep) -> list[str]:
    """Say what the fits could not tell, and what the sweep did not vary."""
    said = list(sweep.fits.get("unresolved", ()))
    settings = {"momentum": "momentum", "train_size": "training-set size", "budget": "budget"}
    still = [word for name, word in settings.items() if len({getattr(line.way, name) for line in sweep.lines}) == 1]
    if still:
        said.append(f"Nothing can be said of {several(still)}, which this sweep did not vary.")
    return said


def finding(sweep: Sweep, name: str) -> str:
    """Say the number that a picture shows, beside its title; "" where there is none."""
    for group in shown_together(sweep):
        fits = [fit for line in group if (fit := group_of(sweep, line.way)) is not None]
        kinds = {f"{sweep.metric}_{group[0].kind}": "regimes", f"best_lr_{group[0].kind}": "lr_exponent"}
        if name in kinds and len(fits) == 1:
            return number_said(kinds[name], fits[0][kinds[name]])
    axis = name.removeprefix("best_batch_by_")
    series = sweep.fits.get("optimal_batch", {}).get(axis) if axis in AXES else None
    return f"power {number_said('slope', series)}" if series and value(series) is not None else ""


def number_said(name: str, fit: Fit) -> str:
    """Write a fitted number in a word or two."""
    if value(fit) is None or fit.get("verdict") == "not resolvable":
        return ""
    if name in {"lr_exponent", "slope"}:
        text = numbers.beside(fit["value"], width(fit)) if width(fit) else numbers.significant(fit["value"])
        return f"power {text}" if name == "lr_exponent" else text
    return f"turns at {numbers.significant(fit['value'])}"


def table(sweep: Sweep) -> list[Row]:
    """Give every fit with its reason."""
    return list(rows(sweep.fits))


def rows(fits: Mapping[str, Any]) -> Iterator[Row]:
    """Go through all fits with their names."""
    groups: Sequence[Fit] = fits.get("groups", ())
    for group in groups:
        runs = way_said(way_of(group))
        yield from (row(f"{name} ({runs})", group[key], power=key in POWERS) for key, name in NUMBERS.items())
    for pair in fits.get("momentum", ()):
        yield row(
            f"Batch where m = {numbers.tick(pair['lower'])} falls behind m = {numbers.tick(pair['higher'])}", pair
        )
    for axis, series in fits.get("optimal_batch", {}).items():
        if series.get("points"):
            yield row(f"Power of the best batch in {AXES[axis]}", series, power=True)
    for one in fits.get("optimal_lr", ()):
        for key, word in (("train_loss", "training loss"), ("metric", "test results")):
            name = f"Power of the lr that is best for {word} in {one['kind']} (batch {one['batch_size']:,})"
            yield row(name, one[key], power=True)


def row(name: str, fit: Fit, *, power: bool = False) -> Row:
    """Say one fit: a power, or else a number of samples or updates, whose error goes by ratios."""
    found = value(fit)
    ends = interval(fit)
    text = numbers.MISSING if found is None else numbers.significant(found, 2 if power else 3)
    between = (numbers.interval(fit) if power else numbers.ratio_interval(fit)) if ends else ""
    return Row(name, text, between, f"{fit.get('verdict', '')}: {fit.get('reason', '')}".strip(": "))


def of_lines(sweep: Sweep, lines: Sequence[Line]) -> list[tuple[Line, Fit]]:
    """Give lines with their fits, where they have some."""
    return [(line, group) for line in lines if (group := group_of(sweep, line.way)) is not None]
