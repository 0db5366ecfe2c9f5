"""Measures of stored runs: taken once, kept in the ledger."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import finite
from gengap.core.events import Listener, Message
from gengap.data.order import subset
from gengap.measures.distance import distance
from gengap.measures.landscape.paths import interpolate
from gengap.measures.sharpness.box_sharpness import sharpness
from gengap.problem.problem import Problem
from gengap.store.store import Store
from gengap.studies.study import InterpolationSpec, ScoreSpec, SharpnessSpec, Study


def measure_run(
    study: Study, problem: Problem, store: Store, key: str, *, device: torch.device, listen: Listener
) -> None:
    """Take the study's measures of one finished run, those that the ledger does not have yet.

    Args:
        study: says which.
        problem: the run's.
        store: holds the run's weights and takes the records.
        key: of the run.
        device: where to measure.
        listen: told of the progress.
    """
    row = store.run(key)
    if row is None or row.outcome != "finished":
        return
    if store.measure(key, "distance", {}) is None:
        final, initial = tensors(store.weights(key, "final"), device), tensors(store.weights(key, "initial"), device)
        store.add_measure(key, "distance", {}, distance(final, initial).to_dict())
    score, sharp = study.measures.score, study.measures.sharpness
    if score and problem.has_batch_norm and store.measure(key, "score", score.settings) is None:
        measure_score(score, problem, store, key, device)
    if sharp and store.measure(key, "sharpness", sharp.settings) is None:
        measure_sharpness(sharp, problem, store, key, device=device, listen=listen)


def measure_score(spec: ScoreSpec, problem: Problem, store: Store, key: str, device: torch.device) -> None:
    """Measure final loss and accuracy of a run with the study's statistics of batch norm."""
    params, buffers = (tensors(store.weights(key, which), device) for which in ("final", "buffers"))
    record: dict[str, Any] = {}
    for split in ("train", "test"):
        chunk = None if spec.batch_norm == "running" else spec.batch_size
        loss = problem.loss_function(split, batch_norm=spec.batch_norm, buffers=buffers, batch_size=chunk)
        found = loss.score(params)
        record |= {f"{split}_loss": finite(found.loss), f"{split}_accuracy": found.accuracy}
    store.add_measure(key, "score", spec.settings, record)


def measure_sharpness(
    spec: SharpnessSpec, problem: Problem, store: Store, key: str, *, device: torch.device, listen: Listener
) -> None:
    """Measure the sharpness of a run; one that cannot be measured is said and left out."""
    params, buffers = (tensors(store.weights(key, which), device) for which in ("final", "buffers"))
    total = len(problem.samples("train"))
    chosen = subset(0, total, spec.samples) if spec.samples and spec.samples < total else None
    chunk = spec.batch_size if spec.batch_norm == "batch" and problem.has_batch_norm else None
    loss = problem.loss_function("train", batch_norm=spec.batch_norm, buffers=buffers, samples=chosen, batch_size=chunk)
    try:
        found = sharpness(loss, params, radius=spec.radius, search=spec.search, listen=listen)
    except (BadInput, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        row = store.run(key)
        listen(Message(f"no sharpness for {describe(row.recipe) if row else key}: {why}", warning=True))
        return
    store.add_measure(key, "sharpness", spec.settings, found.to_dict())


def measure_path(
    spec: InterpolationSpec,
    problem: Problem,
    store: Store,
    keys: tuple[str, str],
    *,
    device: torch.device,
    listen: Listener,
) -> None:
    """Measure the line between two finished runs, unless the ledger has it.

    Args:
        spec: of the study.
        problem: of both runs.
        store: holds their weights and takes the record.
        keys: of the run at alpha 0 and of the run at alpha 1.
        device: where to measure.
        listen: told of the progress.
    """
    subject, settings = "+".join(keys), spec.settings
    if store.measure(subject, "interpolation", settings) is not None:
        return
    ends = [tensors(store.weights(key, "final"), device) for key in keys]
    buffers = [tensors(store.weights(key, "buffers"), device) for key in keys]
    running = spec.batch_norm == "running"
    chunk = spec.batch_size if problem.has_batch_norm and not running else None
    losses = [
        problem.loss_function(split, batch_norm=spec.batch_norm, buffers=buffers[0], batch_size=chunk)
        for split in ("train", "test")
    ]
    path = interpolate(
        losses,
        a=ends[0],
        b=ends[1],
        alphas=np.linspace(spec.low, spec.high, spec.points).tolist(),
        a_buffers=buffers[0] if running else None,
        b_buffers=buffers[1] if running else None,
        listen=listen,
    )
    store.add_measure(subject, "interpolation", settings, path.to_dict())


def tensors(arrays: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Make tensors of stored arrays."""
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def describe(recipe: Mapping[str, Any]) -> str:
    """Name a run in words."""
    return f"batch {recipe['batch_size']:,}, seed {recipe['seed']}"
