"""What a fit goes by: the metric, the set that selects learning rates, and the target; each chosen sensibly and named."""

from collections.abc import Sequence

from gengap.core.errors import BadInput
from gengap.fitting.cells import CellKey, key_of
from gengap.fitting.table import RunRecord, seen
from gengap.fitting.target import Target

METRICS = ("test_accuracy", "test_loss")
SELECTIONS = ("validation", "test")
WORST = 5  # one in so many cells need not reach a target that is chosen for them


def chosen_metric(records: Sequence[RunRecord], metric: str | None) -> str:
    """Choose what is reported.

    Args:
        records: the runs.
        metric: what the caller wants, or None.

    Returns:
        "test_accuracy" or "test_loss".

    Raises:
        BadInput: there are no runs, the metric is unknown, or no run has it.
    """
    if not records:
        raise BadInput("there are no runs to describe; make some with gengap sweep first")
    if metric is not None and metric not in METRICS:
        raise BadInput(f"metric is {metric!r}; choose one of {', '.join(METRICS)}")
    there = [name for name in METRICS if any(getattr(record, name) is not None for record in records)]
    if not there:
        raise BadInput(
            f"none of the {len(records)} runs finished with a test accuracy or a test loss; see what went wrong in their reasons"
        )
    if metric is not None and metric not in there:
        raise BadInput(f"metric is {metric!r}, which no run has; use {there[0]!r}")
    return metric or there[0]


def chosen_selection(records: Sequence[RunRecord], metric: str, selection: str) -> tuple[str, str]:
    """Choose the set that the best learning rate is selected on, and say what that means.

    Args:
        records: the runs.
        metric: what is reported.
        selection: what the caller wants.

    Returns:
        "validation" or "test", and a sentence where it is not what was wanted or is optimistic; else "".

    Raises:
        BadInput: the selection is unknown.
    """
    if selection not in SELECTIONS:
        raise BadInput(f"selection is {selection!r}; choose one of {', '.join(SELECTIONS)}")
    held_out = metric.replace("test", "validation")
    with_value = [record for record in records if getattr(record, metric) is not None]
    lacking = sum(getattr(record, held_out) is None for record in with_value)
    if selection == "validation" and not lacking:
        return "validation", ""
    note = (
        "The best learning rates were selected on the test set itself, which makes their test results a little too good"
    )
    if selection == "test":
        return "test", f"{note}."
    return "test", f"{note}: {lacking} of {len(with_value)} runs have no validation results."


def chosen_target(records: Sequence[RunRecord], measure: str, target: Target | str | None) -> Target | None:
    """Choose the target of steps and samples to target.

    Args:
        records: the runs.
        measure: by which learning rates are selected.
        target: what the caller wants, or None.

    Returns:
        The target; None where nothing can be said because no run has a history, or because what the batch sizes have in
        common is met before training.
    """
    if isinstance(target, str):
        return Target.parse(target)
    if target is not None:
        return target
    reach = reach_of_cells(records, measure)
    if not reach:
        return None
    rises = measure.endswith("accuracy")
    spared = len(reach) // WORST
    value = sorted(reach, reverse=not rises)[spared]
    if any(start >= value if rises else start <= value for start in untrained(records, measure)):
        return None
    share = f"{len(reach) - spared} of {len(reach)}"
    return Target(measure, value, f"what {share} batch sizes reach with every seed at their best learning rate")


def untrained(records: Sequence[RunRecord], measure: str) -> list[float]:
    """Give what runs saw before their first update."""
    firsts = [record.history[0] for record in records if record.history]
    return [first[measure] for first in firsts if first["step"] == 0 and first.get(measure) is not None]


def reach_of_cells(records: Sequence[RunRecord], measure: str) -> list[float]:
    """Give for each cell the best value that all seeds of one learning rate saw on the way."""
    best, worst = (max, min) if measure.endswith("accuracy") else (min, max)
    groups: dict[CellKey, dict[float, list[float]]] = {}
    for record in records:
        found = seen(record.history, measure)
        if record.finished and found:
            groups.setdefault(key_of(record), {}).setdefault(record.lr, []).append(best(found))
    return [best(worst(seen) for seen in rates.values()) for rates in groups.values()]
