"""A sweep as one JSON document: what was run, the best of each cell, and the fits. The report is drawn from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from gengap.fitting.fit import fit_records
from gengap.fitting.table import RunRecord
from gengap.fitting.target import Target

FORMAT = "gengap.sweep/1"


def describe_runs(
    records: Sequence[RunRecord],
    *,
    metric: str | None = None,
    selection: str = "validation",
    target: Target | str | None = None,
) -> dict[str, Any]:
    """Give the part of a sweep's document that follows from its table.

    Args:
        records: the runs.
        metric: what is reported: "test_accuracy" or "test_loss"; None: the accuracy where runs have one.
        selection: on what the best learning rate is chosen: "validation" or "test". Without validation values in every
            finished run it is the test set, and the document says so in "selection" and "selection_note".
        target: of steps and samples to target, such as "test_accuracy=95"; None: what all but the worst fifth of the
            cells reach.

    Returns:
        The keys of the form gengap.sweep/1 that are not about the problem or the command; see docs/reference/json.md.

    Raises:
        BadInput: there are no runs, or they cannot be compared.
    """
    records, fits = fit_records(records, metric=metric, selection=selection, target=target)
    return {
        "selection": fits.selection,
        "selection_note": fits.selection_note,
        "metric": fits.metric,
        "target": None if fits.target is None else fits.target.to_dict(),
        "runs": [record.to_dict() for record in records],
        "cells": [cell.to_dict() for cell in fits.cells],
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
