# Oracle: torch's batch norm in one process on the joint batch of the ranks that share statistics.
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from span_ranks import EMPTY, SHAPES, SIZES, SPANS, STEPS, joint_batch, layer, network, passes, slice_of, trained
from torch import nn

from gengap.core.errors import BadInput
from gengap.nets.norm_conversion import (
    average_statistics,
    convert_plain_batch_norm,
    convert_span_batch_norm,
    last_batch_statistics,
)
from gengap.nets.norms import GhostBatchNorm2d
from gengap.nets.span_norms import SpanBatchNorm2d

ranks = pytest.mark.ranks


@pytest.fixture(scope="module", params=[2, 3], ids=["two ranks", "three ranks"])
def found(request, tmp_path_factory):
    """What all ranks say."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("span_ranks.py")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(folder), str(rank), str(world)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def close(ours, theirs):
    torch.testing.assert_close(torch.tensor(ours).double(), torch.tensor(theirs).double(), rtol=1e-11, atol=1e-12)


def ranks_of_groups(span, world):
    """The ranks of each group, in order."""
    size = {"all": world, "rank": 1}.get(span, span)
    return [range(i, min(i + size, world)) for i in range(0, world, size)]


def compare(found, key, kind, sizes, span, momentum):
    for group in ranks_of_groups(span, len(sizes)):
        samples = slice(slice_of(group[0], sizes).start, slice_of(group[-1], sizes).stop)
        whole = passes(layer(SHAPES[kind], momentum), kind, sizes, samples)
        ours = [found[rank][key] for rank in group]
        for step in range(STEPS):
            for name in ("y", "dx"):
                close([row for each in ours for row in each[step][name]], whole[step][name])
            for name in ("dw", "db"):
                close(
                    sum(torch.tensor(each[step][name], dtype=torch.float64) for each in ours).tolist(),
                    whole[step][name],
                )
        for each in ours:
            for name, value in whole[-1].items():
                close(each[-1][name], value)


@ranks
@pytest.mark.parametrize("kind", SHAPES)
def test_ranks_are_one_process_on_the_joint_batch(found, kind):
    """Outputs, gradients and running statistics, with different sizes of the ranks and every span."""
    sizes = SIZES[len(found)]
    for span in SPANS[len(found)]:
        for momentum in (0.1, None):
            compare(found, f"uneven {kind} {span} {momentum}", kind, sizes, span, momentum)


@ranks
@pytest.mark.parametrize("kind", SHAPES)
def test_a_rank_may_have_no_samples(found, kind):
    sizes = EMPTY[len(found)]
    for momentum in (0.1, None):
        compare(found, f"empty {kind} all {momentum}", kind, sizes, "all", momentum)


@ranks
def test_data_parallel_training_is_that_of_one_process(found):
    with torch.random.fork_rng(devices=[]):
        alone = network()
    for rank in found:
        close(rank["trained"], trained(copy.deepcopy(alone), slice(0, 12)))


@ranks
def test_last_batches_are_averaged_over_ranks(found):
    world = len(found)
    batches = joint_batch("vectors", [6] * world, STEPS - 1)[0][:, :2].split(6)
    for rank in found:
        close(rank["last"][0], torch.stack([b.mean(0) for b in batches]).mean(0).tolist())
        close(rank["last"][1], torch.stack([b.var(0) for b in batches]).mean(0).tolist())


@ranks
def test_one_value_per_channel_is_refused_on_every_rank(found):
    for rank in found:
        assert "one value per channel in all" in rank["refused"]


def test_without_ranks_it_is_the_plain_layer():
    norm, plain = SpanBatchNorm2d(3), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.eval()(x), plain.eval()(x))
    assert norm.state_dict().keys() == plain.state_dict().keys()
    assert "span='all'" in repr(norm)


def test_last_batch_alone():
    model = last_batch_statistics(nn.Sequential(nn.BatchNorm1d(2), GhostBatchNorm2d(3, 4)))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    model[0](x * 9)
    model[0](x)
    images = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    model[1](images)
    average_statistics(model)  # one process: nothing to do
    torch.testing.assert_close(model[0].running_mean, x.mean(0))
    torch.testing.assert_close(model[0].running_var, x.var(0))
    torch.testing.assert_close(model[1].running_mean, images[4:].mean((0, 2, 3)))


def test_conversion_and_back():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    assert type(convert_span_batch_norm(model, 2)[0]) is SpanBatchNorm2d
    assert model[0].span == 2
    assert type(convert_span_batch_norm(model, "rank", ghost_size=4)[0]) is GhostBatchNorm2d
    assert not hasattr(model[0], "span")
    assert type(convert_span_batch_norm(model, 1)[0]) is nn.BatchNorm2d
    convert_span_batch_norm(model)
    assert type(convert_plain_batch_norm(model)[0]) is nn.BatchNorm2d
    assert not hasattr(model[0], "span")


@pytest.mark.parametrize("span", [0, -1, 1.5, True, "some", None])
def test_a_span_that_means_nothing_is_refused(span):
    with pytest.raises(BadInput, match="span is"):
        convert_span_batch_norm(nn.BatchNorm1d(2), span)


def test_ghosts_and_spans_exclude_each_other():
    with pytest.raises(BadInput, match="span is 'all' and ghost_size 8"):
        convert_span_batch_norm(nn.BatchNorm1d(2), "all", ghost_size=8)
