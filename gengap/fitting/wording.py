"""The fits as sentences: what they say, and what they could not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gengap.fitting.fit import Fits
    from gengap.fitting.groups import GroupFit, MomentumFit
    from gengap.fitting.series import BestBatchSeries, BudgetFit

Said = list[tuple[bool, str]]  # whether it is an answer, and the sentence


def answers(fits: Fits) -> list[str]:
    """Say what could be concluded."""
    return [sentence for decided, sentence in everything(fits) if decided]


def unresolved(fits: Fits) -> list[str]:
    """Say what could not be concluded, and why."""
    notes = [note for note in (edges(fits), fits.selection_note) if note]
    return [sentence for decided, sentence in everything(fits) if not decided] + notes


def edges(fits: Fits) -> str:
    """Say that a grid of learning rates may have cut off the best ones."""
    cut = [cell for cell in fits.cells if cell.best_lr is not None and cell.at_edge]
    if not cut:
        return ""
    sizes = ", ".join(f"{size:,}" for size in sorted({cell.batch_size for cell in cut}))
    return (
        f"Grids: {len(cut)} of {len(fits.cells)} best learning rates are at the edge of their grid (batch {sizes}): a better "
        "one may lie outside, and a fall of accuracy there may be the grid's; let the grid go further."
    )


def everything(fits: Fits) -> Said:
    """Say all, in the order of what people ask first; of many groups and series the first of each kind."""
    said: Said = []
    if not fits.groups:
        said.append((False, "Batch sizes: no batch size has a run that finished."))
    for group in fits.groups[:1]:
        said += of_batches(fits, group)
    said += [of_momentum(each) for each in fits.momenta[:1]]
    axes = {each.axis: each for each in reversed(fits.optimal_batch)}
    said += [of_peaks(axes[axis]) for axis in ("lr", "train_size", "momentum") if axis in axes]
    for each in fits.optimal_lr[:1]:
        said += of_budgets(fits, each)
    factors = fits.three_factors
    if factors is not None and factors.shares:
        decided = factors.verdict != "not resolvable"
        said.append((
            decided,
            f"Three factors: {factors.reason}." if decided else f"Three factors: none decides: {factors.reason}.",
        ))
    return said


def of_batches(fits: Fits, group: GroupFit) -> Said:
    """Say what one group's batch sizes tell."""
    where = f" ({group.key})"
    fell, rates, metric = group.transition, group.rates, fits.metric.replace("_", " ")
    decided = fell.verdict != "not resolvable"
    said = [(decided, f"Regimes: {metric} is {told(fell.verdict)}{fell.reason}{where}.")]
    settled = rates.law != "not resolvable" or rates.verdict == "transition"
    said.append((settled, f"Learning rate: {rates.reason}{where}."))
    if group.critical is None:
        return [*said, (False, "Critical batch: the runs have no history to find a target in.")]
    found = group.critical
    goal = "" if fits.target is None else f" to {fits.target}"
    return [*said, (found.verdict != "not resolvable", f"Critical batch: {found.reason}; samples{goal}{where}.")]


def told(verdict: str) -> str:
    """Put the verdict before its reason, where the reason does not say it."""
    return {"transition": "", "falls throughout": "falling with the batch size: "}.get(verdict, f"{verdict}: ")


def of_momentum(fitted: MomentumFit) -> tuple[bool, str]:
    """Say where momentum begins to help."""
    found = fitted.separation
    pair = f"Momentum {fitted.lower:g} against {fitted.higher:g}"
    if found.verdict == "transition" and found.transition.batch_size is not None:
        size = found.transition.batch_size
        ends = "" if size.interval is None else f" (95 % {size.interval[0]:,.0f} to {size.interval[1]:,.0f})"
        return True, f"{pair}: equal up to batch {size.value:,.0f}{ends}, and worse beyond."
    return found.verdict != "not resolvable", f"{pair}, their difference: {found.reason}."


def of_peaks(series: BestBatchSeries) -> tuple[bool, str]:
    """Say how the best batch size goes with what was varied."""
    found = series.proportion
    name = {"lr": "learning rate", "train_size": "training-set size", "momentum": "momentum"}[series.axis]
    shared = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in series.shared.items())
    return found.verdict != "not resolvable", f"Best batch against {name}: {found.reason} ({shared})."


def of_budgets(fits: Fits, fitted: BudgetFit) -> Said:
    """Say how the best learning rates go with the budget."""
    batch = fitted.shared["batch_size"]
    pair = (("train loss", fitted.train_loss), (fits.metric.replace("_", " "), fitted.metric))
    return [
        (found.law != "not resolvable", f"Best learning rate for {name} at batch {batch:,}: {found.reason}.")
        for name, found in pair
    ]
