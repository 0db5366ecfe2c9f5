# Oracle: one process that makes a backward pass for every part that a rank made, and has all of them in .grad.
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from monitor_ranks import STEPS, batch, network

from gengap.measures.noise.monitor import NoiseScaleMonitor

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both ranks say."""
    folder, script = tmp_path_factory.mktemp("ranks"), Path(__file__).with_name("monitor_ranks.py")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=240) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def one_process(sizes_of_ranks):
    """Train on the parts of both ranks; a rank's part weighs what the mean over its passes and over ranks gives it."""
    with torch.random.fork_rng(devices=[]):
        model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = NoiseScaleMonitor(model, max_overhead=1.0)
    sizes = [b for own in sizes_of_ranks for b in own]
    weights = [1 / len(own) / 2 for own in sizes_of_ranks for _ in own]
    for step in range(STEPS):
        parts = [part for rank, own in enumerate(sizes_of_ranks) for part in batch(step, rank, own)]
        for (x, y), w in zip(parts, weights, strict=True):
            (w * F.cross_entropy(model(x), y)).backward()
        monitor.step(sizes, weights=weights)
        optimizer.step()
        optimizer.zero_grad()
    rows = [[o.step, o.squared_gradient_norm, o.trace_covariance, o.B_small, o.B_big] for o in monitor.history]
    return rows, torch.cat([p.detach().reshape(-1) for p in model.parameters()]).tolist()


@pytest.mark.parametrize(
    ("case", "sizes"),
    [("plain", [[8], [8]]), ("uneven ranks", [[8], [3]]), ("accumulated", [[5, 3], [5, 3]]), ("backward", [[8], [8]])],
)
def test_two_ranks_are_one_process(found, case, sizes):
    rows, weights = one_process(sizes)
    for rank in found:
        assert rank[case]["weights"] == pytest.approx(weights, rel=1e-10)
        assert len(rank[case]["rows"]) == STEPS - 3
        for ours, theirs in zip(rank[case]["rows"], rows, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-8)
    assert found[0][case] == found[1][case] or case == "uneven ranks"


def test_training_is_bit_for_bit_as_without(found):
    for rank in found:
        assert rank["plain"]["weights"] == rank["without"]["weights"]
        assert rank["plain"]["samples"] == 2 * 8 * STEPS


def test_ranks_observe_the_same_steps_whatever_their_clocks_say(found):
    steps = [[row[0] for row in rank["clocks"]["rows"]] for rank in found]
    assert steps[0] == steps[1]
    assert 1 < len(steps[0]) < STEPS - 3  # they do not observe every step
    assert found[0]["clocks"]["every"] == found[1]["clocks"]["every"] > 1


def test_the_bare_network_is_found_out(found):
    for rank in found:
        assert "under DistributedDataParallel give the wrapped model" in rank["mistake"]
