# Oracle: one process. Two network namespaces with a cable between them stand for two machines.
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ranks
ADDRESSES = ("10.231.77.1", "10.231.77.2")


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def machines():
    """Names of two namespaces that reach each other at ADDRESSES, by an interface that is called like the namespace."""
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command (iproute2)")
    names = [f"gengap{os.getpid() % 100_000}{letter}" for letter in "ab"]
    try:
        for name in names:
            if (made := ip("netns", "add", name)).returncode:
                pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
        ends = ["type", "veth", "peer", "name", names[1], "netns", names[1]]
        if (made := ip("link", "add", names[0], "netns", names[0], *ends)).returncode:
            pytest.skip(f"a cable between namespaces cannot be made here: {made.stderr.strip()}")
        for name, address in zip(names, ADDRESSES, strict=True):
            assert not ip("-n", name, "address", "add", f"{address}/24", "dev", name).returncode
            for device in (name, "lo"):
                assert not ip("-n", name, "link", "set", device, "up").returncode
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def test_two_machines_train_as_one_process(machines, gengap, tmp_path):
    words = ["train", "--problem", "cli_problems:blobs", "--batch-size", "7", "--optimizer", "sgd", "--lr", "0.3"]
    words += ["--epochs", "2", "--json", "--out"]
    alone = gengap(*words, "alone").json()["history"][-1]
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", ADDRESSES[0], "--master-port", "29511"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *meet]
    common = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *torchrun, "--node-rank", str(rank), "-m", "gengap", *words, "together"],
            cwd=tmp_path,
            env=common | {"GLOO_SOCKET_IFNAME": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, name in enumerate(machines)
    ]
    said = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert said[1][0] == ""
    found = json.loads(said[0][0])
    assert found["cost"]["ranks"] == 2
    for measure in ("train_loss", "test_loss", "test_accuracy"):
        assert found["history"][-1][measure] == pytest.approx(alone[measure], rel=1e-5)
