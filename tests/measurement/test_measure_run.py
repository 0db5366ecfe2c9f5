"""Oracles: the measures called alone, and the files before and after."""

import html
import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from measured_problems import net, normed, problem, trained
from torch import nn

from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Message
from gengap.measurement import registry
from gengap.measurement.preparation import prepare
from gengap.measurement.run import measure, take
from gengap.measurement.settings import Settings
from gengap.measurement.subject import load_subject
from gengap.measurement.task import Task
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
    assert set(READERS) == set(registry.MEASURES)
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


OTHER = {
    "seed": ({"seed": 1}, "holds 'Distance from the start' made with seed 0 and not 1; repeat the settings"),
    "weights": ({"params": ("0.*",)}, r"made with params of all and not 0\.\*"),
    "samples": ({"samples": 30}, "holds measures on 60 training samples and not 30; repeat --samples 60"),
}


@pytest.mark.parametrize("case", OTHER)
def test_numbers_of_other_settings_are_not_mixed(case, made, run, tmp_path):
    more, says = OTHER[case]
    measure(made, run, out=tmp_path, **CHEAP)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    for only in (CHEAP, {"only": ["noise"]}):
        with pytest.raises(BadInput, match=says):
            measure(made, run, out=tmp_path, resume=True, **only, **more)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_a_setting_of_measures_that_are_not_asked_for_may_differ(made, run, tmp_path):
    measure(made, run, out=tmp_path, only=["loss"], momentum=0.9)
    more = measure(made, run, out=tmp_path, only=["distance"], radii=(0.1,), resume=True).document
    assert {m["name"] for m in more["measures"]} == {"train", "test", "distance"}


def test_what_was_finished_stays_in_the_document_whatever_is_asked_for_next(made, run, tmp_path):
    first = measure(made, run, out=tmp_path, only=["loss", "noise"]).document
    second = measure(made, run, out=tmp_path, only=["distance"], resume=True).document
    names = [{m["name"]: m for m in document["measures"]} for document in (first, second)]
    assert set(names[1]) == {*names[0], "distance"}
    assert all(names[1][name] == names[0][name] for name in names[0])
    assert json.loads((tmp_path / "measure.json").read_text()) == second


def test_a_number_on_more_samples_is_kept_when_time_allows_only_fewer(made, run, tmp_path):
    measure(made, run, out=tmp_path, only=["loss"])
    prepared = prepare(load_subject(made, run), Settings(groups=("loss",)), tmp_path, resume=True)
    shorter = take(replace(prepared, task=prepared.task.on(20))).document
    assert {one["samples"] for one in shorter["numbers"]} == {60}


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "of another version": '{"name": "train", "found": 1}',
    "with another record": None,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_this_version_cannot_read_is_measured_again(case, made, run, tmp_path):
    first = measure(made, run, out=tmp_path, **CHEAP).document
    file = tmp_path / "measures" / "train.json"
    text = BROKEN[case] or json.dumps(json.loads(file.read_text()) | {"record": {"nats": 0.3}})
    file.write_text(text)
    heard = []
    again = measure(made, run, out=tmp_path, resume=True, listen=heard.append, **CHEAP).document
    assert again["numbers"] == first["numbers"]
    said = [event.text for event in heard if isinstance(event, Message) and event.warning]
    assert said == [f"{file} is damaged or was written by another version, and is not used"]


def test_a_folder_of_another_version_is_measured_again(made, run, tmp_path):
    first = measure(made, run, out=tmp_path, **CHEAP).document
    index = tmp_path / "measures" / "measured.json"
    index.write_text('["gengap.measures/0"]')
    again = measure(made, run, out=tmp_path, resume=True, **CHEAP).document
    assert again["numbers"] == first["numbers"]
    assert json.loads(index.read_text())["format"] == "gengap.measures/1"
    index.write_text("{")
    with pytest.raises(BadInput, match=r"measured.json cannot be read"):
        measure(made, run, out=tmp_path, resume=True, **CHEAP)


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

    first = measure(made, run, out=tmp_path, only=["noise"])
    monkeypatch.setattr("gengap.measurement.groups.distance.distance", stop)
    with pytest.raises(Interrupted, match="interrupted in 'Distance from the start'; 2 of 6 measures are there"):
        measure(made, run, out=tmp_path, resume=True, **CHEAP)
    assert {"train.json", "test.json"} < {path.name for path in (tmp_path / "measures").iterdir()}
    found = json.loads((tmp_path / "measure.json").read_text())
    assert found["interrupted"].startswith("interrupted in 'Distance from the start'")
    assert {m["name"] for m in found["measures"]} == {"train", "test", *(m["name"] for m in first.document["measures"])}
    assert {"title": "Distance from the start", "why": "it was interrupted"}.items() <= found["left_out"][-1].items()
    monkeypatch.undo()
    whole = measure(made, run, **CHEAP).document
    resumed = measure(made, run, out=tmp_path, resume=True, **CHEAP).document
    assert [one for one in resumed["numbers"] if one["measure"] in {"train", "test", "distance"}] == whole["numbers"]
    assert resumed["interrupted"] == ""


def test_ctrl_c_before_anything_is_finished_writes_nothing(made, run, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gengap.measurement.groups.loss.performance", stop)
    with pytest.raises(Interrupted, match="; 0 of 3 measures are there"):
        measure(made, run, out=tmp_path / "out", **CHEAP)
    assert not (tmp_path / "out" / "measure.json").exists()


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
    assert (tmp_path / "points").is_dir()
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
    found = take(replace(prepared, began=prepared.began - 100)).document
    assert len(found["measures"]) == 1  # the first one in any case
    assert [one["why"].partition(",")[0].partition(" s ")[2] for one in found["left_out"]] == [
        "of the budget of 60 s is gone"
    ]


@pytest.mark.parametrize(("spent", "taken"), [(0.0, {"train", "test"}), (55.0, {"train"})])
def test_what_did_not_fit_is_taken_where_there_is_time_after_all(spent, taken, made, run, tmp_path):
    """With 60 s, a measure that was foretold to take 10 s fits after a second, and does not after 55 s."""
    prepared = prepare(load_subject(made, run), Settings(groups=("loss",), budget=60.0), tmp_path)
    rows = {row.name: replace(row, seconds=10.0) for row in prepared.plan.rows}
    plan = replace(prepared.plan, rows=(rows["train"],), late=(rows["test"],))
    found = take(replace(prepared, plan=plan, began=time.perf_counter() - spent)).document
    assert {m["name"] for m in found["measures"]} == taken
    assert {row["name"] for row in found["forecast"]} == taken
    assert len(found["left_out"]) == 2 - len(taken)
    assert all(one["why"].startswith("it would take about 10.0 s on 60 samples") for one in found["left_out"])


@pytest.mark.parametrize(("activation", "by_sample"), [(nn.ReLU, True), (nn.Tanh, False)])
def test_the_forecast_of_the_trace_knows_how_it_is_taken(activation, by_sample):
    made = problem(lambda: nn.Sequential(nn.Linear(4, 5), activation(), nn.Linear(5, 2)))
    task = Task(load_subject(made, trained(made)), Settings(), 60)
    work = registry.MEASURES["trace"].work(task)
    assert (work.products == 0) == by_sample
    record, _ = registry.MEASURES["trace"].take(task)
    assert (record["method"] == "per sample") == by_sample


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


class BackwardOnce(torch.autograd.Function):
    """The hyperbolic tangent, with a backward pass that cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return slope * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Bent(nn.Module):
    """A layer that torch has no second derivative of."""

    def forward(self, x):
        return BackwardOnce.apply(x)


def test_a_second_derivative_that_torch_has_wrong_is_refused_and_the_rest_is_measured():
    made = problem(lambda: nn.Sequential(nn.Linear(4, 5), Bent(), nn.Linear(5, 2)))
    found = measure(made, trained(made), only=["loss", "hessian", "noise"]).document
    state = {m["name"]: m["state"] for m in found["measures"]}
    curved = {"top_eigenvalues", "bottom_eigenvalues", "trace", "spectral_density", "curvature_noise_scale"}
    assert {state[name] for name in curved} == {"failed"}
    assert {state[name] for name in ("train", "test", "noise_scale")} == {"done"}
    reasons = {m["reason"] for m in found["measures"] if m["name"] in curved}
    assert all("whose backward is not differentiable" in one and "check=" not in one for one in reasons)


def test_few_weights_are_enough_for_every_measure(made, run):
    """Two biases of 37 weights; what asks for more directions than there are takes those there are."""
    found = measure(made, run, params=("2.bias",)).document
    assert {m["title"]: m["reason"] for m in found["measures"] if m["state"] == "failed"} == {}
    records = {m["name"]: m["record"] for m in found["measures"]}
    assert (records["subspace_sharpness"]["dim"], len(records["top_eigenvalues"]["values"])) == (1, 2)
    assert found["problem"]["measured"] == 2
    assert [one["title"][:5] for one in found["left_out"] if "biases and scales only" in one["why"]] == [
        "Slice",
        "Slice",
    ]
    assert found["sentence"].startswith("Along 2 of 37 weights, this minimum's ")


def test_few_samples_are_enough_for_batches_of_two_sizes_or_are_said_to_be_too_few():
    for n, why in ((60, ""), (39, "need at least 40 samples; there are 39")):
        made = problem(normed, n=n)
        found = measure(made, trained(made), only=["noise"], batch_norm="batch").document
        assert [m["state"] for m in found["measures"]] == ["done"] * (not why)
        assert any(why in one["why"] for one in found["left_out"])


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
    with pytest.raises(BadInput, match="two evaluations at the same weights") as refused:
        measure(problem(loss=Noisy()), run, **CHEAP)
    assert "check=" not in str(refused.value)  # no argument of this function


def test_a_checkpoint_of_another_network_is_held_against_a_named_one(made, run, tmp_path):
    safetensors.torch.save_file(normed().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(BadInput, match=r"held against the network of 'blobs'; --data with --network, or --problem"):
        measure(made, tmp_path / "net.safetensors", **CHEAP)
    (tmp_path / "run.json").write_text('{"problem": "resnet on cifar10"}')
    with pytest.raises(BadInput, match=r"of 'blobs', but run.json beside it says 'resnet on cifar10'"):
        measure(made, tmp_path / "net.safetensors", **CHEAP)
    with pytest.raises(BadInput, match=r"^cannot read the checkpoint \S+: No such file or directory; name a file or"):
        measure(made, tmp_path / "absent", **CHEAP)
