"""Oracle: archives that kaldiio writes, or that the test packs byte by byte in Kaldi's format; splicing by hand."""

import struct

import numpy as np
import pytest
import torch

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.kaldi import read_frames, read_script, timit

ONE = {"a": np.arange(6, dtype="f4").reshape(3, 2), "b": -np.ones((2, 2), "f4")}
STATES = {"a": np.array([5, 5, 6], "i4"), "b": np.array([0, 7], "i4")}


def packed(array):
    """Pack a matrix of floats or a vector of 32-bit integers as Kaldi does."""
    if array.ndim == 2:
        sizes = b"".join(b"\4" + struct.pack("<i", size) for size in array.shape)
        return b"\0BFM " + sizes + array.astype("<f4").tobytes()
    return b"\0B\4" + struct.pack("<i", len(array)) + b"".join(b"\4" + struct.pack("<i", x) for x in array)


def write(folder, name, arrays):
    """Write an archive and the script file that names its places, relative to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content, lines = b"", []
    for key, array in arrays.items():
        content += key.encode() + b" "
        lines.append(f"{key} {name}.ark:{len(content)}")
        content += packed(array)
    (folder / f"{name}.ark").write_bytes(content)
    (folder / f"{name}.scp").write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("kaldiio", reason="kaldiio is not installed")
    for split in ("train", "test"):
        write(tmp_path / "timit" / split, "feats", ONE)
        write(tmp_path / "timit" / split, "pdf", STATES)
    return tmp_path


def test_frames_of_all_utterances(root):
    inputs, targets = read_frames(root / "timit" / "train", context=1)
    assert inputs.tolist() == [
        [0, 1, 0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
        [2, 3, 4, 5, 4, 5],
        [-1] * 6,
        [-1] * 6,
    ]
    assert targets.tolist() == [5, 5, 6, 0, 7]
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)


def test_a_set(root):
    found = timit(root, classes=8)
    assert (found.train[0].shape, found.test[0].shape, found.classes, found.name) == ((5, 18), (5, 18), 8, "timit")
    with pytest.raises(BadInput, match="holds state 7, but classes is 7; choose at least 8"):
        timit(root, classes=7)


def test_what_kaldiio_writes_is_read(root):
    kaldiio = pytest.importorskip("kaldiio")
    folder = root / "other"
    folder.mkdir()
    for name, arrays in (("feats", ONE), ("pdf", STATES)):
        kaldiio.save_ark(str(folder / f"{name}.ark"), arrays, scp=str(folder / f"{name}.scp"))
    for one, other in zip(read_frames(folder), read_frames(root / "timit" / "train"), strict=True):
        assert torch.equal(one, other)


UNFIT = {
    "no alignment": ("pdf", {"a": STATES["a"]}, "has no utterance 'b' of feats.scp"),
    "other length": ("pdf", STATES | {"b": np.array([1], "i4")}, r"shape \(2, 2\) and int32 states of shape \(1,\)"),
    "other width": ("feats", ONE | {"b": np.ones((2, 3), "f4")}, "mixes features of different widths"),
    "no states": ("pdf", ONE, "integers of shape"),
}


@pytest.mark.parametrize(("name", "arrays", "says"), UNFIT.values(), ids=UNFIT)
def test_features_and_alignments_that_do_not_belong_together(root, name, arrays, says):
    write(root / "timit" / "train", name, arrays)
    with pytest.raises(DamagedFile, match=says):
        timit(root)


def test_a_damaged_archive(root):
    path = root / "timit" / "train" / "feats.ark"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedFile, match="is no matrix or vector of Kaldi's"):
        timit(root)


# script files need no kaldiio


@pytest.mark.parametrize("place", ["gunzip -c a.gz |", "| rm -rf x", "cat x.ark|"])
def test_a_command_is_refused(tmp_path, place):
    (tmp_path / "feats.scp").write_text(f"a {place}\n")
    with pytest.raises(BadInput, match="asks to run a command for 'a'"):
        read_script(tmp_path / "feats.scp")


@pytest.mark.parametrize(("text", "says"), [("a\n", "has the line 'a'"), ("", "is empty")])
def test_a_script_without_places(tmp_path, text, says):
    (tmp_path / "feats.scp").write_text(text)
    with pytest.raises(DamagedFile, match=says):
        read_script(tmp_path / "feats.scp")


def test_archives_are_found_beside_the_script_and_from_the_current_folder(tmp_path, monkeypatch):
    write(tmp_path / "data", "feats", ONE)
    own = tmp_path / "data" / "feats.ark"
    assert read_script(tmp_path / "data" / "feats.scp") == {"a": f"{own}:2", "b": f"{own}:{2 + 15 + 24 + 2}"}
    (tmp_path / "data" / "feats.scp").write_text("a data/feats.ark:2\n")
    with pytest.raises(MissingData, match=r"there is no data/feats.ark, which"):
        read_script(tmp_path / "data" / "feats.scp")
    monkeypatch.chdir(tmp_path)
    assert read_script(tmp_path / "data" / "feats.scp") == {"a": "data/feats.ark:2"}


def test_without_kaldiio_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kaldiio", None)
    write(tmp_path / "timit" / "train", "feats", ONE)
    write(tmp_path / "timit" / "train", "pdf", STATES)
    with pytest.raises(BadInput, match="pip install kaldiio"):
        timit(tmp_path)
