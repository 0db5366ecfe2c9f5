# Oracle: one process that makes the passes of both ranks, and has all of them in .grad.
import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from adapter_networks import BATCH, LR, PASSES, plain_loop, samples
from adapter_ranks import RANK_EPOCHS, RANK_SAMPLES

pytestmark = pytest.mark.ranks


def batches(package):
    """What each rank gets: every second sample from torch's sampler, every second batch from Accelerate's."""
    x, y = samples(RANK_SAMPLES)
    if package == "lightning":
        return [list(zip(x[r::2].split(BATCH), y[r::2].split(BATCH), strict=True)) for r in (0, 1)]
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    return [parts[0::2], parts[1::2]]


def of_both_ranks(package, folder):
    """Start two processes as torchrun does, and read what they found."""
    script = Path(__file__).with_name("adapter_ranks.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "GROUP_RANK": "0"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), package, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=280)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("package", ["lightning", "transformers", "accelerate"])
def test_two_ranks_are_one_process(package, tmp_path):
    if find_spec(package) is None:
        pytest.skip(f'install it with: pip install "gengap[{package}]"')
    own = batches(package)
    weights_of = {
        "transformers": lambda sizes: [2 / len(sizes)] * len(sizes)
    }  # a last update of 2 passes is a mean of 2
    given = {"weights_of": weights_of[package]} if package in weights_of else {}
    expected, weights = plain_loop(own=own, epochs=RANK_EPOCHS, **given)
    for rank in of_both_ranks(package, tmp_path):
        assert rank["weights"] == pytest.approx(weights, rel=1e-10)
        assert len(rank["rows"]) == len(expected) == 3 * RANK_EPOCHS - 3
        for ours, theirs in zip(rank["rows"], expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-8)
        assert (rank["batch"], rank["new"]) == (2 * BATCH * PASSES, [LR])
