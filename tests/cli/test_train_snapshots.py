"""gengap train --snapshots. Oracle: the Python call, and the files read with another library."""

import numpy as np
import safetensors.numpy
from cli_problems import blobs

from gengap import Recipe, train
from gengap.training.snapshots import Probe

BLOBS = ["--problem", "cli_problems:blobs"]


def test_train_keeps_snapshots(gengap, tmp_path):
    words = ["train", *BLOBS, "--optimizer", "sgd", "--lr", 0.1, "--steps", 20, "--snapshots", 5, "--out", "run"]
    assert gengap(*words).code == 0
    seen = []
    recipe = Recipe(optimizer="sgd", lr=0.1, batch_size=32, budget={"steps": 20})
    train(blobs(), recipe, probe=Probe(seen.append, count=5))
    folder = tmp_path / "run" / "snapshots"
    files = sorted(folder.glob("step-*.safetensors"))
    assert [file.name for file in files] == [f"step-{shot.step:08d}.safetensors" for shot in seen]
    assert [shot.step for shot in seen] == [0, 1, 2, 4, 9, 20]
    for file, shot in zip(files, seen, strict=True):
        kept = safetensors.numpy.load_file(file)
        assert {k: v.tolist() for k, v in kept.items()} == {k: np.asarray(v).tolist() for k, v in shot.params.items()}


def test_without_the_option_nothing_is_kept(gengap, tmp_path):
    assert gengap("train", *BLOBS, "--steps", 2, "--out", "run").code == 0
    assert not (tmp_path / "run" / "snapshots").exists()


def test_one_snapshot_is_too_few(gengap):
    assert gengap("train", *BLOBS, "--steps", 2, "--out", "run", "--snapshots", 1).code == 2
