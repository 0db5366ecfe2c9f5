"""CIFAR-10 and CIFAR-100, from the authors' python batches.

The batches are pickles, and a pickle may ask to run anything. Nothing that a file names is ever looked up or called
here: the three names that a numpy array needs become inert `Piece`s, and any other name is refused.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile
from gengap.data.root import file_of, read
from gengap.problem.dataset import DataSet

SHAPE = (3, 32, 32)
PIXELS = math.prod(SHAPE)
TRAIN_10 = tuple(f"data_batch_{i}" for i in range(1, 6))
CLASSES_100 = {"fine": 100, "coarse": 20}
# numpy 2 moved `core` to `_core`; the originals, from Python 2, say `core`
PIECES = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy", "ndarray"): "type",
    ("numpy", "dtype"): "dtype",
}


def cifar10(root: str | Path | None = None) -> DataSet:
    """Read CIFAR-10 from `<root>/cifar-10-batches-py`.

    Args:
        root: the data root.

    Returns:
        Inputs of shape (N, 3, 32, 32) in [0, 1] (pixels / 255, nothing else), targets 0 to 9.

    Raises:
        MissingData: no root, or a batch is not there.
        DamagedFile: a batch is not what its format promises, or asks to run code.
    """
    parts = [_read_batch(file_of("cifar-10", root, name), "labels", 10) for name in TRAIN_10]
    train = torch.cat([inputs for inputs, _ in parts]), torch.cat([targets for _, targets in parts])
    test = _read_batch(file_of("cifar-10", root, "test_batch"), "labels", 10)
    return DataSet(train, test, 10, "cifar-10")


def cifar100(root: str | Path | None = None, labels: str = "fine") -> DataSet:
    """Read CIFAR-100 from `<root>/cifar-100-python`.

    Args:
        root: the data root.
        labels: "fine" for the 100 classes, "coarse" for the 20 superclasses.

    Returns:
        Inputs of shape (N, 3, 32, 32) in [0, 1] (pixels / 255, nothing else), targets from 0.

    Raises:
        BadInput: `labels` is neither.
        MissingData: no root, or a file is not there.
        DamagedFile: a file is not what its format promises, or asks to run code.
    """
    if labels not in CLASSES_100:
        raise BadInput(f"there are no {labels!r} labels in cifar-100; choose one of: {', '.join(CLASSES_100)}")
    classes = CLASSES_100[labels]
    train, test = (
        _read_batch(file_of("cifar-100", root, name), f"{labels}_labels", classes) for name in ("train", "test")
    )
    return DataSet(train, test, classes, "cifar-100" if labels == "fine" else "cifar-100 coarse")


def _read_batch(path: Path, key: str, classes: int) -> tuple[Tensor, Tensor]:
    """Read one batch: pixels of shape (N, 3072), the red plane first, and a list of N labels."""
    batch = load_batch(path)
    if not isinstance(batch, dict) or "data" not in batch or key not in batch:
        raise DamagedFile(f"{path} is not a batch of CIFAR: it has no 'data' and {key!r}; delete it and fetch it again")
    pixels = _pixels(batch["data"], path)
    labels = _labels(batch[key], classes, path)
    if len(pixels) != len(labels):
        raise DamagedFile(
            f"{path} holds {len(pixels):,} images and {len(labels):,} labels; delete it and fetch it again"
        )
    inputs = torch.from_numpy(pixels.astype(np.float32)).div_(255).reshape(-1, *SHAPE)
    return inputs, torch.tensor(labels, dtype=torch.int64)


class Piece:
    """What a name in the file stands for: it remembers what was done to it, and does nothing."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.args: tuple[Any, ...] = ()
        self.state: Any = None

    def __call__(self, *args: Any) -> "Piece":
        """Give a piece that remembers the arguments."""
        made = Piece(self.name)
        made.args = args
        return made

    def __setstate__(self, state: Any) -> None:
        """Remember the state."""
        self.state = state


class Refused(pickle.UnpicklingError):
    """The file names something that a batch does not need."""


class BatchUnpickler(pickle.Unpickler):
    """Reads the pickle's own types; every name becomes a `Piece` or is refused."""

    def find_class(self, module_name: str, global_name: str) -> Piece:
        """Give the piece that stands for a name."""
        if (module_name, global_name) not in PIECES:
            raise Refused(f"{module_name}.{global_name}")
        return Piece(PIECES[module_name, global_name])


def load_batch(path: Path) -> Any:
    """Read a pickle without running anything.

    Args:
        path: the file.

    Returns:
        What it holds; arrays are `Piece`s. The byte strings of Python 2 are text, one letter per byte.

    Raises:
        MissingData: there is no such file.
        BadInput: the file cannot be read.
        DamagedFile: it is no pickle, is incomplete, or names anything but the parts of an array.
    """
    raw = read(path)
    try:
        return BatchUnpickler(io.BytesIO(raw), encoding="latin1").load()
    except Refused as error:
        raise DamagedFile(
            f"{path} asks to run code ({error}) and was refused: it is not a batch of CIFAR; "
            f"delete it and fetch it again"
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DamagedFile(f"{path} is damaged or truncated ({error}); delete it and fetch it again") from error


def _pixels(piece: Any, path: Path) -> NDArray[np.uint8]:
    """Make the array that a piece describes: state is (version, shape, dtype, Fortran order, bytes)."""
    match piece:
        case Piece(
            name="array",
            state=(_, (int(count), int(width)), Piece(name="dtype", args=("u1" | "|u1", *_)), False | 0, content),
        ) if count > 0 and width == PIXELS:
            data = content.encode("latin1") if isinstance(content, str) else content
            if isinstance(data, bytes) and len(data) == count * width:
                return np.frombuffer(data, np.uint8).reshape(count, width)
    raise DamagedFile(f"{path} has no pixels of shape (N, {PIXELS}), dtype uint8; delete it and fetch it again")


def _labels(found: Any, classes: int, path: Path) -> list[int]:
    """Check the labels one by one."""
    if not isinstance(found, list):
        raise DamagedFile(f"{path} has no list of labels; delete it and fetch it again")
    for at, label in enumerate(found):
        if type(label) is not int or not 0 <= label < classes:
            raise DamagedFile(f"{path} has label {str(label)[:40]!r} at position {at}; labels are 0 to {classes - 1}")
    return found
