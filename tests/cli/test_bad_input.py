"""What a user gets wrong: one sentence, code 2, and nothing written. Oracle: the folder before and after."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("GENGAP_DATA", "absent")).absolute()
BLOBS = ["--problem", "cli_problems:blobs"]
SIZES = ["--small", "4", "--large", "40"]


def everything(root):
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.fixture
def refused(gengap, tmp_path):
    """The command fails as it should."""

    def check(*words, says):
        before = everything(tmp_path)
        found = gengap(*words)
        assert found.code == 2, found.err
        assert found.out == ""
        lines = found.err.splitlines()
        assert len(lines) == 1, found.err
        assert lines[0].startswith("gengap: ")
        assert says in lines[0]
        assert everything(tmp_path) == before

    return check


NAMES = {
    "data": (["--data", "mnits"], "no data set called 'mnits'; known are: digits"),
    "network": (["--network", "resnet"], "no network called 'resnet'; known are: mlp"),
    "loss": (["--loss", "hinge"], "no loss called 'hinge'"),
    "optimizer": ([*BLOBS, "--optimizer", "lamp", "--lr", "1"], "optimizer is 'lamp'"),
    "no root": (["--data", "mnist"], "no data root was given: pass --data-root DIR"),
    "empty root": (["--data", "mnist", "--data-root", "nowhere"], "run `gengap data fetch mnist --data-root nowhere`"),
    "network that does not fit": (["--data", "digits", "--network", "keskar-f1"], "does not take inputs of shape"),
    "images for vectors": (["--data", "gaussian-random", "--network", "convnet"], "convnet"),
    "module": (["--problem", "no_such_module:f"], "cannot import 'no_such_module'"),
    "function": (["--problem", "cli_problems:absent"], "has no function 'absent'"),
    "form": (["--problem", "cli_problems"], "write it as package.module:function"),
    "something else": (["--problem", "cli_problems:not_a_problem"], "returned a dict; it must return a gengap.Problem"),
    "classes": (["--problem", "cli_problems:one_class_too_many"], "has 2 outputs, but a label of the train split is 2"),
    "shape": (["--problem", "cli_problems:wrong_shape"], "does not take inputs of shape (8, 2)"),
    "both": ([*BLOBS, "--data", "digits"], "--problem brings its own data"),
    "train size": (["--data", "digits", "--train-size", "5000"], "train_size is 5000"),
    "no train size": (["--data", "digits", "--train-size", "0"], "train_size is 0"),
    "cut": ([*BLOBS, "--train-size", "0"], "--problem brings its own data"),
    "negative lr": ([*BLOBS, "--lr", "-0.1"], "lr is -0.1"),
    "no lr at all": ([*BLOBS, "--lr", "0"], "lr is 0.0"),
    "lr": ([*BLOBS, "--optimizer", "sgd"], "lr is missing; sgd has no learning rate that suits every problem"),
    "nan": ([*BLOBS, "--lr", "nan"], "lr is nan"),
    "budgets": ([*BLOBS, "--epochs", "2", "--steps", "3"], "more than one budget was given"),
    "momentum": ([*BLOBS, "--momentum", "0.9"], "and sgd, not to adam; leave them out"),
    "schedule": ([*BLOBS, "--schedule", "poly"], "schedule is"),
    "device": ([*BLOBS, "--device", "abacus"], "device 'abacus' cannot be used"),
    "recipe": ([*BLOBS, "--recipe", "absent.json"], "cannot read the recipe absent.json"),
    "pieces": ([*BLOBS, "--micro-batch", "50"], "micro_batch 50 is larger than batch_size"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["compare", "train"])
def test_words_that_mean_nothing(command, name, refused):
    words, says = NAMES[name]
    sizes = SIZES if command == "compare" and BLOBS[0] in words else []
    refused(command, *words, *sizes, "--out", "out", says=says)


COMPARE = {
    "order": (["--small", "8", "--large", "4"], "the small batch is 8 and the large batch 4 of 40 samples"),
    "equal": (["--small", "8", "--large", "8"], "the small batch is 8 and the large batch 8"),
    "too large": (["--small", "8", "--large", "41"], "batch_size is 41, but there are only 40 training samples"),
    "share": (["--small", "8", "--large", "200%"], "batch_size is '200%'"),
    "text": (["--small", "few", "--large", "8"], "batch_size is 'few'"),
    "none": (["--small", "0", "--large", "8"], "batch_size is 0"),
    "radius": ([*SIZES, "--radius", "-1"], "radius is -1"),
    "search": ([*SIZES, "--search", "best"], "search is 'best'"),
    "statistics": ([*SIZES, "--batch-norm", "none"], "batch_norm is 'none'"),
    "points": ([*SIZES, "--points", "1"], "points is 1"),
}


@pytest.mark.parametrize("name", COMPARE)
def test_comparisons_that_cannot_be_made(name, refused):
    words, says = COMPARE[name]
    refused("compare", *BLOBS, *words, "--out", "out", says=says)


def test_a_batch_larger_than_the_training_set(refused):
    refused("train", *BLOBS, "--batch-size", 41, "--out", "out", says="batch_size is 41, but there are only 40")


RECIPES = {
    "r.json": ('{"lr": 0.1,', "neither valid JSON"),
    "r.toml": ("lr = = 1", "valid TOML"),
    "list.json": ("[1, 2]", "holds a list; a recipe file holds a table of fields"),
    "field.json": ('{"learning_rate": 1}', "has no field 'learning_rate'; did you mean 'lr'?"),
    "latin.json": (b"\xff\xfe", "neither valid JSON"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_files_that_cannot_be_used(name, refused, tmp_path):
    text, says = RECIPES[name]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    refused("compare", *BLOBS, *SIZES, "--recipe", name, "--out", "out", says=says)


def idx(dimensions, content):
    return struct.pack(f">BBBB{len(dimensions)}I", 0, 0, 8, len(dimensions), *dimensions) + content


@pytest.fixture
def mnist(tmp_path):
    """A tiny MNIST in files, of the right names but not of the right size."""
    folder = tmp_path / "root" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, size in (("train", 60_000), ("t10k", 10_000)):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx([size, 28, 28], bytes(size * 784)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx([size], bytes(size)))
    return folder


def test_a_file_that_is_cut(refused, mnist):
    file = mnist / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-10])
    refused("compare", "--data", "mnist", "--data-root", "root", "--out", "out", says="train-labels-idx1-ubyte")


def test_labels_out_of_range(refused, mnist):
    file = mnist / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x0b")
    refused("compare", "--data", "mnist", "--data-root", "root", "--out", "out", says="11")


@pytest.mark.skipif(not (ROOT / "cifar-10-batches-py").exists(), reason="GENGAP_DATA names no folder with CIFAR-10")
def test_a_network_for_other_images(refused):
    words = ["--data", "cifar-10", "--network", "keskar-f1", "--data-root", ROOT]
    refused(
        "compare", *words, "--out", "out", says="keskar-f1 on cifar-10 does not take inputs of shape (8, 3, 32, 32)"
    )


@pytest.mark.parametrize("command", ["compare", "train"])
def test_out_that_is_a_file(command, refused, tmp_path):
    (tmp_path / "file").write_text("precious")
    sizes = SIZES if command == "compare" else []
    for out in ("file", "file/below"):
        refused(command, *BLOBS, *sizes, "--out", out, "--epochs", 100_000, says="choose")


@pytest.mark.parametrize("command", ["compare", "train"])
def test_out_where_nothing_can_be_made(command, refused):
    sizes = SIZES if command == "compare" else []
    refused(command, *BLOBS, *sizes, "--out", "/proc/gengap", "--epochs", 100_000, says="/proc/gengap")


def test_results_are_not_mixed_by_accident(refused, gengap, done, tiny, tmp_path):
    shutil.copytree(done.folder, tmp_path / "old")
    refused("compare", *BLOBS, *tiny, "--out", "old", says="old holds results already; go on with them by --resume")
    refused("reproduce", "old/study.toml", "--out", "old", says="old holds results already")
    gengap("train", *BLOBS, "--steps", 1, "--out", "run")
    refused("train", *BLOBS, "--steps", 1, "--out", "run", says="run holds a run already; go on with it by --resume")


def test_reports_of_nothing(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "absent"):
        refused("report", folder, says=f"{folder} holds no comparison")
        refused("list", "runs", folder, says=f"{folder} holds no results")


DAMAGE = {"text": b"this is not a database, not at all\n" * 100, "cut": None, "zeros": bytes(8192)}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_ledger(kind, refused, done, tiny, tmp_path):
    shutil.copytree(done.folder, tmp_path / "old")
    ledger = tmp_path / "old" / "ledger.sqlite"
    ledger.write_bytes(DAMAGE[kind] or ledger.read_bytes()[:5000])
    if kind == "zeros":
        for other in (tmp_path / "old").glob("ledger.sqlite-*"):
            other.unlink()
    refused("report", "old", says="cannot be used as a ledger")
    refused("list", "runs", "old", says="cannot be used as a ledger")
    refused("compare", *BLOBS, *tiny, "--out", "old", "--resume", says="cannot be used as a ledger")


def test_a_damaged_study_file(refused, done, tmp_path):
    shutil.copytree(done.folder, tmp_path / "old")
    (tmp_path / "old" / "study.toml").write_text("title = ")
    refused("report", "old", says="study.toml is not valid TOML")


def test_weights_that_are_gone(gengap, done, tmp_path, tiny):
    shutil.copytree(done.folder, tmp_path / "old")
    for file in (tmp_path / "old" / "runs").glob("*/final.safetensors"):
        file.write_bytes(file.read_bytes()[:40])
    words = [*BLOBS, *tiny, "--seeds", 2, "--out", "old", "--resume", "--radius", 0.01]
    found = gengap("compare", *words)
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "final.safetensors cannot be read" in found.err


def study(problem='factory = "cli_problems:blobs"', recipe="lr = 1", grid="batch_size = [8, 16]"):
    recipe = f"recipe = {{ {recipe}, budget = {{ epochs = 1 }} }}"
    return f'title = "x"\nproblem = {{ {problem} }}\n{recipe}\ngrid = {{ {grid} }}\n'


STUDIES = {
    "no TOML": ("title = ", "is not valid TOML"),
    "field": (study() + "recepe = 1\n", "has no field 'recepe'"),
    "title": ("[problem]\ndata = 'digits'\n[recipe]\n[grid]\n", "needs the field 'title'"),
    "recipe": (study(recipe="lr = -1"), "lr is -1"),
    "grid": (study(grid="size = [8, 16]"), "grid has no recipe field 'size'"),
    "python": (study(problem='name = "mine"'), "'mine' was made in a Python program"),
    "one size": (study(grid="batch_size = [8]"), "a comparison needs two batch sizes; this study has [8]"),
    "three sizes": (study(grid="batch_size = [4, 8, 40]"), "needs two batch sizes; this study has [4, 8, 40]"),
    "one in two words": (study(grid='batch_size = [4, "10%"]'), "needs two batch sizes; this study has [4]"),
    "more": (study(recipe="momentum = 0.5", grid="batch_size = [4, 8], lr = [1, 2]"), "this study also varies lr"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_studies_that_cannot_be_run(name, refused, tmp_path):
    text, says = STUDIES[name]
    (tmp_path / "study.toml").write_text(text)
    refused("reproduce", "study.toml", "--out", "out", says=says)


def test_a_study_that_is_not_there(refused):
    refused("reproduce", "absent.toml", says="cannot read the study absent.toml")


def test_a_fetch_of_something_unknown(refused):
    refused("data", "fetch", "imagenet", says="imagenet")


def test_a_report_that_cannot_be_written(refused, done, tmp_path):
    (tmp_path / "file").write_text("precious")
    refused("report", done.folder, "--out", "file", says="cannot write")


def test_a_checkpoint_of_another_run(refused, gengap):
    gengap("train", *BLOBS, "--steps", 1, "--out", "run")
    refused("train", *BLOBS, "--steps", 2, "--out", "run", "--resume", says="belongs to another recipe")


def test_usage_has_code_2_as_well(gengap):
    for words in (["compare", "--seeds", "0"], ["compare", "--what"], ["nothing"], ["compare", "--lr", "much"]):
        found = gengap(*words)
        assert found.code == 2
        assert "Traceback" not in found.err
        assert json.dumps(found.out) == '""'
