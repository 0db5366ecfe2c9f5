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

from gengap.core.errors import BadInput
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
    page = html.unescape(found.report(tmp_path).read_text(encoding="utf-8"))
    assert found.sentence in page.replace("\N{NO-BREAK SPACE}", " ")


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
