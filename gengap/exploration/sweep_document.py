"""The JSON document of a sweep, from the runs that belong to it."""

from typing import Any

from gengap.fitting.cells import parted
from gengap.fitting.document import FORMAT, describe_runs, shared_facts
from gengap.fitting.table import records_of
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
        BadInput: no run came out with a value.
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
        **describe_runs(
            parted(records_of(rows, problems)),
            metric=f"test_{sweep.metric}" if sweep.metric else None,
            selection="validation" if held else "test",
        ),
        "grids": store.recall("sweep_grids") or [],
        "ways": store.recall("sweep_ways") or [],
        "notes": store.recall("sweep_notes") or [],
        "sweep": sweep.model_dump(mode="json", exclude_none=True),
    }
