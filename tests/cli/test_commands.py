"""What commands print and write. Oracle: the Python calls behind them, and files read with other libraries."""

import json
import shutil
import tomllib

import numpy as np
import pytest
import safetensors.numpy
from cli_problems import blobs

from gengap import Recipe, compare, train
from gengap.cli import app
from gengap.core.catalogue import DATA, NETWORKS
from gengap.core.events import Message

COMMANDS = [
    [],
    ["compare"],
    ["train"],
    ["measure"],
    ["sweep"],
    ["doctor"],
    ["reproduce"],
    ["report"],
    ["list"],
    ["list", "networks"],
    ["list", "data"],
    ["list", "runs"],
]
BLOBS = ["--problem", "cli_problems:blobs"]


@pytest.mark.parametrize("words", [*COMMANDS, ["data"], ["data", "fetch"]], ids=" ".join)
def test_every_command_has_help(words, gengap):
    found = gengap(*words, "--help")
    assert found.code == 0
    assert "Usage:" in found.out
    assert found.err == ""


def test_the_list_of_commands_is_whole():
    import typer

    group = typer.main.get_command(app)
    assert set(group.commands) == {
        "compare",
        "train",
        "measure",
        "doctor",
        "reproduce",
        "report",
        "list",
        "data",
        "sweep",
        "fit",
        "tune",
        "critical-batch",
    }


def test_version(gengap):
    from gengap import __version__

    assert gengap("--version").out == f"gengap {__version__}\n"


def test_compare_gives_one_json_document(done):
    assert done.said.code == 0
    document = done.said.json()
    assert f"report: {done.folder / 'report.html'}" in done.said.err
    recipe = {"optimizer": "sgd", "lr": 0.3, "budget": {"epochs": 2}}
    expected = compare(blobs(), small=4, large=40, seeds=2, recipe=recipe, interpolation={"points": 3})
    for arm in ("small", "large"):
        for name in ("test_accuracy", "train_loss", "sharpness", "distance"):
            assert document[arm][name] == expected.document[arm][name]
    assert document["interpolation"][0]["train_loss"] == expected.document["interpolation"][0]["train_loss"]
    assert {"ledger.sqlite", "report.html", "study.toml", "runs"} <= {path.name for path in done.folder.iterdir()}


def test_compare_says_the_sentence_first(done, gengap):
    found = gengap("report", done.folder, "--out", "again")
    assert found.code == 0
    sentence = done.said.json()["sentence"]
    assert " ".join(found.out.split()).startswith(" ".join(sentence.split()))
    assert (done.folder / "report.html").read_text() != ""


def test_report_gives_the_same_document(done, gengap):
    found = gengap("report", done.folder, "--json", "--out", "again").json()
    assert {**found, "created": 0} == {**done.said.json(), "created": 0}


def test_resume_trains_nothing_again(done, gengap, tiny, tmp_path, monkeypatch):
    from gengap.sweeps import work

    shutil.copytree(done.folder, "copy")
    monkeypatch.setattr(work, "train", None)
    found = gengap("compare", *BLOBS, *tiny, "--seeds", 2, "--out", "copy", "--resume", "--json")
    assert found.code == 0
    assert found.json()["small"] == done.said.json()["small"]


def test_reproduce_gives_the_same_numbers(done, gengap):
    shutil.copy(done.folder / "study.toml", "study.toml")
    found = gengap("reproduce", "study.toml", "--out", "again", "--json", "--quiet")
    assert found.code == 0
    for arm in ("small", "large"):
        for name in ("test_accuracy", "train_accuracy", "test_loss", "sharpness", "distance"):
            assert found.json()[arm][name] == done.said.json()[arm][name]


def test_the_study_file_says_what_was_asked(done):
    study = tomllib.loads((done.folder / "study.toml").read_text())
    assert study["problem"] == {"factory": "cli_problems:blobs"}
    assert study["grid"] == {"batch_size": [4, 40], "seed": [0, 1]}
    assert study["recipe"] == {"optimizer": "sgd", "lr": 0.3, "budget": {"epochs": 2}}


def test_an_arm_that_diverges_is_reported_with_code_1(gengap, tiny):
    found = gengap("compare", "--problem", "cli_problems:explodes", *tiny, "--seeds", 1, "--out", "out", "--json")
    assert found.code == 1
    assert found.json()["large"]["failures"] == [
        "seed 0: diverged at step 0: the loss was inf; try a smaller lr or a warm-up"
    ]
    assert "warning: batch 40, seed 0: diverged at step 0" in found.err
    assert "no seed finished with both" in found.json()["sentence"]
    assert (gengap("list", "runs", "out").out).count("diverged") == 1


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_dry_run_trains_and_writes_nothing(form, gengap, tiny, tmp_path):
    found = gengap("compare", *BLOBS, *tiny, "--seeds", 2, "--dry-run", *form)
    assert found.code == 0
    assert list(tmp_path.iterdir()) == []
    if form:
        work = {row["what"]: row["count"] for row in found.json()["work"]}
        assert work == {"training, batch 4": 2, "training, batch 40": 2, "sharpness": 4, "interpolation": 1}
        assert found.json()["seconds"] > 0
        assert tomllib.loads(found.json()["study"])["grid"]["batch_size"] == [4, 40]
    else:
        assert "nothing was trained" in found.out


def test_a_dry_run_of_what_is_there(done, gengap, tiny):
    files = sorted(done.folder.rglob("*"))
    found = gengap("compare", *BLOBS, *tiny, "--seeds", 3, "--out", done.folder, "--dry-run", "--json")
    assert {row["what"]: row["count"] for row in found.json()["work"]}["training, batch 4"] == 1
    assert sorted(done.folder.rglob("*")) == files


# lists


def test_list_networks_and_data(gengap, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for what, entries in (("networks", NETWORKS), ("data", DATA)):
        assert set(gengap("list", what, "--json").json()) == set(entries)
        table = gengap("list", what).out
        assert all(name in table for name in entries)


def test_list_runs(done, gengap, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = gengap("list", "runs", done.folder, "--json").json()
    assert [(row["recipe"]["batch_size"], row["recipe"]["seed"]) for row in rows] == [(4, 0), (40, 0), (4, 1), (40, 1)]
    table = gengap("list", "runs", done.folder).out
    assert table.count("finished") == 4
    assert all(row["key"] in table for row in rows)


# train


def test_train_keeps_weights_and_history(gengap, tmp_path):
    options = ["--batch-size", 8, "--optimizer", "adam", "--lr", 0.01, "--epochs", 3, "--seed", 4, "--evaluations", 3]
    found = gengap("train", *BLOBS, *options, "--out", "run", "--json")
    assert found.code == 0
    recipe = Recipe(optimizer="adam", lr=0.01, batch_size=8, seed=4, budget={"epochs": 3})
    run = train(blobs(), recipe, evaluations=3)
    assert Recipe(**found.json()["recipe"]) == recipe
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == found.json()
    timeless = [{k: v for k, v in point.items() if k != "seconds"} for point in found.json()["history"]]
    assert timeless == [{k: v for k, v in point.to_dict().items() if k != "seconds"} for point in run.history]
    for file, part in (("params", run.params), ("initial_params", run.initial_params), ("buffers", run.buffers)):
        kept = safetensors.numpy.load_file(tmp_path / "run" / f"{file}.safetensors")
        assert {k: v.tolist() for k, v in kept.items()} == {k: np.asarray(v).tolist() for k, v in part.items()}


def test_train_says_its_run(gengap):
    found = gengap("train", *BLOBS, "--lr", 0.01, "--steps", 4, "--out", "run")
    assert found.code == 0
    assert found.out.startswith("blobs, batch 32, seed 0: finished at step 4; train loss 0.")
    assert found.err == "run: run\n"


def test_train_resumes(gengap, monkeypatch):
    words = ["train", *BLOBS, "--lr", 0.01, "--epochs", 2, "--out", "run", "--json"]
    first = gengap(*words)
    again = gengap(*words, "--resume")
    assert again.json() == first.json()
    assert gengap(*words).code == 2


def test_train_with_a_divergence_has_code_1(gengap):
    found = gengap("train", "--problem", "cli_problems:explodes", "--batch-size", 40, "--lr", 0.1, "--out", "run")
    assert found.code == 1
    assert "diverged at step 0: the loss was inf" in found.out


FILE = {
    "optimizer": "sgd",
    "lr": 0.2,
    "momentum": 0.9,
    "weight_decay": 0.1,
    "batch_size": 5,
    "seed": 3,
    "budget": {"steps": 2},
}


def test_a_recipe_file(gengap, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(FILE))
    used = gengap("train", *BLOBS, "--recipe", "r.json", "--out", "a", "--json").json()["recipe"]
    assert Recipe(**used) == Recipe(**FILE)
    options = ["--batch-size", "25%", "--seed", 0, "--momentum", 0, "--weight-decay", 0, "--epochs", 1]
    used = gengap("train", *BLOBS, "--recipe", "r.json", *options, "--out", "b", "--json").json()["recipe"]
    assert Recipe(**used) == Recipe(optimizer="sgd", lr=0.2, batch_size=10, budget={"epochs": 1})


def test_a_recipe_of_a_run_makes_it_again(gengap, tmp_path):
    first = gengap(
        "train", *BLOBS, "--batch-size", 8, "--seed", 2, "--lr", 0.05, "--steps", 9, "--out", "a", "--json"
    ).json()
    (tmp_path / "r.json").write_text(json.dumps(first["recipe"]))
    again = gengap("train", *BLOBS, "--recipe", "r.json", "--out", "b", "--json").json()
    assert again["recipe"] == first["recipe"]
    assert again["history"][-1]["test_loss"] == first["history"][-1]["test_loss"]


def test_options_reach_the_recipe(gengap, tmp_path):
    (tmp_path / "r.toml").write_text('lr = 0.1\nschedule = { name = "step", milestones = [1.0] }\n')
    options = [
        "--optimizer",
        "sgd",
        "--momentum",
        0.5,
        "--nesterov",
        "--weight-decay",
        0.01,
        "--warmup",
        0.5,
        "--epochs",
        2,
    ]
    more = ["--micro-batch", 4, "--dtype", "float64", "--batch-size", 8]
    used = gengap("train", *BLOBS, "--recipe", "r.toml", *options, *more, "--out", "run", "--json").json()["recipe"]
    expected = Recipe(
        lr=0.1,
        schedule={"name": "step", "milestones": [1.0]},
        momentum=0.5,
        nesterov=True,
        weight_decay=0.01,
        warmup={"epochs": 0.5},
        budget={"epochs": 2},
        micro_batch=4,
        dtype="float64",
        batch_size=8,
    )
    assert Recipe(**used) == expected


def test_until_converged(gengap):
    found = gengap("train", *BLOBS, "--converged", "--lr", 0.5, "--optimizer", "sgd", "--out", "run", "--json").json()
    assert found["recipe"]["budget"]["converged"] == {"patience": 10, "tolerance": 1e-3, "max_epochs": 100}
    assert "converged" in found["outcome"]["reason"]


def test_fetch_passes_on_where_from_and_where_to(gengap, monkeypatch, tmp_path):
    from gengap.data import fetch

    asked = []

    def pretend(name, root, *, base_url, listen):
        asked.append((name, root, base_url))
        listen(Message("fetching"))
        return [root / "a.gz"]

    monkeypatch.setattr(fetch, "fetch", pretend)
    found = gengap("data", "fetch", "mnist", "--data-root", "there", "--url", "http://x/y", "--json")
    assert found.json() == {"name": "mnist", "files": ["there/a.gz"]}
    monkeypatch.setenv("GENGAP_DATA", str(tmp_path / "here"))
    gengap("data", "fetch", "cifar-10")
    assert [(n, str(r), u) for n, r, u in asked] == [
        ("mnist", "there", "http://x/y"),
        ("cifar-10", str(tmp_path / "here"), None),
    ]
