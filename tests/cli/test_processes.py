"""The command line as a process: what it imports, what it writes where, and Ctrl-C. Oracle: a run that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gengap.store.store import Store

LIGHT = """
import pkgutil, sys
import gengap
from importlib import import_module
for name in ("cli", "core", "theory", "store", "studies", "report"):
    try:
        package = import_module(f"gengap.{name}")
    except ModuleNotFoundError:
        assert name == "theory"
        continue
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        import_module(module.name)
    assert "torch" not in sys.modules, name
assert gengap.__version__ and dir(gengap)
sys.argv = ["gengap", *sys.argv[1:]]
try:
    gengap.cli.main()
finally:
    assert "torch" not in sys.modules
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **more}


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"], ["list", "networks", "--json"]], ids=" ".join)
def test_planning_and_printing_load_no_torch(words):
    found = subprocess.run([sys.executable, "-c", LIGHT, *words], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    if "--json" in words:
        assert "keskar-f1" in json.loads(found.stdout)


def test_a_mistake_is_one_line(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "gengap", "report", "absent"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("gengap: absent holds no comparison")
    assert found.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_sees_no_traceback():
    command = f"{sys.executable} -m gengap list networks --json | head -n 1"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert found.stdout == "{\n"
    assert "Traceback" not in found.stderr


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_ctrl_c_and_resume(gengap, tmp_path, tiny):
    words = ["compare", "--problem", "cli_problems:slow", *tiny, "--seeds", "2", "--no-sharpness", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gengap", *words, "--out", "out"],
        cwd=tmp_path,
        env=environment(CLI_SECONDS="0.05"),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: len(list(tmp_path.glob("out/runs/*/final.safetensors"))) == 2, process)
    time.sleep(0.3)  # the third of four runs takes a second
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("gengap: interrupted in batch 4, seed 1 at step")
    assert last.endswith("finished runs are kept in out, go on with --resume")
    assert "Traceback" not in err
    with Store(tmp_path / "out", create=False) as store:
        kept = {row.key: row.created for row in store.runs()}
    assert len(kept) == 2
    assert len(list(tmp_path.glob("out/runs/*/checkpoint.safetensors"))) == 1
    resumed = gengap(*words, "--out", "out", "--resume")
    assert resumed.code == 0
    assert "resumed from" in resumed.err
    straight = gengap(*words, "--out", "straight").json()
    for arm in ("small", "large"):
        for name in ("test_accuracy", "train_accuracy", "test_loss", "train_loss", "distance"):
            assert resumed.json()[arm][name] == straight[arm][name]
    with Store(tmp_path / "out", create=False) as store:
        rows = {row.key: row.created for row in store.runs()}
    assert len(rows) == 4
    assert kept.items() <= rows.items()


def test_ctrl_c_in_train(gengap, tmp_path):
    words = [
        "train",
        "--problem",
        "cli_problems:slow",
        "--batch-size",
        "8",
        "--epochs",
        "8",
        "--evaluations",
        "3",
        "--json",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "gengap", *words, "--out", "run"],
        cwd=tmp_path,
        env=environment(CLI_SECONDS="0.1"),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: (tmp_path / "run").exists(), process)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    last = err.splitlines()[-1]  # progress may stand before it
    assert last.startswith("gengap: blobs, batch 8, seed 0: interrupted at step ")
    assert last.endswith("go on with --resume")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.safetensors"]
    resumed, straight = (
        gengap(*words, "--out", out, *more).json() for out, more in (("run", ["--resume"]), ("other", []))
    )
    ends = [{k: v for k, v in found["history"][-1].items() if k != "seconds"} for found in (resumed, straight)]
    assert ends[0] == ends[1]
