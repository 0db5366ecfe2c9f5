"""Oracle: what was put in, in plain dicts and numpy arrays; sqlite3 itself for what lies on the disk."""

import errno
import os
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from ledgers_at_hand import alike, row, weights, whole

from gengap.core import files
from gengap.core.errors import BadInput, DamagedFile, OutOfSpace
from gengap.store.artefacts import load_arrays, save_arrays
from gengap.store.store import LEDGER, Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "results" / "here") as store:
        yield store


def test_a_run_comes_back_as_it_was(store):
    for i in range(3):
        store.add_run(row(i), weights(i))
    assert store.runs() == [row(i) for i in range(3)]
    for i in range(3):
        whole(store, i)
    assert store.run("key9999") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "diverged", "step": 17, "reason": "the loss was nan after 17 updates; lower the learning rate"},
        {"outcome": "failed", "reason": 'a "quoted" reason; DROP TABLE runs; ∇', "history": ()},
        {"history": ({"step": 3, "train_loss": 1e-300, "test_loss": 0.1 + 0.2},)},
        {"environment": {}, "cost": {}, "recipe": {}},
    ],
    ids=["diverged", "words", "digits", "empty"],
)
def test_every_field_comes_back(store, changes):
    store.add_run(row(**changes), {})
    assert store.run("key0000") == row(**changes)


def test_history_is_in_the_order_of_steps(store):
    points = tuple({"step": s} for s in (100, 20, 3))
    store.add_run(row(history=points), {})
    assert [point["step"] for point in store.run("key0000").history] == [3, 20, 100]


def test_a_run_made_again_replaces_the_first(store):
    store.add_run(row(0), weights(0))
    store.add_run(row(1), weights(1))
    again = row(0, outcome="diverged", history=({"step": 7},))
    store.add_run(again, weights(5))
    assert store.run("key0000") == again
    assert len(store.runs()) == 2
    alike(store.weights("key0000", "final"), weights(5)["final"])
    whole(store, 1)


def test_a_finished_run_needs_its_checkpoint_no_more(store):
    path = store.checkpoint("key0000")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half way")
    store.add_run(row(0), weights(0))
    assert not path.exists()


def test_problems_and_notes(store):
    assert store.problem("f" * 32) == {}
    store.add_problem("f" * 32, {"name": "mlp on digits", "parameters": 17226})
    assert store.problem("f" * 32) == {"name": "mlp on digits", "parameters": 17226}
    assert store.recall("study") is None
    store.remember("study", {"a": [1, None]})
    store.remember("study", {"a": [2, None]})
    assert store.recall("study") == {"a": [2, None]}


def test_a_measure_is_known_by_its_settings(store):
    settings = {"radius": 1e-3, "search": "robust", "samples": None}
    store.add_measure("key0000", "sharpness", settings, {"percent": 12.5})
    store.add_measure("key0000+key0001", "interpolation", {"points": 25}, {"loss": [1.0, 2.0]})
    turned = dict(reversed(list(settings.items())))
    assert store.measure("key0000", "sharpness", turned) == {"percent": 12.5}
    assert store.measure("key0000+key0001", "interpolation", {"points": 25}) == {"loss": [1.0, 2.0]}
    for subject, name, other in [
        ("key0001", "sharpness", settings),
        ("key0000", "distance", settings),
        ("key0000", "sharpness", {**settings, "radius": 5e-4}),
        ("key0000", "sharpness", {"radius": 1e-3}),
    ]:
        assert store.measure(subject, name, other) is None
    store.add_measure("key0000", "sharpness", settings, {"percent": 13.0})
    assert store.measure("key0000", "sharpness", settings) == {"percent": 13.0}


def test_all_is_there_after_closing(store):
    store.add_run(row(4), weights(4))
    store.add_measure("key0004", "distance", {}, {"from_init": 3.0})
    store.close()
    store.close()
    assert [path.name for path in store.folder.iterdir() if path.name.startswith("ledger")] == [LEDGER]
    with Store(store.folder, create=False) as again:
        whole(again, 4)
        assert again.measure("key0004", "distance", {}) == {"from_init": 3.0}


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_a_copy_of_the_folder_is_a_store(store, tmp_path, closed):
    for i in range(3):
        store.add_run(row(i), weights(i))
    if closed:
        store.close()
    shutil.copytree(store.folder, tmp_path / "elsewhere")
    shutil.rmtree(store.folder / "runs")
    with Store(tmp_path / "elsewhere", create=False) as copy:
        for i in range(3):
            whole(copy, i)
        copy.add_run(row(3), weights(3))
        whole(copy, 3)


def test_the_ledger_is_open_to_other_tools(store):
    store.add_run(row(2), weights(2))
    db = sqlite3.connect(store.folder / LEDGER)
    found = db.execute("SELECT key, outcome, json_extract(recipe, '$.lr') FROM runs").fetchall()
    losses = db.execute("SELECT step, json_extract(point, '$.train_loss') FROM history ORDER BY step").fetchall()
    db.close()
    assert found == [("key0002", "finished", 2.1)]
    assert losses == [(0, 2.0), (50, 2.0 / 51), (100, 2.0 / 101)]


# arrays


@pytest.mark.parametrize(
    "array",
    [
        np.array(7),
        np.zeros((0, 3), np.float32),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(10, dtype=np.float16)[::-2],
        np.array([True, False]),
        np.array([np.nan, np.inf, -0.0]),
        np.uint8([[255]]),
    ],
    ids=["scalar", "empty", "turned", "reversed", "bool", "not finite", "byte"],
)
def test_arrays_of_every_form(tmp_path, array):
    save_arrays(tmp_path / "a.safetensors", {"x": array, "other": np.ones(2)})
    alike(load_arrays(tmp_path / "a.safetensors"), {"x": array, "other": np.ones(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("damage", ["missing", "cut", "text"])
def test_damaged_weights(store, damage):
    store.add_run(row(0), weights(0))
    path = store.folder / "runs" / "key0000" / "final.safetensors"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5] if damage == "cut" else b"hello")
    with pytest.raises(DamagedFile) as caught:
        store.weights("key0000", "final")
    assert str(path) in str(caught.value)
    assert "make the runs again" in str(caught.value)
    assert "\n" not in str(caught.value)


# what cannot be opened


def test_a_folder_without_results(tmp_path):
    with pytest.raises(BadInput, match="holds no results"):
        Store(tmp_path / "nothing", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match=r"cannot make the folder .*taken: .*; choose another"):
        Store(tmp_path / "taken")


@pytest.mark.parametrize("content", [b"this is not a database, it is a text of some length\n" * 50, bytes(4096)])
def test_a_file_that_is_no_database(tmp_path, content):
    (tmp_path / LEDGER).write_bytes(content)
    with pytest.raises(DamagedFile, match="cannot be used as a ledger") as caught:
        Store(tmp_path)
    assert str(tmp_path / LEDGER) in str(caught.value)
    assert (tmp_path / LEDGER).read_bytes() == content


def test_a_ledger_that_is_a_folder(tmp_path):
    (tmp_path / LEDGER).mkdir()
    with pytest.raises(DamagedFile, match="cannot be used as a ledger"):
        Store(tmp_path)


def test_a_database_of_somebody_else(tmp_path):
    db = sqlite3.connect(tmp_path / LEDGER)
    db.execute("CREATE TABLE runs (id INTEGER)")
    db.commit()
    db.close()
    with Store(tmp_path) as store, pytest.raises(DamagedFile, match="cannot be used as a ledger"):
        store.run("key0000")


def test_a_ledger_of_another_version(store):
    store.close()
    db = sqlite3.connect(store.folder / LEDGER)
    db.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    db.commit()
    db.close()
    with pytest.raises(BadInput, match="was written in format 99, this gengap reads 1; use the version that wrote it"):
        Store(store.folder)


# a full disk


def full_after(store, pages):
    """Let the database grow by some pages and no more: SQLite then says that the disk is full."""
    (used,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {used + pages}")


@pytest.mark.parametrize("write", ["run", "measure", "problem"])
def test_a_disk_full_under_the_ledger_leaves_it_as_it_was(store, write):
    store.add_run(row(0), weights(0))
    full_after(store, 2)
    long = "x" * 100_000
    writes = {
        "run": lambda: store.add_run(row(1, history=tuple({"step": s, "note": long} for s in range(3))), weights(1)),
        "measure": lambda: store.add_measure("key0000", "sharpness", {}, {"note": long}),
        "problem": lambda: store.add_problem("f" * 32, {"note": long}),
    }
    with pytest.raises(OutOfSpace, match=r"the disk is full: .* is as it was; free some space") as caught:
        writes[write]()
    assert "\n" not in str(caught.value)
    assert store.runs() == [row(0)]
    assert store.measure("key0000", "sharpness", {}) is None
    assert store.problem("f" * 32) == {}
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.add_run(row(1), weights(1))
    whole(store, 0)
    whole(store, 1)


class Refusing:
    """A connection on which one statement finds the disk full."""

    def __init__(self, db, statement):
        self.db, self.statement = db, statement

    def execute(self, query, *values):
        if query.startswith(self.statement):
            self.statement = "nothing more"
            raise sqlite3.OperationalError("database or disk is full")
        return self.db.execute(query, *values)

    def __getattr__(self, name):
        return getattr(self.db, name)


@pytest.mark.parametrize("statement", ["BEGIN", "DELETE", "INSERT", "COMMIT"])
def test_a_disk_full_at_any_statement(store, statement):
    store.add_run(row(0), weights(0))
    store._db = Refusing(store._db, statement)
    with pytest.raises(OutOfSpace, match="the disk is full"):
        store.add_run(row(1), weights(1))
    assert store.runs() == [row(0)]
    store.add_run(row(2), weights(2))
    assert store.runs() == [row(0), row(2)]


def test_a_disk_full_under_the_weights_leaves_no_row(store, monkeypatch):
    store.add_run(row(0), weights(0))

    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        with pytest.raises(OutOfSpace, match="the disk is full"):
            store.add_run(row(1), weights(1))
    assert store.runs() == [row(0)]
    assert list((store.folder / "runs" / "key0001").iterdir()) == []
    store.add_run(row(1), weights(1))
    whole(store, 1)


def test_an_error_inside_a_transaction_takes_all_back(store):
    def write():
        with store.transaction() as db:
            db.execute("INSERT INTO problems VALUES ('a', '{}')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    store.add_problem("b", {"c": 1})
    assert store._db.execute("SELECT fingerprint FROM problems").fetchall() == [("b",)]


def test_listing_leaves_histories_out_and_filters_by_what_runs_were_trained_with(store):
    """Oracle: the same choice made by Python over the rows as they were put in."""
    rows = [
        row(
            i,
            outcome=outcome,
            problem="pq"[i % 2] * 32,
            recipe={"lr": 0.1 * i, "batch_size": 32 + i // 3, "name": name},
        )
        for i, (outcome, name) in enumerate([("finished", "a"), ("diverged", "b"), ("failed", None)] * 3)
    ]
    for one in rows:
        store.add_run(one, {})
    bare = [replace(one, history=()) for one in rows]
    assert store.listed() == bare
    assert store.listed(outcome="diverged") == [one for one in bare if one.outcome == "diverged"]
    assert store.listed(problem="q" * 32) == bare[1::2]
    assert store.listed(batch_size=33, outcome="finished") == [bare[3]]
    assert store.listed(lr=0.1 * 7) == [bare[7]]
    assert store.listed(name="b") == bare[1::3]
    assert store.listed(name=None) == bare[2::3]
    assert store.listed(batch_size=33.0) == bare[3:6]
    assert store.listed(batch_size="33") == []
    assert store.listed(momentum=0.9) == []
    with pytest.raises(BadInput, match="there is no field"):
        store.listed(**{"a') OR 1": 1})
