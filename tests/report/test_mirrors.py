"""Oracles: TensorBoard's own reader and MLflow's own client; where they are not installed, the sentence that says so."""

import importlib.util
import json
import pickle
import subprocess
import sys

import pytest
import sweep_documents

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.report.mirrors import MEASURES, mirrored, to_mlflow, to_tensorboard
from gengap.store.rows import RunRow

MLFLOW = """
import pickle, sys
from mlflow.tracking import MlflowClient
from gengap.report.mirrors import to_mlflow

rows, uri = pickle.loads(sys.stdin.buffer.read()), sys.argv[1]
first, again = to_mlflow(rows, uri, experiment="sweep"), to_mlflow(rows, uri, experiment="sweep")
assert len(first) == 2 and again == [], (first, again)
client = MlflowClient(tracking_uri=uri)
good, bad = sorted((client.get_run(one) for one in first), key=lambda run: run.data.tags["gengap.key"])
assert good.info.status == "FINISHED" and bad.info.status == "FAILED"
assert good.data.params["lr"] == "0.1" and good.data.params["budget"] == "2 epochs"
seen = [(metric.step, metric.value) for metric in client.get_metric_history(good.info.run_id, "train_loss")]
assert seen == [(0, 1.0), (5, 1 / 6), (10, 1 / 11)]
assert bad.data.metrics == {} and bad.data.tags["outcome"] == "diverged"
"""


def there(package):
    return importlib.util.find_spec(package) is not None


@pytest.fixture(scope="module")
def document():
    return json.loads(json.dumps(sweep_documents.ALL["one_batch"]()))


@pytest.fixture
def rows():
    """Two rows of a store, one with three evaluations, the other diverged before the first."""
    recipe = Recipe(batch_size=32, lr=0.1, momentum=0.9, seed=3, budget={"epochs": 2}).model_dump(mode="json")
    points = tuple(
        {"step": s, "samples": 32 * s, "train_loss": 1.0 / (1 + s), "test_accuracy": None} for s in (0, 5, 10)
    )
    common = {"problem": "p", "recipe": recipe, "cost": {}, "environment": {}, "created": "2024-01-01T00:00:00Z"}
    return [
        RunRow(key="a" * 64, outcome="finished", step=10, reason="", history=points, **common),
        RunRow(key="b" * 64, outcome="diverged", step=3, reason="not finite", history=(), **common),
    ]


def test_a_document_gives_final_values_and_rows_give_histories(document, rows):
    for run, made in zip(document["runs"], mirrored(document), strict=True):
        assert made.settings["lr"] == run["lr"]
        assert made.settings["budget"] == "30 epochs"
        known = {name: run[name] for name in MEASURES if run[name] is not None}
        assert made.points == ([(run["steps"], known)] if known else [])
    first, second = mirrored(rows)
    assert first.points == [(0, {"train_loss": 1.0}), (5, {"train_loss": 1 / 6}), (10, {"train_loss": 1 / 11})]
    assert first.settings == {
        **{"batch_size": 32, "lr": 0.1, "momentum": 0.9, "optimizer": "sgd", "budget": "2 epochs"},
        "seed": 3,
    }
    assert first.created == 1704067200.0
    assert (second.outcome, list(second.points)) == ("diverged", [])


@pytest.mark.skipif(there("tensorboard"), reason="tensorboard is installed")
def test_without_tensorboard_a_sentence_says_what_to_install(document, tmp_path):
    with pytest.raises(
        BadInput, match=r'needs the package tensorboard; install it with pip install "gengap\[tensorboard\]"'
    ):
        to_tensorboard(document, tmp_path)


@pytest.mark.skipif(there("mlflow"), reason="mlflow is installed")
def test_without_mlflow_a_sentence_says_what_to_install(document):
    with pytest.raises(BadInput, match=r'needs the package mlflow; install it with pip install "gengap\[mlflow\]"'):
        to_mlflow(document, "sqlite:///nowhere.db")


@pytest.mark.oracle
def test_tensorboard_reads_what_was_mirrored(document, rows, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    written = to_tensorboard(rows, tmp_path)
    assert [path.name for path in written] == ["a" * 12, "b" * 12]
    read = EventAccumulator(str(written[0]))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("train_loss")] == [
        (step, pytest.approx(1 / (1 + step))) for step in (0, 5, 10)
    ]
    content = read.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["batch_size"].number_value == 32
    assert start.hparams["budget"].string_value == "2 epochs"
    assert to_tensorboard(rows, tmp_path) == []
    assert len(to_tensorboard(document, tmp_path)) == len(document["runs"])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.oracle
def test_mlflow_reads_what_was_mirrored(rows, tmp_path):
    """In a process of its own: MLflow warns of its own dependencies, which ends a test here."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    done = subprocess.run(
        [sys.executable, "-c", MLFLOW, f"sqlite:///{tmp_path / 'mlflow.db'}"],
        input=pickle.dumps(rows),
        capture_output=True,
        timeout=240,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.oracle
def test_a_store_that_mlflow_cannot_use_is_said(rows, tmp_path):
    pytest.importorskip("mlflow")
    with pytest.raises(BadInput, match="MLflow cannot use"):
        to_mlflow(rows, "nonsense://nowhere")
