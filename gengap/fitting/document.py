"""A sweep as one JSON document: what was run, the best of each cell, and the fits. The report is drawn from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from gengap.core.errors import BadInput
from gengap.fitting.cells import cells_of
from gengap.fitting.table import RunRecord, records_of, run_records
from gengap.fitting.target import Target
from gengap.store.store import Store

FORMAT = "gengap.sweep/1"
METRICS = ("test_accuracy", "test_loss")
SELECTIONS = ("validation", "test")
WORST = 5  # one in so many cells need not reach a target that is chosen for them


def sweep_document(
    store: Store,
    *,
    title: str,
    metric: str | None = None,
    selection: str = "validation",
    target: Target | str | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Describe all runs of a store as one JSON value.

    Args:
        store: an open one.
        title: the question.
        metric: what is reported: "test_accuracy" or "test_loss"; None: the accuracy where runs have one.
        selection: on what the best learning rate is chosen: "validation" or "test". Without validation values in every
            finished run it is the test set, and the document says so in "selection" and "selection_note".
        target: of steps and samples to target, such as "test_accuracy=95"; None: what all but the worst fifth of the
            cells reach.
        command: the command line.

    Returns:
        The document in the form gengap.sweep/1; see docs/reference/json.md.

    Raises:
        BadInput: the store has no runs, or they cannot be compared.
    """
    rows = store.runs()
    problems = {name: store.problem(name) for name in dict.fromkeys(row.problem for row in rows)}
    document = describe_runs(records_of(rows, problems), metric=metric, selection=selection, target=target)
    facts, environment = shared_facts(list(problems.values())), rows[-1].environment
    head = {"format": FORMAT, "title": title, "problem": facts, "command": command, "environment": environment}
    return head | document


def describe_runs(
    records: Sequence[RunRecord],
    *,
    metric: str | None = None,
    selection: str = "validation",
    target: Target | str | None = None,
) -> dict[str, Any]:
    """Give the part of a sweep's document that follows from its table; see `sweep_document`."""
    metric = chosen_metric(records, metric)
    selection, note = chosen_selection(records, metric, selection)
    measure = metric if selection == "test" else metric.replace("test", "validation")
    wanted = chosen_target(records, measure, target)
    if wanted is not None and any(record.history for record in records):
        records = run_records(records, target=wanted)
    cells = cells_of(records, measure)
    return {
        "selection": selection,
        "selection_note": note,
        "metric": metric,
        "target": None if wanted is None else wanted.to_dict(),
        "runs": [record.to_dict() for record in records],
        "cells": [cell.to_dict() for cell in cells],
        "fits": {},
    }


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
        The target; None where nothing can be said because no run has a history.
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
    share = f"{len(reach) - spared} of {len(reach)}"
    return Target(measure, value, f"what {share} batch sizes reach with every seed at their best learning rate")


def reach_of_cells(records: Sequence[RunRecord], measure: str) -> list[float]:
    """Give for each cell the best value that all seeds of one learning rate saw on the way."""
    best, worst = (max, min) if measure.endswith("accuracy") else (min, max)
    groups: dict[Any, dict[float, list[float]]] = {}
    for record in records:
        found = [point[measure] for point in record.history if point.get(measure) is not None]
        if record.finished and found:
            key = (record.batch_size, record.momentum, record.train_size, record.optimizer, record.budget)
            groups.setdefault(key, {}).setdefault(record.lr, []).append(best(found))
    return [best(worst(seen) for seen in rates.values()) for rates in groups.values()]


def shared_facts(problems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give the facts that problems share; one that differs, as the size of the training set may, is a list."""
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for facts in problems for name in facts):
        found: list[Any] = []
        for facts in problems:
            if facts.get(name) not in found:
                found.append(facts.get(name))
        merged[name] = found[0] if len(found) == 1 else found
    return merged
