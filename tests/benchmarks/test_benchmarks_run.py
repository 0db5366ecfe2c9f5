"""The benchmarks still run and write what they say; how fast they are is not a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUBJECTS = (
    "training",
    "fleets",
    "bf16",
    "interpolation",
    "curvature",
    "sharpness",
    "noise",
    "monitor",
    "ranks",
    "ghost_batch_norm",
    "augmentation",
    "reports",
    "startup",
)
RESULTS = ROOT / "benchmarks" / "results"


def benchmarks(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_each_runs_and_writes(name, tmp_path):
    done = benchmarks("--quick", "--out", tmp_path, name)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert (found["name"], found["quick"], found["threads"]) == (name, True, 1)
    assert found["environment"]["processor"]
    assert len(found["load_average_at_start"]) == 3
    assert all(f"{entry['name']}" in done.stdout for entry in found["entries"])
    assert found["entries"]


def test_unknown_names_are_refused():
    done = benchmarks("speed")
    assert done.returncode == 2
    known = done.stderr.rpartition("choose from ")[2].strip().split(", ")
    assert sorted(known) == sorted(SUBJECTS)


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")))
def test_committed_results_are_of_whole_runs(name):
    assert name in SUBJECTS
    found = json.loads((RESULTS / f"{name}.json").read_text())
    assert not found["quick"]
    assert found["entries"]
