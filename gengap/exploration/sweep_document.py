"""The JSON document of a sweep, from the runs that belong to it."""

from collections.abc import Sequence
from typing import Any

from gengap.fitting.cells import cells_of, parted
from gengap.fitting.document import FORMAT, describe_runs, shared_facts
from gengap.fitting.table import RunRecord, records_of
from gengap.store.store import Store
from gengap.studies.sweep import Sweep


def document_of(store: Store, sweep: Sweep) -> dict[str, Any]:
    """Describe a sweep: its runs, the best of each cell, and how they were made.

    Args:
        store: with its runs; others in it are passed over.
        sweep: what was asked for.

    Returns:
        The document in the form gengap.sweep/1. Where the grid varies a field besides those of every sweep, its value stands
        behind the name of the optimizer ("sgd, weight_decay 0.0005"), which parts cells.

    Raises:
        BadInput: the sweep has no run yet.
    """
    keys = set(store.recall("sweep_keys") or [])
    rows = [row for row in store.runs() if row.key in keys]
    problems = {name: store.problem(name) for name in dict.fromkeys(row.problem for row in rows)}
    held = any("validation_samples" in facts for facts in problems.values())
    return {
        "format": FORMAT,
        "title": sweep.title or "Which batch size and learning rate test best?",
        "problem": shared_facts(list(problems.values())),
        "command": store.recall("sweep_command") or "",
        "environment": rows[-1].environment if rows else {},
        **described(parted(records_of(rows, problems)), sweep.metric, selection="validation" if held else "test"),
        "grids": store.recall("sweep_grids") or [],
        "ways": store.recall("sweep_ways") or [],
        "notes": store.recall("sweep_notes") or [],
        "sweep": sweep.model_dump(mode="json", exclude_none=True),
    }


def described(records: Sequence[RunRecord], metric: str | None, *, selection: str) -> dict[str, Any]:
    """Describe the runs; where none came out with a value there is nothing to fit, and that is a result too."""
    wanted = f"test_{metric}" if metric else None
    if not records or any(record.finished for record in records):
        return describe_runs(records, metric=wanted, selection=selection)
    name = wanted or "test_accuracy"
    return {
        "selection": selection,
        "selection_note": "",
        "metric": name,
        "target": None,
        "runs": [record.to_dict() for record in records],
        "cells": [cell.to_dict() for cell in cells_of(records, name)],
        "fits": {},
    }
