"""Mirrors of a sweep for those who look at theirs elsewhere: TensorBoard event files, and MLflow runs.

Both only copy: nothing is read back, and what a mirror has already is left alone, so that the same call may follow a
sweep that is still running. Neither loads torch or TensorFlow.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput
from gengap.core.recipe import Budget
from gengap.store.rows import RunRow

MEASURES = (
    *("train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    *("validation_loss", "validation_accuracy"),
)
SETTINGS = ("batch_size", "lr", "momentum", "train_size", "optimizer", "budget", "seed")
TAG = "gengap.key"
MOST_METRICS = 900  # in one request; MLflow takes 1,000
STATUS = {"finished": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}
Runs = Mapping[str, Any] | Iterable[RunRow]


@dataclass(frozen=True, slots=True)
class Mirrored:
    """One run as it is copied.

    Attributes:
        key: of the run in its store.
        settings: what it was trained with.
        points: updates made, and the measures that are there then.
        outcome: "finished", "diverged" or "failed".
        created: seconds since 1970 at which it ended, or at which it is copied where that is not known.
    """

    key: str
    settings: Mapping[str, Any]
    points: Sequence[tuple[int, Mapping[str, float]]]
    outcome: str
    created: float


def to_tensorboard(runs: Runs, folder: str | Path) -> list[Path]:
    """Copy runs into TensorBoard's event files, with their settings for its HPARAMS page.

    Args:
        runs: a sweep's document (final values), or rows of a store (every evaluation).
        folder: the log directory; each run has a folder of its own in it, named by the first 12 characters of its key.

    Returns:
        The folders that were written; those of runs that were there already are left alone.

    Raises:
        BadInput: the package tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise BadInput(missing("tensorboard")) from error
    written = []
    for run in mirrored(runs):
        target = Path(folder) / run.key[:12]
        if target.exists():
            continue
        part = target.with_name(f".{target.name}.part")
        writer = EventFileWriter(str(part))
        writer.add_event(Event(summary=settings_summary(run), wall_time=run.created))
        for step, measures in run.points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in measures.items()]
            writer.add_event(Event(summary=Summary(value=values), step=step, wall_time=run.created))
        writer.close()
        part.rename(target)  # whole or not at all: a folder that is there is not written again
        written.append(target)
    return written


def settings_summary(run: Mirrored) -> Any:
    """Write settings in the form of TensorBoard's HPARAMS page."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(start_time_secs=run.created)
    for name, value in run.settings.items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, session_start_info=start)
    described = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=described)])


def to_mlflow(runs: Runs, uri: str, *, experiment: str = "gengap") -> list[str]:
    """Copy runs into MLflow.

    Args:
        runs: a sweep's document (final values), or rows of a store (every evaluation).
        uri: of the tracking store, such as "sqlite:///mlflow.db" or the address of a server.
        experiment: its name; made if missing.

    Returns:
        MLflow's ids of the runs that were written; those whose key is there already are left alone.

    Raises:
        BadInput: the package mlflow is not installed, or the store cannot be used.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise BadInput(missing("mlflow")) from error
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else client.create_experiment(experiment)
        there = keys_there(client, place)
        return [write_run(client, place, run) for run in mirrored(runs) if run.key not in there]
    except MlflowException as error:
        first = str(error).partition("\n")[0]
        raise BadInput(f"MLflow cannot use {uri}: {first}; name another store, such as sqlite:///mlflow.db") from error


def keys_there(client: Any, place: str) -> set[str]:
    """Collect the keys of runs that were copied completely, page by page."""
    keys, token = set(), None
    while True:
        page = client.search_runs([place], max_results=1000, page_token=token)
        keys |= {run.data.tags[TAG] for run in page if TAG in run.data.tags and run.info.status != "RUNNING"}
        token = page.token
        if not token:
            return keys


def write_run(client: Any, place: str, run: Mirrored) -> str:
    """Write one run; its status says that it is complete only at the end."""
    from mlflow.entities import Metric, Param

    when = round(1000 * run.created)
    made = client.create_run(place, start_time=when, tags={TAG: run.key, "outcome": run.outcome}, run_name=run.key[:12])
    identity: str = made.info.run_id
    client.log_batch(identity, params=[Param(name, str(value)) for name, value in run.settings.items()])
    metrics = [Metric(name, value, when, step) for step, found in run.points for name, value in found.items()]
    for start in range(0, len(metrics), MOST_METRICS):
        client.log_batch(identity, metrics=metrics[start : start + MOST_METRICS])
    client.set_terminated(identity, status=STATUS.get(run.outcome, "FAILED"), end_time=when)
    return identity


def mirrored(runs: Runs) -> Iterator[Mirrored]:
    """Give runs of either form as they are copied."""
    if isinstance(runs, Mapping):
        yield from (of_document(run) for run in runs["runs"])
    else:
        yield from (of_row(row) for row in runs)


def of_document(run: Mapping[str, Any]) -> Mirrored:
    """Copy what a document says of a run: its final values."""
    points = [(int(run["steps"] or 0), measures(run))] if measures(run) else []
    return Mirrored(run["key"], settings(run), points, run["outcome"], time.time())


def of_row(row: RunRow) -> Mirrored:
    """Copy a row of a store with its history."""
    points = [(int(point["step"]), measures(point)) for point in row.history]
    budget = {"budget": str(Budget(**row.recipe["budget"]))}
    ended = datetime.fromisoformat(row.created).timestamp()
    return Mirrored(row.key, settings({**row.recipe, **budget}), points, row.outcome, ended)


def settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the settings that a sweep may vary."""
    return {name: entry[name] for name in SETTINGS if isinstance(entry.get(name), str | int | float)}


def measures(point: Mapping[str, Any]) -> dict[str, float]:
    """Choose the measures that are there."""
    return {name: float(point[name]) for name in MEASURES if point.get(name) is not None}


def missing(package: str) -> str:
    """Say that an optional package is not there."""
    return f'a mirror for {package} needs the package {package}; install it with pip install "gengap[{package}]"'
