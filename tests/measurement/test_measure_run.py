"""Oracles: the measures called alone, and the files before and after."""

import html
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from measured_problems import net, normed, problem, trained

from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Message
from gengap.measurement import registry
from gengap.measurement.run import measure, prepare, take
from gengap.measurement.settings import Settings
from gengap.measurement.subject import load_subject
from gengap.measures.curvature.eigenvalues import top_eigenvalues
from gengap.measures.distance import distance
from gengap.measures.sharpness.box_sharpness import sharpness
from gengap.report.minimum.definitions import WORDS
from gengap.report.minimum.figures import DRAWN
from gengap.report.minimum.rows import READERS

CHEAP = {"only": ["loss", "distance"]}


@pytest.fixture(scope="module")
def made():
    return problem()


@pytest.fixture(scope="module")
def run(made):
    return trained(made)


@pytest.fixture(scope="module")
def everything(made, run):
    return measure(made, run, second=trained(made, seed=1)).document


def value(document, key):
    return next(one["estimate"]["value"] for one in document["numbers"] if one["key"] == key)


def test_every_measure_of_the_usual_groups_is_taken(everything):
    assert everything["format"] == "gengap.measure/1"
    assert {m["name"] for m in everything["measures"] if m["state"] == "failed"} == set()
    left = {"Distance while training", "Trajectory on its plane"}
    assert {one["title"] for one in everything["left_out"]} == left
    usual = [m for m in registry.MEASURES.values() if m.group in everything["settings"]["groups"]]
    assert {m["title"] for m in everything["measures"]} == {m.title for m in usual} - left
    json.dumps(everything, allow_nan=False)


def test_numbers_are_those_of_the_measures_called_alone(everything, made, run):
    loss = made.loss_function("train", buffers=run.buffers)
    alone = sharpness(loss, run.params, radius=(5e-4, 1e-3))
    assert value(everything, "sharpness_0.0005") == alone[0].percent
    assert value(everything, "sharpness_0.001") == alone[1].percent
    top = top_eigenvalues(loss, run.params, k=5)
    assert [value(everything, f"top_eigenvalue_{i}") for i in (1, 5)] == [top.values[0], top.values[4]]
    assert value(everything, "max_stable_lr") == pytest.approx(2 / top.values[0], rel=1e-12)
    assert value(everything, "distance") == distance(run).from_init
    assert value(everything, "train_loss") == pytest.approx(run.final.train_loss, rel=1e-6)
    assert value(everything, "test_accuracy") == run.final.test_accuracy


def test_the_trace_is_that_of_the_dense_hessian(everything, made, run):
    x, y = made.train
    names = list(run.params)
    flat = torch.cat([run.params[name].reshape(-1) for name in names]).double()

    def loss(vector):
        parts = vector.split([run.params[name].numel() for name in names])
        tree = {name: part.view(run.params[name].shape) for name, part in zip(names, parts, strict=True)}
        outputs = torch.func.functional_call(net().double(), tree, (x.double(),))
        return torch.nn.functional.cross_entropy(outputs, y)

    dense = torch.autograd.functional.hessian(loss, flat)
    found = next(one["estimate"] for one in everything["numbers"] if one["key"] == "trace")
    assert abs(found["value"] - float(dense.trace())) < 5 * found["stderr"] + 1e-4 * float(dense.trace())
    assert value(everything, "bottom_eigenvalue_1") == pytest.approx(float(np.linalg.eigvalsh(dense)[0]), abs=1e-3)


def test_every_entry_can_be_shown():
    pictures = {"slice_1d", "slice_2d"}
    assert set(READERS) | pictures == set(registry.MEASURES)
    assert set(registry.MEASURES) - {"test", "slice_2d"} <= set(WORDS)
    assert len(DRAWN) >= 6
    ranks = [m.rank for m in registry.MEASURES.values()]
    assert len(set(ranks)) == len(ranks)


def test_every_number_names_its_conditions_and_its_error(everything):
    for one in everything["numbers"]:
        assert one["batch_norm"] == "none"
        assert (one["dtype"], one["samples"]) == ("float32", 60)
        assert set(one["estimate"]) == {"value", "stdev", "stderr", "n", "interval", "method"}
        if one["kind"] in {"sampled", "within its residual"} and one["key"] != "trace":
            assert one["estimate"]["interval"] is not None or one["estimate"]["stderr"] is not None


def test_a_measurement_prints_and_reports(everything, made, run, tmp_path):
    found = measure(made, run, **CHEAP)
    assert str(found).startswith(found.sentence)
    assert found.folder is None
    assert found.sentence in html.unescape(found.report(tmp_path).read_text(encoding="utf-8"))


def test_each_measure_is_a_file_and_resuming_takes_only_what_is_missing(made, run, tmp_path, monkeypatch):
    first = measure(made, run, out=tmp_path, **CHEAP)
    files = {path.name: path.read_bytes() for path in (tmp_path / "measures").iterdir()}
    assert set(files) == {"measured.json", "train.json", "test.json", "distance.json"}
    assert json.loads((tmp_path / "measure.json").read_text()) == first.document
    with pytest.raises(BadInput, match=r"holds measures already; go on with them by --resume"):
        measure(made, run, out=tmp_path, **CHEAP)
    taken = []
    monkeypatch.setattr("gengap.measurement.groups.loss.performance", lambda *_, **__: pytest.fail("taken again"))
    again = measure(made, run, out=tmp_path, only=["loss", "distance", "noise"], resume=True, listen=taken.append)
    assert {path.name: path.read_bytes() for path in (tmp_path / "measures").iterdir() if path.name in files} == files
    assert len([event for event in taken if isinstance(event, Message)]) == len(again.document["measures"]) - 3
    kept = [one for one in again.document["numbers"] if one["measure"] in {"train", "test", "distance"}]
    assert kept == first.document["numbers"]


def test_another_setting_is_another_number(made, run, tmp_path):
    first = measure(made, run, out=tmp_path, **CHEAP)
    other = measure(made, run, out=tmp_path, samples=30, resume=True, **CHEAP)
    assert value(other.document, "train_loss") != value(first.document, "train_loss")
    assert {one["samples"] for one in other.document["numbers"]} == {30}


def test_a_folder_of_another_checkpoint_is_refused(made, run, tmp_path):
    measure(made, run, out=tmp_path, **CHEAP)
    with pytest.raises(BadInput, match="holds measures of another checkpoint"):
        measure(made, trained(made, seed=3), out=tmp_path, resume=True, **CHEAP)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (BadInput("the box is too small; make it larger"), "the box is too small; make it larger"),
        (FloatingPointError("a product is not finite"), "a product is not finite"),
        (RuntimeError("bad kernel\nwith a trace"), "RuntimeError: bad kernel"),
        (MemoryError(), "there is not enough memory; give a smaller --memory-limit"),
        (torch.OutOfMemoryError("CUDA"), "there is not enough memory"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_measure_that_fails_is_said_and_the_others_go_on(error, says, made, run, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("gengap.measurement.groups.distance.distance", fails)
    heard = []
    found = measure(made, run, out=tmp_path, listen=heard.append, **CHEAP)
    assert [failure.startswith(f"Distance from the start: {says}") for failure in found.failures] == [True]
    assert {m["name"] for m in found.document["measures"] if m["state"] == "done"} == {"train", "test"}
    assert any(isinstance(event, Message) and event.warning and says in event.text for event in heard)
    monkeypatch.undo()
    assert measure(made, run, out=tmp_path, resume=True, **CHEAP).failures == []


def test_ctrl_c_keeps_what_was_finished(made, run, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gengap.measurement.groups.distance.distance", stop)
    with pytest.raises(Interrupted, match="interrupted in 'Distance from the start'; 2 of 3 measures are there"):
        measure(made, run, out=tmp_path, **CHEAP)
    assert {path.name for path in (tmp_path / "measures").iterdir()} == {"measured.json", "train.json", "test.json"}
    monkeypatch.undo()
    whole = measure(made, run, **CHEAP).document
    resumed = measure(made, run, out=tmp_path, resume=True, **CHEAP).document
    assert resumed["numbers"] == whole["numbers"]


def test_a_grid_goes_on_where_it_was(made, run, tmp_path):
    count = 0

    def stop(event):
        nonlocal count
        if not isinstance(event, Message):
            count += 1
            if count == 30:  # in the second of the two slices
                raise KeyboardInterrupt

    only = {"only": ["landscape"]}
    with pytest.raises(Interrupted, match="of 2 measures are there"):
        measure(made, run, out=tmp_path, listen=stop, **only)
    heard = []
    resumed = measure(made, run, out=tmp_path, resume=True, listen=heard.append, **only).document
    record = next(m["record"] for m in resumed["measures"] if m["name"] == "slice_2d")
    assert record["resumed"] >= 1
    whole = measure(made, run, **only).document
    expected = next(m["record"] for m in whole["measures"] if m["name"] == "slice_2d")
    assert record["grid"] == expected["grid"]


def test_a_budget_that_is_over_leaves_the_rest_out(made, run, tmp_path):
    prepared = prepare(load_subject(made, run), Settings(groups=("loss",), budget=60.0), tmp_path)
    assert len(prepared.plan.rows) == 2
    found = take(replace(prepared, began=prepared.began - 100))
    assert found.document["measures"] == []
    assert all("of the budget of 60 s" in one["why"] for one in found.document["left_out"])
    assert found.sentence == "Nothing could be measured of this checkpoint; the reasons are below."


@pytest.mark.parametrize("mode", ["running", "batch"])
def test_batch_norm_is_named_and_changes_the_number(mode, tmp_path):
    made = problem(normed)
    run = trained(made)
    found = measure(made, run, only=["loss"], batch_norm=mode).document
    expected = made.loss_function("train", batch_norm=mode, buffers=run.buffers).value(run.params)
    assert value(found, "train_loss") == pytest.approx(expected, rel=1e-9)
    assert {one["batch_norm"] for one in found["numbers"]} == {mode}


def test_some_weights_only(made, run):
    found = measure(made, run, params=("0.*",), **CHEAP).document
    moved = {name: p for name, p in run.params.items() if name.startswith("0.")}
    start = {name: run.initial_params[name] for name in moved}
    assert value(found, "distance") == distance(moved, start).from_init
    whole = measure(made, run, **CHEAP).document
    assert value(found, "train_loss") == value(whole, "train_loss")
    assert value(found, "gradient_norm") < value(whole, "gradient_norm")


REFUSED = {
    "pattern": ({"params": ("conv*",)}, "which no weight is called"),
    "limit": ({"memory_limit": "100 B"}, "memory_limit is"),
    "unit": ({"memory_limit": "much"}, "memory_limit is 'much'"),
    "device": ({"device": "abacus"}, "device 'abacus' cannot be used"),
    "snapshots": ({"trajectory": "nowhere"}, "nowhere holds no snapshots"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(case, made, run, tmp_path):
    more, says = REFUSED[case]
    with pytest.raises(BadInput, match=says):
        measure(made, run, out=tmp_path / "out", **CHEAP, **more)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused(made, run, tmp_path):
    params = {name: p.clone() for name, p in run.params.items()}
    params["0.bias"][1] = math.nan
    safetensors.torch.save_file(params, tmp_path / "net.safetensors")
    with pytest.raises(BadInput, match=r"holds a weight in '0.bias' that is not finite"):
        measure(made, tmp_path / "net.safetensors", **CHEAP)


class Noisy:
    """A loss that is not the same twice."""

    def __call__(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets) + 1e-3 * torch.rand(())


def test_a_loss_that_is_not_deterministic_is_refused(run):
    with pytest.raises(BadInput, match="two evaluations at the same weights"):
        measure(problem(loss=Noisy()), run, **CHEAP)
