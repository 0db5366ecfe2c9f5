"""Oracle: the network itself: what torch's own load_state_dict makes of it, and the tensors that were saved."""

import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings, strategies as st
from problems_at_hand import C, F, data, normed, plain
from torch import nn

import gengap
from gengap.core.errors import BadInput, DamagedFile
from gengap.problem.checkpoint import load_checkpoint, load_start

RAN = []


class Tied(nn.Module):
    """Two names for one tensor, and a buffer that a state_dict leaves out."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(C, F), nn.Linear(F, C, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("ramp", torch.arange(3.0), persistent=False)


class Evil:
    """Something whose unpickling leaves a trace."""

    def __reduce__(self):
        return RAN.append, ("code of the file",)


def trained(make, seed=1):
    """A network whose weights and buffers are nobody else's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make()
        with torch.no_grad():
            for value in [*net.parameters(), *net.buffers()]:
                value.copy_(torch.rand_like(value) if value.is_floating_point() else value + 7)
    return net


def same(found, net):
    """Both parts are those of the network, in its own order, and nothing else."""
    for part, own in ((found.params, dict(net.named_parameters())), (found.buffers, dict(net.named_buffers()))):
        assert list(part) == list(own)
        assert all(torch.equal(part[name], own[name]) for name in own)
        assert not any(value.requires_grad for value in part.values())


FORMS = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "note": "best"},
    "model": lambda state: {"epoch": 3, "optimizer": {"lr": torch.tensor(0.1)}, "model": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "module": lambda state: {"module": state, "global_steps": 9},
    "two deep": lambda state: {"model": {"state_dict": state, "arch": "net"}},
    "DataParallel": lambda state: OrderedDict((f"module.{name}", value) for name, value in state.items()),
    "compiled": lambda state: {"model": {f"_orig_mod.{name}": value for name, value in state.items()}},
    "compiled inside DDP": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    "Lightning": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 1},
    "extra state": lambda state: {**state, "1._extra_state": {"scale": 3}},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_every_usual_form_gives_the_weights(form, legacy, tmp_path):
    net, path = trained(normed), tmp_path / "net.pt"
    torch.save(FORMS[form](net.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    same(load_checkpoint(normed(), path), net)


@pytest.mark.parametrize("name", ["net.safetensors", "pytorch_model.bin"])
def test_safetensors_is_known_by_its_content(name, tmp_path):
    net = trained(normed)
    safetensors.torch.save_file(net.state_dict(), tmp_path / name)
    same(load_checkpoint(normed(), str(tmp_path / name)), net)


def test_a_network_with_a_child_called_module_keeps_its_names(tmp_path):
    make = lambda: nn.ModuleDict({"module": nn.Linear(F, C)})  # noqa: E731
    net = trained(make)
    torch.save(net.state_dict(), tmp_path / "a.pt")
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        same(load_checkpoint(make(), tmp_path / name), net)


def test_a_child_that_was_compiled_alone(tmp_path):
    net = trained(lambda: nn.Sequential(nn.Linear(F, 3), nn.Sequential(nn.Linear(3, C))))
    state = {name.replace("1.0.", "1._orig_mod.0."): value for name, value in net.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    same(load_checkpoint(net, tmp_path / "net.pt"), net)


def test_tied_weights_have_one_name_and_left_out_buffers_are_the_networks_own(tmp_path):
    net = trained(Tied)
    torch.save(net.state_dict(), tmp_path / "both.pt")
    safetensors.torch.save_model(net, str(tmp_path / "one.safetensors"))  # keeps one of the two names
    safetensors.torch.save_file({"head.weight": net.head.weight.detach()}, tmp_path / "other.safetensors")
    for name in ("both.pt", "one.safetensors", "other.safetensors"):
        found = load_checkpoint(Tied(), tmp_path / name)
        assert list(found.params) == ["embed.weight"]
        assert torch.equal(found.params["embed.weight"], net.embed.weight)
        assert found.buffers["ramp"].tolist() == [0.0, 1.0, 2.0]
    state = {"embed.weight": net.embed.weight.detach(), "head.weight": net.embed.weight.detach() + 1}
    torch.save(state, tmp_path / "untied.pt")
    with pytest.raises(BadInput, match=r"different values under 'head.weight' and 'embed.weight', which the network t"):
        load_checkpoint(Tied(), tmp_path / "untied.pt")


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_widened_and_double_kept(saved, loaded, tmp_path):
    net = trained(plain).to(saved)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")
    found = load_checkpoint(plain(), tmp_path / "net.safetensors")
    assert {value.dtype for value in found.params.values()} == {loaded}
    assert all(torch.equal(found.params[name], p.to(loaded)) for name, p in net.named_parameters())


@settings(max_examples=25, deadline=None)
@given(widths=st.lists(st.integers(1, 5), min_size=2, max_size=5), prefix=st.sampled_from(["", "module.", "model."]))
def test_networks_of_any_shape(widths, prefix, tmp_path_factory):
    pairs = list(pairwise(widths))
    make = lambda: nn.Sequential(*(nn.Linear(a, b) for a, b in pairs), nn.BatchNorm1d(widths[-1]))  # noqa: E731
    net, path = trained(make), tmp_path_factory.mktemp("shapes") / "net.safetensors"
    safetensors.torch.save_file({f"{prefix}{name}": value for name, value in net.state_dict().items()}, path)
    same(load_checkpoint(make(), path), net)


def problem():
    return gengap.Problem(model=normed, loss="cross_entropy", train=data(), test=data(1), name="normed")


def test_what_train_and_a_store_wrote_gives_the_same_loss(tmp_path):
    run = gengap.train(problem(), gengap.Recipe(optimizer="sgd", lr=0.1, batch_size=8, budget={"epochs": 1}))
    for folder, (final, initial) in (("out", ("params", "initial_params")), ("run", ("final", "initial"))):
        (tmp_path / folder).mkdir()
        for name, part in ((final, run.params), (initial, run.initial_params), ("buffers", run.buffers)):
            safetensors.torch.save_file(dict(part), tmp_path / folder / f"{name}.safetensors")
        for path in (tmp_path / folder, tmp_path / folder / f"{final}.safetensors"):
            params, buffers = load_checkpoint(problem(), path)
            assert problem().loss_function(buffers=buffers).value(params) == run.final.train_loss
            start = load_start(problem(), path)
            assert all(torch.equal(start[name], p) for name, p in run.initial_params.items())
    assert load_start(problem(), tmp_path / "out" / "initial_params.safetensors") is None


def test_the_state_of_an_ongoing_run(tmp_path):
    recipe = gengap.Recipe(optimizer="sgd", lr=0.1, batch_size=8, budget={"epochs": 1})
    run = gengap.train(problem(), recipe, checkpoint=tmp_path / "checkpoint.safetensors")
    for path in (tmp_path, tmp_path / "checkpoint.safetensors"):
        found, start = load_checkpoint(problem(), path), load_start(problem(), path)
        assert all(torch.equal(found.params[name], p) for name, p in run.params.items())
        assert all(torch.equal(start[name], p) for name, p in run.initial_params.items())


MISFITS = {
    "lacks": (lambda s: {n: v for n, v in s.items() if not n.startswith("1.")}, "lacks '1.weight' and 4 more of"),
    "extra": (lambda s: {**s, "9.weight": torch.ones(1)}, "holds '9.weight', which the network has not"),
    "shape": (
        lambda s: {**s, "0.bias": torch.ones(3), "4.bias": torch.ones(2)},
        r"'0.bias' and 1 more .* is \(3,\) and",
    ),
    "whole numbers": (lambda s: {**s, "0.bias": s["0.bias"].to(torch.int8)}, "'0.bias' as torch.int8, but"),
    "broken buffer": (lambda s: {**s, "1.running_var": torch.ones(8).long()}, "'1.running_var' as torch.int64"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_of_another_network_are_refused(case, tmp_path):
    change, says = MISFITS[case]
    torch.save(change(trained(normed).state_dict()), tmp_path / "net.pt")
    with pytest.raises(BadInput, match=says):
        load_checkpoint(normed(), tmp_path / "net.pt")


def scripted(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(plain()).save(str(path))


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


def dumped(path, content):
    path.write_bytes(pickle.dumps(content))


REFUSED = {
    "code": (lambda p: torch.save({"state_dict": plain().state_dict(), "hook": Evil()}, p), "holds a pickled"),
    "pickle of code": (
        lambda p: dumped(p, Evil()),
        "holds pickled objects, .* would run code from the file; save model.state",
    ),
    "whole module": (lambda p: torch.save(plain(), p), "holds a pickled torch.nn.modules.* would run code"),
    "numpy number": (lambda p: torch.save({"a": np.float64(1)}, p), "holds a pickled numpy.*save model.state_dict"),
    "TorchScript": (scripted, "is a TorchScript archive"),
    "zip": (zipped, "is a zip archive that torch.save did not write"),
    "text": (lambda p: p.write_text("lr = 0.1\n"), "is neither a safetensors file nor weights"),
    "no state_dict": (
        lambda p: torch.save({"epoch": 3, "lr": 0.1}, p),
        "with the keys 'epoch', 'lr' and no state_dict",
    ),
    "list": (lambda p: torch.save([torch.ones(2)], p), "holds a list and no state_dict"),
    "deep": (lambda p: torch.save({"model": {"model": {"model": {"a": torch.ones(1)}}}}, p), "no state_dict"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["net.pt", "net.pkl"])
def test_what_would_run_code_or_holds_no_weights_is_refused(case, name, tmp_path):
    make, says = REFUSED[case]
    make(tmp_path / name)
    RAN.clear()
    with pytest.raises(BadInput, match=says) as caught:
        load_checkpoint(plain(), tmp_path / name)
    assert RAN == []
    assert str(caught.value).count("\n") == 0


def test_programs_and_absent_files_are_refused(tmp_path):
    (tmp_path / "net.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(BadInput, match="is a program and no weights"):
        load_checkpoint(plain(), tmp_path / "net.py")
    with pytest.raises(BadInput, match=r"cannot read the checkpoint .*absent"):
        load_checkpoint(plain(), tmp_path / "absent")
    with pytest.raises(BadInput, match="holds no weights"):
        load_checkpoint(plain(), tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_file_that_is_not_whole_is_said(form, share, tmp_path):
    path = tmp_path / ("net.safetensors" if form == "safetensors" else "net.pt")
    if form == "safetensors":
        safetensors.torch.save_file(plain().state_dict(), path)
    else:
        torch.save(plain().state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(BadInput) as caught:
        load_checkpoint(plain(), path)
    assert isinstance(caught.value, DamagedFile) or "neither" in str(caught.value)
    assert "again" in str(caught.value) or "save model.state_dict()" in str(caught.value)
