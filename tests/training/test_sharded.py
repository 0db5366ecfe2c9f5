# Oracles: one process that holds everything and trains on the whole batch; where processes have masks or statistics of their own,
# the same processes with whole weights; bytes counted in the tensors that a process holds.
import os
import shutil
import signal

import pytest
import torch
from rank_cases import record
from sharded_cases import APART, CASES, STOPPED, Stacked, linear, scaled, train, wide
from test_ranks import assert_equal, start
from torch import nn
from training_problems import Counted, problem, recipe, smooth

import gengap
from gengap.training.ranks import ALONE, Ranks
from gengap.training.sharded import blocks, check_shardable, is_sharded, shard
from gengap.training.snapshots import Probe

pytestmark = pytest.mark.ranks


def found_by(size, folder):
    """Give what two of so many processes found."""
    codes, said = start(size, folder, "sharded_cases.py")
    assert codes == ([0, 0] if size == 2 else [0, 0, -9]), said
    return [torch.load(folder / f"{size}-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def two(folder):
    return found_by(2, folder)


@pytest.fixture(scope="module")
def three(folder, two):
    del two
    shutil.copy(folder / "interrupted", folder / "for three")
    leave(folder / "from whole", 12)
    return found_by(3, folder)


@pytest.fixture(params=[2, 3])
def found(request):
    """What two of so many processes found."""
    return request.getfixturevalue({2: "two", 3: "three"}[request.param])


def leave(file, update):
    """Stop a run of whole weights."""

    def pressed(now, loss):
        if now == update:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    gengap.train(problem(scaled, loss=Counted(pressed)), recipe(**STOPPED), evaluations=2, checkpoint=file)


@pytest.mark.parametrize("case", CASES)
def test_parts_train_as_the_whole_does(found, case):
    expected = record(train(case))
    for rank in found:
        assert_equal(rank[case], expected)


@pytest.mark.parametrize("case", APART)
def test_what_processes_do_by_themselves_is_as_with_whole_weights(found, case):
    for rank in found:
        assert_equal(rank[case], rank["whole"][case])


def test_blocks_of_ones_own_choice_give_the_same(found):
    for rank in found:
        assert_equal(rank["own blocks"], rank["adam, clipped"])


def test_every_process_gets_the_same_whole_run(found):
    for case in CASES:
        assert all(torch.equal(v, found[1][case]["params"][k]) for k, v in found[0][case]["params"].items())
        assert found[0][case]["history"] == found[1][case]["history"]


def test_a_process_holds_its_part_of_weights_gradients_and_memory(found):
    weights = sum(p.numel() for p in wide().parameters())
    for rank in found:
        whole, part = rank["bytes"][False], rank["bytes"][True]
        assert whole == {"weights": 4 * weights, "gradients": 4 * weights, "memory": 8 * weights}
        for name, count in whole.items():
            assert part[name] == pytest.approx(count / found[0]["size"], rel=0.01)


def test_a_killed_process_is_named(three):
    for rank in three:
        assert rank["left alone"].startswith("lost the connection to rank 2 of 3 (")
        assert rank["left alone"].endswith("start again with --resume, on any number of processes")


def test_a_checkpoint_is_whole_and_goes_on_with_any_number_of_processes(two, three, folder):
    straight = record(gengap.train(problem(scaled), recipe(**STOPPED), evaluations=2))
    assert {rank["interrupted"]["outcome"] for rank in two} == {two[0]["interrupted"]["outcome"]}
    assert two[0]["interrupted"]["outcome"].startswith("interrupted at step")
    for rank in three:
        assert_equal(rank["resumed"], straight)
        assert_equal(rank["from whole"], straight)
    file = folder / "alone"
    shutil.copy(folder / "interrupted", file)
    alone = gengap.train(problem(scaled, loss=Counted()), recipe(**STOPPED), evaluations=2, checkpoint=file)
    assert_equal(record(alone), straight)


def test_blocks_are_what_stands_in_a_row_and_shares_no_weight():
    model = Stacked()
    assert blocks(model) == [model.blocks[0][0]]  # the other two share their weight
    assert blocks(model, linear) == [model.blocks[0][0], model.unused, model.out, model.first]
    assert blocks(nn.Linear(3, 2)) == []
    assert blocks(smooth(), lambda module: False) == []
    nested = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())), nn.LSTM(2, 2)])
    assert blocks(nested) == [nested[0][0], nested[0][1][0], nested[1]]


def test_whole_networks_are_not_sharded():
    assert not is_sharded(smooth())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optimizer": "lbfgs"}, "lbfgs needs whole tensors; choose one of these"),
        ({"optimizer": "kfac"}, "sgd, adam, adamw, adagrad, rmsprop.*, and kfac needs whole tensors"),
        (
            {"method": "sam"},
            "shard and method 'sam' do not go together: it keeps or moves copies of whole weights; leave one",
        ),
        ({"adversarial": {"epsilon": 0.1}}, "shard and adversarial do not go together"),
        ({"stability": {"sigma": 0.1}}, "shard and stability do not go together"),
        (
            {"batch_schedule": {"name": "dynamic", "theta": 0.5}},
            "dynamic batch_schedule .* compares whole gradients of halves",
        ),
        ({"micro_batch": "auto"}, "micro_batch 'auto' .* give a number"),
        ({"memory_format": "channels_last"}, "channels_last"),
        ({"gradient_noise": {"name": "isotropic", "temperature": 1e-3}}, "isotropic gradient_noise"),
        ({"ghost_batch": 4, "quirks": "bigbatch"}, "quirks"),
    ],
)
def test_what_needs_whole_weights_is_refused(fields, said):
    with pytest.raises(gengap.BadInput, match=said):
        check_shardable(recipe(**fields), Ranks(0, 2))


def test_one_process_and_the_noise_scale_are_refused():
    with pytest.raises(gengap.BadInput, match="over processes, and there is one; start several with torchrun"):
        gengap.train(problem(), recipe(), shard=True)
    with pytest.raises(gengap.BadInput, match="leave noise_scale or shard out"):
        check_shardable(recipe(), Ranks(0, 2), noise_scale=True)


def test_the_memory_of_an_optimizer_in_snapshots_is_refused(monkeypatch):
    monkeypatch.setattr("gengap.training.solo.check_sharing", lambda *_: None)
    with pytest.raises(gengap.BadInput, match="snapshots hold it whole; use a checkpoint"):
        gengap.train(problem(), recipe(), ranks=Ranks(0, 2), shard=True, probe=Probe(print, memory=True))


def test_a_weight_without_an_axis_is_refused():
    model = smooth()
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(gengap.BadInput, match=r"scale has none; give it the shape \(1,\)"):
        shard(model, ALONE, torch.device("cpu"))
