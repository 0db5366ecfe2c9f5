"""What `gengap measure` prints and writes. Oracle: the Python calls behind it, and the folder before and after."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_problems import blobs, normed

import gengap as library
from gengap.measurement.run import measure

BLOBS = ["--problem", "cli_problems:blobs"]
CHEAP = ["--only", "loss,distance"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, anywhere):
    """A folder that gengap train wrote."""
    folder = tmp_path_factory.mktemp("made")
    words = ["--batch-size", 8, "--optimizer", "sgd", "--lr", 0.3, "--epochs", 2, "--evaluations", 1]
    assert anywhere("train", *BLOBS, *words, "--out", folder / "run", "--quiet").code == 0
    return folder / "run"


def value(document, key):
    return next(one["estimate"]["value"] for one in document["numbers"] if one["key"] == key)


def test_one_json_document_and_the_same_numbers_as_in_python(made, gengap):
    found = gengap("measure", *BLOBS, "--checkpoint", made, *CHEAP, "--out", "out", "--json")
    assert found.code == 0
    document = found.json()
    expected = measure(blobs(), made, only=["loss", "distance"]).document
    assert document["numbers"] == expected["numbers"]
    assert {path.name for path in Path("out").iterdir()} == {"measures", "measure.json", "report.html", "data"}
    assert json.loads(Path("out/measure.json").read_text(encoding="utf-8")) == document
    assert found.err.rstrip().endswith(f"report: {Path('out') / 'report.html'}")
    assert shlex.split(document["command"])[:5] == ["gengap", "measure", *BLOBS, "--checkpoint"]


def test_the_sentence_comes_first_then_the_table_then_the_report(made, gengap):
    found = gengap("measure", *BLOBS, "--checkpoint", made, "--only", "distance", "--quiet", "--out", "out")
    assert found.code == 0
    document = json.loads(Path("out/measure.json").read_text(encoding="utf-8"))
    words = " ".join(found.out.split())
    assert words.startswith(document["sentence"])
    places = [words.index(word) for word in ("Distance from the start", "Norm of the weights", "What was not measured")]
    assert places == sorted(places)
    assert found.err == f"report: {Path('out') / 'report.html'}\n"


@pytest.mark.parametrize("form", ["file", "state_dict", "run of a store"])
def test_every_form_of_a_checkpoint(form, made, done, gengap, tmp_path):
    problem = blobs()
    params, _ = load(made)
    if form == "file":
        path = made / "params.safetensors"
    elif form == "state_dict":
        path = tmp_path / "net.pt"
        torch.save({"epoch": 2, "model": {f"module.{name}": p for name, p in params.items()}}, path)
    else:
        path = next(iter(sorted((done.folder / "runs").iterdir())))
        params, _ = load(path)
    found = gengap("measure", *BLOBS, "--checkpoint", path, "--only", "loss", "--json", "--out", "out").json()
    assert value(found, "train_loss") == pytest.approx(problem.loss_function("train").value(params), rel=1e-9)


def load(path):
    from gengap.problem.checkpoint import load_checkpoint

    return load_checkpoint(blobs(), path)


def test_names_of_the_catalogue(gengap, tmp_path):
    problem = library.load("digits")
    torch.save(problem.model(seed=0).state_dict(), "net.pt")
    words = ["measure", "--data", "digits", "--checkpoint", "net.pt", "--only", "loss", "--samples", 100, "--json"]
    found = gengap(*words).json()
    assert found["problem"]["network"] == "convnet"
    assert found["samples"] == 100
    assert (tmp_path / "results" / "measure-net" / "report.html").exists()


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_dry_run_measures_and_writes_nothing(form, made, gengap, tmp_path):
    found = gengap("measure", *BLOBS, "--checkpoint", made, "--dry-run", *form)
    assert found.code == 0
    assert list(tmp_path.iterdir()) == []
    if form:
        plan = found.json()
        assert plan["samples"] == 40
        assert plan["seconds"] == pytest.approx(sum(row["seconds"] for row in plan["measures"]))
        assert {"sharpness", "top_eigenvalues", "noise_scale"} <= {row["name"] for row in plan["measures"]}
    else:
        assert "Hessian products" in found.out
        assert "in all on 40 samples" in found.out


def test_a_folder_with_measures_is_gone_on_with_only_when_asked(made, gengap):
    words = ["measure", *BLOBS, "--checkpoint", made, *CHEAP, "--out", "out", "--json"]
    first = gengap(*words).json()
    refused = gengap(*words)
    assert (refused.code, refused.out) == (2, "")
    assert "out holds measures already; go on with them by --resume" in refused.err.splitlines()[-1]
    again = gengap(*words, "--resume").json()
    assert again["measures"] == first["measures"]


def test_a_measure_that_fails_gives_code_1(made, gengap, monkeypatch):
    def fails(*_, **__):
        raise FloatingPointError("a norm is not finite")

    monkeypatch.setattr("gengap.measurement.groups.distance.distance", fails)
    found = gengap("measure", *BLOBS, "--checkpoint", made, *CHEAP, "--out", "out", "--json")
    assert found.code == 1
    assert "warning: no distance from the start: a norm is not finite" in found.err
    assert "Distance from the start: a norm is not finite" in Path("out/report.html").read_text(encoding="utf-8")
    assert [m["state"] for m in found.json()["measures"]].count("failed") == 1


def test_snapshots_of_the_training_give_the_growth_of_the_distance(gengap):
    words = ["--batch-size", 4, "--optimizer", "sgd", "--lr", 0.1, "--epochs", 8, "--evaluations", 1, "--quiet"]
    assert gengap("train", *BLOBS, *words, "--snapshots", 12, "--out", "run").code == 0
    words = ["--only", "distance,landscape", "--out", "out", "--json"]
    found = gengap("measure", *BLOBS, "--checkpoint", "run", *words).json()
    record = next(m["record"] for m in found["measures"] if m["name"] == "distance_curve")
    steps, distances = np.array(record["steps"][1:], float), np.array(record["distances"][1:])
    assert value(found, "log_slope") == pytest.approx(np.polyfit(np.log(steps), distances, 1)[0], rel=1e-6)
    assert record["distances"][-1] == pytest.approx(value(found, "distance"), rel=1e-12)
    assert Path("out/figures/distance_curve.svg").exists()
    way = next(m["record"] for m in found["measures"] if m["name"] == "trajectory")
    assert way["checkpoints"] == len(steps) + 1
    assert np.hypot(*way["coordinates"][0]) <= value(found, "distance") * (1 + 1e-6)
    assert Path("out/figures/trajectory.svg").exists()


WRONG = {
    "group": (["--only", "loss,sharp"], "no group of measures is called 'sharp'"),
    "no group": (["--only", ""], "no group of measures was chosen"),
    "budget": (["--budget", "soon"], "budget is 'soon'; write a number and a unit"),
    "short budget": (["--budget", "0.001s"], "the budget of 0.001 s is too short for any measure"),
    "radius": (["--radius", "wide"], "--radius is 'wide'; write numbers with commas between them, for example 5e-4"),
    "negative radius": (["--radius", "-1"], "radius is -1.0"),
    "l2": (["--l2", "0"], "l2 is 0.0"),
    "l2 in words": (["--l2", "1,two"], "--l2 is '1,two'"),
    "momentum": (["--momentum", "1"], "momentum is 1.0"),
    "statistics": (["--batch-norm", "none"], "batch_norm is 'none'"),
    "pattern": (["--params", "conv*"], "which no weight is called"),
    "limit": (["--memory-limit", "much"], "memory_limit is 'much'"),
    "second": (["--second", "absent"], "cannot read the checkpoint absent"),
    "initial": (["--initial", "absent"], "cannot read the checkpoint absent"),
    "trajectory": (["--trajectory", "absent"], "absent holds no snapshots"),
    "device": (["--device", "abacus"], "device 'abacus' cannot be used"),
    "data": (["--data", "digits"], "--problem brings its own data"),
}


@pytest.mark.parametrize("name", WRONG)
def test_words_that_mean_nothing(name, made, gengap, tmp_path):
    words, says = WRONG[name]
    found = gengap("measure", *BLOBS, "--checkpoint", made, "--quiet", *words)
    assert (found.code, found.out) == (2, "")
    assert found.err.count("\n") == 1
    assert found.err.startswith("gengap: ")
    assert says in found.err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_network(made, gengap, tmp_path):
    torch.save(normed().state_dict(), "other.pt")
    found = gengap("measure", *BLOBS, "--checkpoint", "other.pt", "--quiet")
    assert found.code == 2
    assert "other.pt lacks '2.weight' and 1 more of the network" in found.err or "holds '1." in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt"]


def test_a_text_file_is_no_checkpoint(gengap, tmp_path):
    (tmp_path / "notes.txt").write_text("hello\nthis is a text\n", encoding="utf-8")
    found = gengap("measure", *BLOBS, "--checkpoint", "notes.txt", "--quiet")
    assert found.code == 2
    assert "notes.txt is neither a safetensors file nor weights that torch.save wrote; save " in found.err


def test_the_help_names_every_group(gengap):
    words = " ".join(gengap("measure", "--help").out.replace("│", " ").split())
    assert "Groups: loss, distance, sharpness, hessian, noise, landscape, evidence, reparametrisation." in words


def test_ctrl_c_keeps_what_was_finished(made, gengap, tmp_path):
    words = ["measure", "--problem", "cli_problems:slow", "--only", "loss,sharpness", "--json"]
    run = gengap("train", "--problem", "cli_problems:slow", "--batch-size", 20, "--steps", 2, "--out", "run", "--quiet")
    assert run.code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "gengap", *words, "--checkpoint", "run", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "CLI_SECONDS": "0.1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while not (tmp_path / "out" / "measures" / "test.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("gengap: interrupted in 'Sharpness in the box'; 2 of ")
    assert err.rstrip().endswith("finished measures are kept in out, go on with --resume")
    document = json.loads(out)
    assert {m["name"] for m in document["measures"]} == {"train", "test"}
    assert document == json.loads((tmp_path / "out" / "measure.json").read_text(encoding="utf-8"))
    assert "Not finished: interrupted in" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Traceback" not in err
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out" / "measures").iterdir()}
    resumed = gengap(*words, "--checkpoint", "run", "--out", "out", "--resume")
    assert resumed.code == 0
    assert kept == {name: (tmp_path / "out" / "measures" / name).read_bytes() for name in kept}
    assert {m["state"] for m in resumed.json()["measures"]} == {"done"}
