"""Oracle: batches written opcode by opcode as Python 2 did, numpy's own pickles, and the published channel means."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.cifar import cifar10, cifar100

DATA = Path(os.environ.get("GENGAP_DATA", "nowhere"))


def text(value):
    return b"U" + bytes([len(value)]) + value.encode()


def integers(values):
    return b"](" + b"".join(b"J" + struct.pack("<i", x) for x in values) + b"e"


def python2_array(pixels):
    """The opcodes of the real files: numpy.core, dtype('u1', 0, 1), the bytes as a Python 2 string."""
    dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNN" + 2 * b"J\xff\xff\xff\xff"
    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", pixels.shape[1]) + b"\x86"
    content = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()
    make = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    return make + b"(K\x01" + shape + dtype + b"K\x00tb" + b"\x89" + content + b"tb"


def python2_batch(pixels, **labels):
    lists = b"".join(text(key) + integers(values) for key, values in labels.items())
    return b"\x80\x02}(" + text("data") + python2_array(pixels) + lists + b"u."


def image_rows(n, start=0):
    return ((np.arange(n * 3072) + start) % 256).astype("u1").reshape(n, 3072)


def write_ten(root, **changed):
    """Write CIFAR-10 with two images a batch; `changed` replaces the bytes of one batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        content = python2_batch(image_rows(2, i), labels=[i, 9 - i])
        (folder / name).write_bytes(changed.get(name, content))
    return folder


def write_hundred(root):
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    (folder / "train").write_bytes(python2_batch(image_rows(3), fine_labels=[99, 0, 5], coarse_labels=[19, 0, 1]))
    (folder / "test").write_bytes(python2_batch(image_rows(1), fine_labels=[42], coarse_labels=[7]))
    return folder


def test_ten_classes_in_the_order_of_the_batches(tmp_path):
    write_ten(tmp_path)
    found = cifar10(tmp_path)
    inputs, targets = found.train
    assert (found.name, found.classes) == ("cifar-10", 10)
    assert (inputs.shape, inputs.dtype, targets.dtype) == ((10, 3, 32, 32), torch.float32, torch.int64)
    assert targets.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert found.test[1].tolist() == [5, 4]
    # the fourth batch's second image, blue, row 3, column 4
    expected = (3 + 3072 + 2 * 1024 + 3 * 32 + 4) % 256 / 255
    assert inputs[7, 2, 3, 4].item() == pytest.approx(expected, rel=1e-6)


def test_a_hundred_classes_or_their_twenty_superclasses(tmp_path):
    write_hundred(tmp_path)
    fine, coarse = cifar100(tmp_path), cifar100(tmp_path, labels="coarse")
    assert (fine.name, fine.classes, fine.train[1].tolist()) == ("cifar-100", 100, [99, 0, 5])
    assert (coarse.name, coarse.classes, coarse.train[1].tolist()) == ("cifar-100 coarse", 20, [19, 0, 1])
    assert fine.test[1].tolist() == [42]
    assert torch.equal(fine.train[0], coarse.train[0])
    with pytest.raises(BadInput, match="no 'medium' labels in cifar-100; choose one of: fine, coarse"):
        cifar100(tmp_path, labels="medium")


@pytest.mark.parametrize("protocol", [3, 4])
def test_batches_written_by_todays_numpy(tmp_path, protocol):
    content = pickle.dumps({"data": image_rows(2), "labels": [4, 5]}, protocol=protocol)
    assert b"_core" in content or np.__version__.startswith("1.")
    write_ten(tmp_path, test_batch=content)
    inputs, targets = cifar10(tmp_path).test
    assert targets.tolist() == [4, 5]
    assert torch.equal((inputs * 255).round().to(torch.uint8).reshape(2, -1), torch.from_numpy(image_rows(2)))


class Attack:
    """What a hostile file asks for when it is unpickled."""

    def __init__(self, function, *args):
        self.request = function, args

    def __reduce__(self):
        return self.request


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("way", ["call", "in the data", "eval"])
def test_a_file_that_asks_to_run_code_is_refused_and_runs_nothing(tmp_path, protocol, way):
    proof = tmp_path / "ran"
    attack = Attack(os.mkdir, str(proof)) if way != "eval" else Attack(eval, f"__import__('os').mkdir({str(proof)!r})")
    hostile = pickle.dumps({"data": attack, "labels": [1]} if way == "in the data" else attack, protocol=protocol)
    pickle.loads(hostile)  # the attack works on a reader that trusts the file
    assert proof.exists()
    proof.rmdir()
    write_ten(tmp_path, data_batch_3=hostile)
    with pytest.raises(DamagedFile, match=r"data_batch_3 asks to run code \(.*(mkdir|eval)\) and was refused"):
        cifar10(tmp_path)
    assert not proof.exists()


SNEAKY = {
    "a name inside an allowed module": b"\x80\x04\x8c\x05numpy\x8c\x07fromstr\x93.",
    "a dotted path from an allowed name": b"\x80\x04\x8c\x05numpy\x8c\x13ndarray.__reduce__ex\x93.",
    "another module's _reconstruct": b"\x80\x02ccopyreg\n_reconstructor\n.",
    "an extension code": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02U\x01aQ.",
    "an instance of an allowed name": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "attributes for an allowed name": b"\x80\x02cnumpy\nndarray\n}b.",
    "old style instance": b"(inumpy\ndtype\n.",
}


@pytest.mark.parametrize("raw", SNEAKY.values(), ids=SNEAKY)
def test_no_way_around(tmp_path, raw):
    write_ten(tmp_path, data_batch_1=raw)
    with pytest.raises(DamagedFile, match="data_batch_1"):
        cifar10(tmp_path)


good = python2_batch(image_rows(2), labels=[1, 2])
BROKEN = {
    "empty": (b"", "damaged or truncated"),
    "no pickle": (b"<html>not found</html>", "damaged or truncated"),
    "truncated": (good[:3000], "damaged or truncated"),
    "not a dict": (pickle.dumps([1, 2]), "is not a batch of CIFAR"),
    "the other set": (python2_batch(image_rows(1), fine_labels=[1]), "no 'data' and 'labels'"),
    "no array": (pickle.dumps({"data": [1], "labels": [1]}), "no pixels of shape"),
    "width": (python2_batch(image_rows(2)[:, :3071], labels=[1, 2]), "no pixels of shape"),
    "no images": (python2_batch(image_rows(0), labels=[]), "no pixels of shape"),
    "too few bytes": (good.replace(b"M\x02\x00M", b"M\x03\x00M"), "no pixels of shape"),
    "number type": (pickle.dumps({"data": image_rows(2).astype("f4"), "labels": [1, 2]}, 4), "no pixels of shape"),
    "Fortran order": (pickle.dumps({"data": np.asfortranarray(image_rows(2)), "labels": [1, 2]}, 4), "no pixels of"),
    "counts": (python2_batch(image_rows(2), labels=[1]), "holds 2 images and 1 labels"),
    "label too large": (python2_batch(image_rows(2), labels=[1, 10]), "label '10' at position 1; labels are 0 to 9"),
    "negative label": (python2_batch(image_rows(2), labels=[-1, 10]), "label '-1' at position 0"),
    "label of another type": (
        pickle.dumps({"data": image_rows(2), "labels": [1, 2.0]}, 4),
        "label '2.0' at position 1",
    ),
    "labels no list": (pickle.dumps({"data": image_rows(2), "labels": "ab"}, 4), "no list of labels"),
}


@pytest.mark.parametrize(("raw", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_batch_says_what_is_wrong(tmp_path, raw, says):
    write_ten(tmp_path, test_batch=raw)
    with pytest.raises(DamagedFile, match=says) as caught:
        cifar10(tmp_path)
    assert "test_batch" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", range(1, len(good), 487))
def test_a_batch_cut_anywhere_is_refused(tmp_path, length):
    write_ten(tmp_path, data_batch_2=good[:length])
    with pytest.raises(DamagedFile, match="data_batch_2"):
        cifar10(tmp_path)


def test_missing_files_say_where_and_how(tmp_path):
    folder = write_ten(tmp_path)
    (folder / "data_batch_4").unlink()
    with pytest.raises(MissingData, match=r"no data_batch_4 in .*gengap data fetch cifar-10 --data-root"):
        cifar10(tmp_path)
    with pytest.raises(MissingData, match=r"no train in .*cifar-100-python"):
        cifar100(tmp_path)
    with pytest.raises(MissingData, match="no data root was given"):
        cifar10()


@pytest.mark.skipif(not (DATA / "cifar-10-batches-py").is_dir(), reason="GENGAP_DATA names no folder with CIFAR-10")
def test_the_real_ten_have_their_published_means():
    found = cifar10(DATA)
    inputs, targets = found.train
    assert [round(mean, 4) for mean in inputs.mean((0, 2, 3), dtype=torch.float64).tolist()] == [0.4914, 0.4822, 0.4465]
    assert targets.bincount().tolist() == [5000] * 10
    assert found.test[1].bincount().tolist() == [1000] * 10
    assert targets[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]


@pytest.mark.skipif(not (DATA / "cifar-100-python").is_dir(), reason="GENGAP_DATA names no folder with CIFAR-100")
def test_the_real_hundred_have_their_published_means():
    found = cifar100(DATA)
    inputs, targets = found.train
    assert [round(mean, 4) for mean in inputs.mean((0, 2, 3), dtype=torch.float64).tolist()] == [0.5071, 0.4865, 0.4409]
    assert targets.bincount().tolist() == [500] * 100
    assert cifar100(DATA, labels="coarse").train[1].bincount().tolist() == [2500] * 20
