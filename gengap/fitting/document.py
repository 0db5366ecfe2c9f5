"""A sweep as one JSON document: what was run, the best of each cell, and the fits. The report is drawn from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from gengap.fitting.cells import cells_of
from gengap.fitting.choices import chosen_metric, chosen_selection, chosen_target
from gengap.fitting.fit import fit_records
from gengap.fitting.table import RunRecord, records_of, run_records
from gengap.fitting.target import Target
from gengap.store.store import Store

FORMAT = "gengap.sweep/1"


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
    fits = fit_records(records, cells, metric=metric, selection=(selection, note), target=wanted)
    return {
        "selection": selection,
        "selection_note": note,
        "metric": metric,
        "target": None if wanted is None else wanted.to_dict(),
        "runs": [record.to_dict() for record in records],
        "cells": [cell.to_dict() for cell in cells],
        "fits": fits.to_dict(),
    }


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
