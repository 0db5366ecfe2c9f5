"""gengap sweep: what it prints, writes and refuses. Oracle: the Python call behind it, the folder before and after, and
seconds of a forecast that is only counted."""

import contextlib
import sqlite3
import sys
import tomllib

import pytest

BLOBS = ["--problem", "cli_problems:blobs"]
GRID = ["--batch", "4,9", "--lr", "0.1:0.4:x2", "--seeds", 2, "--budget", "epochs=1", "--validation", 4, "--extend", 0]
SOLO = ["--engine", "solo"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, anywhere):
    folder = tmp_path_factory.mktemp("sweep") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GENGAP_DATA", raising=False)
        return folder, anywhere("sweep", *BLOBS, *GRID, *SOLO, "--out", folder, "--json")


def test_json_is_the_document_of_the_python_call(made):
    from cli_problems import blobs

    from gengap.exploration.sweep import sweep

    folder, said = made
    assert said.code == 0, said.err
    document = said.json()
    grid = {"batch_size": [4, 9], "lr": [0.1, 0.2, 0.4]}
    found = sweep(blobs(), grid, "epochs=1", seeds=2, validation=4, extend=0, engine="solo")
    assert document["format"] == "gengap.sweep/1"
    assert len(document["runs"]) == 12
    assert document["selection"] == "validation"
    assert document["cells"] == found.to_dict()["cells"]
    assert f"report: {folder / 'report.html'}" in said.err
    assert document["command"].startswith("gengap sweep --problem cli_problems:blobs")


def test_the_folder_holds_the_sweep_and_its_report(made):
    folder, _ = made
    written = tomllib.loads((folder / "sweep.toml").read_text())
    assert written["grid"] == {"batch_size": [4, 9], "lr": [0.1, 0.2, 0.4], "seed": [0, 1]}
    assert written["metric"] == "accuracy"
    assert written["problem"] == {"factory": "cli_problems:blobs"}
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.fixture
def unreported(monkeypatch):
    """Leave out the page, whose figures take longer than everything else here."""
    from gengap.report.sweep import page

    monkeypatch.setattr(page, "write_page", lambda document, folder: folder / "report.html")


def test_resumed_it_shows_the_same_without_training(made, gengap, monkeypatch, unreported):
    from gengap.sweeps import work

    folder, _ = made
    monkeypatch.setattr(work, "train", lambda *_, **__: pytest.fail("it was trained again"))
    again = gengap("sweep", folder / "sweep.toml", *SOLO, "--out", folder, "--resume")
    assert again.code == 0, again.err
    first = again.out.splitlines()[0]
    assert first.startswith("Batch ")
    assert "does best on validation" in first
    assert "lost" in again.out  # the table, with runs that diverged


def test_a_dry_run_counts_and_keeps_nothing(gengap, tmp_path):
    found = gengap("sweep", *BLOBS, *GRID, "--dry-run", "--json")
    assert found.code == 0, found.err
    document = found.json()
    assert {row["what"]: row["count"] for row in document["work"]} == {"training, batch 4": 6, "training, batch 9": 6}
    assert document["runs"] == 12
    assert document["most_growth"] == 0
    assert 0 < document["seconds"] < 60
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_counts_what_is_left_and_how_far_grids_may_grow(made, gengap):
    folder, _ = made
    words = [*BLOBS, "--batch", "4,9", "--lr", "0.1:0.4:x2", "--seeds", 3, "--budget", "epochs=1", "--validation", 4]
    found = gengap("sweep", *words, "--extend", 2, "--out", folder, "--dry-run")
    assert found.code == 0, found.err
    assert "6 runs, about" in found.out
    assert "at most 12 more" in found.out
    assert found.out.strip().endswith("nothing was trained")


def test_everything_of_a_grid_can_be_said(gengap):
    words = [
        "--batch",
        "4:8:x2",
        "--lr",
        "0.1,0.3",
        "--lr-follows",
        "sqrt",
        "--momentum",
        "0,0.9",
        "--train-size",
        "10:20:x2",
    ]
    more = ["--seeds", 1, "--seed", 3, "--budget", "steps=2:4:x2", "--grid", "weight_decay=0,0.1", "--select", "loss"]
    rest = [
        "--validation",
        0.2,
        "--extend",
        1,
        "--extend-all",
        "--optimizer",
        "sgd",
        "--nesterov",
        "--set",
        "clip_norm=5",
    ]
    found = gengap("sweep", *BLOBS, *words, *more, *rest[:-3], *rest[-2:], "--evaluations", 3, "--dry-run", "--json")
    assert found.code == 0, found.err
    written = tomllib.loads(found.json()["sweep"])
    assert written["grid"] == {
        "batch_size": [4, 8],
        "lr": [0.1, 0.3],
        "momentum": [0, 0.9],
        "train_size": [10, 20],
        "weight_decay": [0, 0.1],
        "seed": [3],
        "budget": [{"steps": 2}, {"steps": 4}],
    }
    assert written["recipe"] == {"optimizer": "sgd", "clip_norm": 5}
    assert written["lr_follows"] == {"name": "sqrt", "reference_batch": 4}
    assert written["extend"] == {"limit": 1, "all": True}
    assert (written["validation"], written["metric"], written["evaluations"]) == (0.2, "loss", 3)
    assert found.json()["runs"] == 2 * 2 * 2 * 2 * 2 * 2


def test_seeds_and_budgets_may_stand_in_the_grid(gengap):
    words = ["--batch", 4, "--lr", 0.1, "--validation", 4, "--grid", "seed=3,5", "--grid", "budget=steps=1:2:x2"]
    found = gengap("sweep", *BLOBS, *words, "--dry-run", "--json")
    assert found.code == 0, found.err
    written = tomllib.loads(found.json()["sweep"])
    assert written["grid"]["seed"] == [3, 5]
    assert written["grid"]["budget"] == [{"steps": 1}, {"steps": 2}]
    assert "budget" not in written


def test_an_option_wins_over_the_budget_of_a_recipe_file(gengap, tmp_path):
    (tmp_path / "recipe.toml").write_text("momentum = 0.9\n[budget]\nepochs = 7\n")
    words = [
        *BLOBS,
        "--batch",
        4,
        "--lr",
        0.1,
        "--seeds",
        1,
        "--validation",
        4,
        "--recipe",
        "recipe.toml",
        "--dry-run",
        "--json",
    ]
    for more, budget in ([], {"epochs": 7}), (["--budget", "steps=2"], {"steps": 2}):
        found = gengap("sweep", *words, *more)
        assert found.code == 0, found.err
        written = tomllib.loads(found.json()["sweep"])
        assert (written["budget"], written["recipe"]) == (budget, {"momentum": 0.9})


def test_the_list_of_runs_tells_them_apart(made, gengap):
    folder, _ = made
    head, *rows = gengap("list", "runs", folder).out.splitlines()
    assert head.split()[:5] == ["run", "batch", "lr", "momentum", "seed"]
    told = {tuple(row.split()[1:5]) for row in rows}
    assert told == {(b, lr, "0", seed) for b in ("4", "9") for lr in ("0.1", "0.2", "0.4") for seed in ("0", "1")}


def test_failures_end_with_code_1(gengap, tmp_path, unreported):
    found = gengap("sweep", "--problem", "cli_problems:fails", *GRID, *SOLO, "--out", tmp_path / "out")
    assert found.code == 1, found.err
    assert "warning: RuntimeError: not with 9" in found.err
    assert "does best on validation" in found.out


REFUSED = {
    "batch": (["--batch", "8:4:x2"], "grid.batch_size: '8:4:x2' is no ascending range"),
    "budget": (["--budget", "short"], "'short' is no budget; write epochs=30, steps=10000 or converged"),
    "grid": (["--grid", "weight_decay"], "--grid 'weight_decay' sets nothing; write FIELD=VALUE"),
    "field": (["--grid", "colour=red"], "grid has no field 'colour'"),
    "select": (["--select", "speed"], "metric is 'speed'"),
    "rule": (["--lr-follows", "cubic"], "'cubic'"),
    "engine": (["--engine", "cloud"], "engine is 'cloud'; choose one of auto, solo"),
    "workers": (["--engine", "solo", "--workers", "2"], "workers is 2, but the engine solo has none"),
    "option": (["--engine", "pool", "--engine-option", "colour=1"], "the engine 'pool' has no option 'colour'"),
    "device": (["--device", "moon"], "device 'moon' cannot be used"),
    "no rates": (["--optimizer", "adam"], "lr is missing; give its values in grid"),
    "too large": (["--batch", "400,500"], "no batch size of the sweep is left"),
    "whole": (["--batch", "8.5"], "batch_size is 8.5"),
    "counts": (["--train-size", "10,ten"], "grid.train_size: 'ten' is no whole number"),
    "twice": (["--batch", "4", "--grid", "batch_size=9"], "batch_size is in --grid and in an option of its own"),
    "seeds": (["--seeds", "2", "--grid", "seed=3,4"], "seed is in --grid and in an option of its own"),
    "other rates": (["--grid", "optimizer=sgd,adam"], "lr is missing; give its values in grid"),
    "engine option": (["--engine-option", "colour"], "--engine-option 'colour' sets nothing"),
    "names": (["--data", "digits"], "--problem brings its own data, network and loss"),
    "file": (["no.toml"], "no.toml says all of the sweep; leave problem out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_one_sentence(name, gengap, tmp_path):
    words, text = REFUSED[name]
    found = gengap("sweep", *BLOBS, *words)
    assert (found.code, found.out) == (2, ""), found.err
    (line,) = found.err.splitlines()
    assert line.startswith("gengap: ")
    assert text in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in {".toml", ".html"}]


def test_a_folder_with_results_needs_resume(made, gengap):
    folder, _ = made
    found = gengap("sweep", *BLOBS, *GRID, "--out", folder)
    assert found.code == 2
    assert "holds results already; go on with them by --resume" in found.err
    found = gengap("sweep", *BLOBS, *GRID, "--nesterov", "--momentum", "0.9", "--out", folder, "--resume", *SOLO)
    assert found.code == 2
    assert "holds a sweep with other recipe fields" in found.err


def test_ctrl_c_keeps_what_is_finished(gengap, tmp_path, unreported, monkeypatch):
    """The loss presses Ctrl-C by itself, in the middle of a run with batch 9, after those with batch 4 of the first seed."""
    monkeypatch.setattr(sys.modules["cli_problems"].Presses, "armed", True)
    words = ["sweep", "--problem", "cli_problems:presses", *GRID, *SOLO, "--out", tmp_path / "out"]
    said = gengap(*words)
    assert (said.code, said.out) == (130, ""), said.err
    assert said.err.splitlines()[-1].endswith(f"finished runs are kept in {tmp_path / 'out'}, go on with --resume")
    assert count(tmp_path / "out") == 3
    assert gengap(*words, "--resume").code == 0
    assert count(tmp_path / "out") == 12


def count(out):
    """Runs in the ledger, read by SQLite itself."""
    with contextlib.closing(sqlite3.connect(out / "ledger.sqlite")) as db:
        return db.execute("SELECT count(*) FROM runs").fetchone()[0]
