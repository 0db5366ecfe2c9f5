"""Oracle: files packed with `struct` from the published format, and the well-known moments of the real MNIST."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.idx import fashion_mnist, mnist, mnist_autoencoder, read_idx

# type byte, struct letter, numpy type: written down a second time, from the format's page
TYPES = [
    (0x08, "B", "u1"),
    (0x09, "b", "i1"),
    (0x0B, "h", "i2"),
    (0x0C, "i", "i4"),
    (0x0D, "f", "f4"),
    (0x0E, "d", "f8"),
]


def packed(code, letter, values):
    """Write every number by itself: slow, and shares nothing with the reader."""
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, code, values.ndim]) + sizes + b"".join(struct.pack(f">{letter}", x) for x in values.flat)


def pixels(*shape):
    return (np.arange(np.prod(shape)) % 251).astype("u1").reshape(shape)


def write_set(root, folder="MNIST", *, compress=False, **changed):
    """Write a set of 5 training and 3 test samples; `changed` replaces the bytes of one file."""
    contents = {
        "train-images-idx3-ubyte": packed(0x08, "B", pixels(5, 28, 28)),
        "train-labels-idx1-ubyte": packed(0x08, "B", np.array([3, 1, 9, 0, 9], "u1")),
        "t10k-images-idx3-ubyte": packed(0x08, "B", pixels(3, 28, 28)),
        "t10k-labels-idx1-ubyte": packed(0x08, "B", np.array([7, 0, 2], "u1")),
    }
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, content in contents.items():
        content = changed.get(name.replace("-", "_"), content)
        if compress:
            (raw / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (raw / name).write_bytes(content)
    return raw


@st.composite
def any_array(draw):
    code, letter, dtype = draw(st.sampled_from(TYPES))
    shape = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
    return code, letter, draw(arrays.arrays(dtype, shape))


@settings(deadline=None)  # slow machines stall
@given(example=any_array(), compress=st.booleans())
def test_every_type_and_shape_comes_back(tmp_path_factory, example, compress):
    code, letter, values = example
    file = tmp_path_factory.mktemp("idx") / "file"
    raw = packed(code, letter, values)
    file.write_bytes(gzip.compress(raw) if compress else raw)
    found = read_idx(file)
    assert found.shape == values.shape
    assert found.dtype == values.dtype
    assert found.dtype.isnative
    assert found.flags.writeable
    assert np.array_equal(found, values, equal_nan=values.dtype.kind == "f")


@settings(deadline=None)  # slow machines stall
@given(st.binary(max_size=40).map(lambda tail: b"\0\0" + tail) | st.binary(max_size=20))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path_factory, raw):
    file = tmp_path_factory.mktemp("idx") / "file"
    file.write_bytes(raw)
    said = f"{file} is read"
    try:
        read_idx(file)
    except DamagedFile as error:
        said = str(error)
    assert str(file) in said
    assert "\n" not in said


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_a_file_cut_anywhere_is_refused(tmp_path, compress):
    whole = packed(0x0B, "h", np.arange(6, dtype="i2").reshape(2, 3))
    whole = gzip.compress(whole) if compress else whole
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(DamagedFile, match=r"truncated|damaged|not an IDX"):
            read_idx(tmp_path / "cut")


BROKEN = {
    "wrong magic": (b"\x89PNG\0\0\0\0", "begins with 89 50 4e 47"),
    "wrong type": (b"\0\0\x0a\x01" + bytes(4), "begins with 00 00 0a 01"),
    "no dimensions": (b"\0\0\x08\0", "promises 0 dimensions"),
    "too many dimensions": (b"\0\0\x08\xff" + bytes(4 * 255), "promises 255 dimensions"),
    "impossible shape": (b"\0\0\x08\x04" + bytes(4) + b"\xff" * 12, "impossible shape"),
    "ends in the sizes": (b"\0\0\x08\x03" + bytes(8), "within the sizes of its 3 dimensions"),
    "truncated": (packed(0x08, "B", pixels(10))[:-3], "promises 10 bytes .* and 7 are there"),
    "trailing": (packed(0x08, "B", pixels(10)) + b"\0\0", "2 trailing bytes after the 10"),
    "truncated gzip": (gzip.compress(packed(0x08, "B", pixels(999)))[:-9], "end in the middle"),
    "corrupt gzip": (gzip.compress(b"")[:10] + b"\xff" * 40, "damaged gzip"),
    "wrong gzip sum": (gzip.compress(packed(0x08, "B", pixels(99)))[:-8] + bytes(8), "damaged gzip"),
}


@pytest.mark.parametrize(("raw", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_says_what_is_wrong(tmp_path, raw, says):
    (tmp_path / "file.gz").write_bytes(raw)
    with pytest.raises(DamagedFile, match=says):
        read_idx(tmp_path / "file.gz")


def test_a_file_that_is_not_there_or_no_file(tmp_path):
    with pytest.raises(MissingData, match="there is no file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(BadInput, match="cannot read"):
        read_idx(tmp_path)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("load", "folder", "name"), [(mnist, "MNIST", "mnist"), (fashion_mnist, "FashionMNIST", "fashion-mnist")]
)
def test_a_set_becomes_inputs_and_targets(tmp_path, load, folder, name, compress):
    write_set(tmp_path, folder, compress=compress)
    found = load(tmp_path)
    assert (found.name, found.classes) == (name, 10)
    inputs, targets = found.train
    assert (inputs.shape, inputs.dtype, targets.dtype) == ((5, 1, 28, 28), torch.float32, torch.int64)
    assert targets.tolist() == [3, 1, 9, 0, 9]
    assert found.test[1].tolist() == [7, 0, 2]
    torch.testing.assert_close(inputs[1, 0, 2, 3].item(), ((784 + 2 * 28 + 3) % 251) / 255, rtol=1e-6, atol=0)


def test_the_target_of_an_autoencoder_is_its_input(tmp_path):
    write_set(tmp_path, "MNIST", compress=True)
    found, images = mnist_autoencoder(tmp_path), mnist(tmp_path)
    assert found.classes == 784
    for split, (inputs, _) in ((found.train, images.train), (found.test, images.test)):
        assert torch.equal(split[0], inputs)
        assert torch.equal(split[1], inputs.reshape(-1, 784))


def test_the_gzipped_file_is_the_one_that_counts(tmp_path):
    raw = write_set(tmp_path, compress=True)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"leftover")
    assert mnist(tmp_path).test[1].tolist() == [7, 0, 2]


DAMAGED_SETS = {
    "label out of range": (
        {"train_labels_idx1_ubyte": packed(0x08, "B", np.array([3, 1, 10, 0, 200], "u1"))},
        "train-labels-idx1-ubyte has label 10 at position 2; labels are 0 to 9",
    ),
    "counts": (
        {"t10k_labels_idx1_ubyte": packed(0x08, "B", np.array([3, 1], "u1"))},
        "holds 3 images and t10k-labels-idx1-ubyte 2 labels",
    ),
    "labels for images": ({"train_images_idx3_ubyte": packed(0x08, "B", pixels(5))}, r"of shape \(5,\); images are"),
    "images for labels": (
        {"train_labels_idx1_ubyte": packed(0x08, "B", pixels(5, 1))},
        r"of shape \(5, 1\); labels are",
    ),
    "image size": ({"train_images_idx3_ubyte": packed(0x08, "B", pixels(5, 28, 27))}, r"shape \(5, 28, 27\)"),
    "image type": ({"train_images_idx3_ubyte": packed(0x09, "b", np.zeros((5, 28, 28), "i1"))}, "holds int8"),
    "label type": ({"train_labels_idx1_ubyte": packed(0x0C, "i", np.zeros(5, "i4"))}, "holds int32"),
    "empty": ({"train_images_idx3_ubyte": packed(0x08, "B", pixels(0, 28, 28))}, r"shape \(0, 28, 28\)"),
}


@pytest.mark.parametrize(("changed", "says"), DAMAGED_SETS.values(), ids=DAMAGED_SETS)
def test_a_damaged_set_says_which_file_and_what(tmp_path, changed, says):
    write_set(tmp_path, **changed)
    with pytest.raises(DamagedFile, match=says):
        mnist(tmp_path)


def test_a_missing_file_says_where_it_was_looked_for_and_how_to_get_it(tmp_path):
    raw = write_set(tmp_path)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(MissingData, match=r"no t10k-labels-idx1-ubyte.gz or t10k-labels-idx1-ubyte in") as caught:
        mnist(tmp_path)
    assert str(raw) in str(caught.value)
    assert f"gengap data fetch mnist --data-root {tmp_path}" in str(caught.value)
    assert "GENGAP_DATA" in str(caught.value)


def test_no_root_says_how_to_give_one():
    with pytest.raises(MissingData, match=r"fashion-mnist is read from files and no data root was given.*GENGAP_DATA"):
        fashion_mnist(None)


@pytest.mark.skipif(
    not Path(os.environ.get("GENGAP_DATA", "nowhere"), "MNIST").is_dir(),
    reason="GENGAP_DATA names no folder with MNIST",
)
def test_the_real_mnist_has_its_published_moments():
    found = mnist(os.environ["GENGAP_DATA"])
    inputs, targets = found.train
    assert inputs.shape == (60_000, 1, 28, 28)
    assert found.test[0].shape == (10_000, 1, 28, 28)
    assert round(inputs.mean().item(), 4) == 0.1307  # the constants that everybody normalises with
    assert round(inputs.std().item(), 4) == 0.3081
    assert targets.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert found.test[1].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
