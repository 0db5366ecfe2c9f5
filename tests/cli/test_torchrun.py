# Oracle: the same command without torchrun.
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ranks


def torchrun(words, folder):
    """Run a command in two processes, each with cli_problems at hand."""
    common = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gengap"]
    return subprocess.run(
        [*launch, *map(str, words)], cwd=folder, env=common, capture_output=True, text=True, check=False, timeout=280
    )


def said_by_us(text):
    """The lines that are not torchrun's own."""
    return [line for line in text.splitlines() if line.startswith("gengap: ")]


def test_compare_is_as_on_one_process(gengap, tmp_path, tiny):
    words = ["compare", "--problem", "cli_problems:blobs", *tiny, "--seeds", 2, "--no-sharpness", "--json"]
    found = torchrun([*words, "--out", "two"], tmp_path)
    assert found.returncode == 0, found.stderr
    ours, theirs = json.loads(found.stdout), gengap(*words, "--out", "one").json()
    assert ours["verdict"] == theirs["verdict"]
    for arm in ("small", "large"):
        assert len(ours[arm]["runs"]) == 2
        for measure in ("test_accuracy", "train_loss", "test_loss", "distance"):
            assert ours[arm][measure]["value"] == pytest.approx(theirs[arm][measure]["value"], rel=1e-5)
    again = gengap(*words, "--out", "two", "--resume")  # one process finds all runs of two there
    assert again.json()["small"]["test_loss"] == ours["small"]["test_loss"]
    assert found.stderr.count("report: ") == 1


def test_train_writes_once_and_a_second_time_is_refused_once(gengap, tmp_path):
    words = ["train", "--problem", "cli_problems:blobs", "--batch-size", 7, "--optimizer", "sgd", "--lr", 0.3]
    words += ["--epochs", 2, "--json", "--out"]
    found = torchrun([*words, "run"], tmp_path)
    assert found.returncode == 0, found.stderr
    end, alone = json.loads(found.stdout)["history"][-1], gengap(*words, "alone").json()["history"][-1]
    for measure in ("train_loss", "test_loss", "test_accuracy"):
        assert end[measure] == pytest.approx(alone[measure], rel=1e-5)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }
    refused = torchrun([*words, "run"], tmp_path)
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert said_by_us(refused.stderr) == [
        "gengap: run holds a run already; go on with it by --resume, or choose another folder by --out"
    ]
