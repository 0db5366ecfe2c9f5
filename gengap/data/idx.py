"""MNIST and Fashion-MNIST, from IDX files in torchvision's layout."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gengap.core.errors import DamagedFile
from gengap.data.root import file_of, read
from gengap.problem.dataset import DataSet

CLASSES = 10
SIDE = 28
GZIP_MAGIC = b"\x1f\x8b"
NUMPY_DIMENSIONS = 32  # numpy 1 stops here, numpy 2 at 64
# the third byte of the magic number, and what the numbers after the header are; IDX is big-endian
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def mnist(root: str | Path | None = None) -> DataSet:
    """Read MNIST from `<root>/MNIST/raw`, each file gzipped or not (the gzipped one is taken where both are there).

    Args:
        root: the data root.

    Returns:
        Inputs of shape (N, 1, 28, 28) in [0, 1] (pixels / 255, nothing else), targets 0 to 9.

    Raises:
        MissingData: no root, or a file is not there.
        DamagedFile: a file is not what its format promises.
    """
    return _read_set("mnist", root)


def mnist_autoencoder(root: str | Path | None = None) -> DataSet:
    """Read MNIST as `mnist` does; the target of an image is itself.

    Args:
        root: the data root.

    Returns:
        Inputs of shape (N, 1, 28, 28) in [0, 1], and targets of shape (N, 784): the same numbers, not a copy.

    Raises:
        MissingData: no root, or a file is not there.
        DamagedFile: a file is not what its format promises.
    """
    images = _read_set("mnist", root)
    train, test = ((inputs, inputs.flatten(1)) for inputs, _ in (images.train, images.test))
    return DataSet(train, test, SIDE * SIDE, "mnist-autoencoder")


def fashion_mnist(root: str | Path | None = None) -> DataSet:
    """Read Fashion-MNIST from `<root>/FashionMNIST/raw`; else as `mnist`.

    Args:
        root: the data root.

    Returns:
        Inputs of shape (N, 1, 28, 28) in [0, 1] (pixels / 255, nothing else), targets 0 to 9.

    Raises:
        MissingData: no root, or a file is not there.
        DamagedFile: a file is not what its format promises.
    """
    return _read_set("fashion-mnist", root)


def read_idx(path: str | Path) -> NDArray[np.generic]:
    """Read one IDX file of any of the format's six number types, gzipped or not.

    Args:
        path: the file; gzip is told from its first bytes, not from its name.

    Returns:
        A writable array in the byte order of the machine, with the shape that the header promises.

    Raises:
        MissingData: there is no such file.
        BadInput: the file cannot be read.
        DamagedFile: wrong magic number, number type or dimensions, fewer or more bytes than promised, or broken gzip.
    """
    path = Path(path)
    raw = _gunzip(read(path), path)
    dtype, shape = _header(raw, path)
    start = 4 + 4 * len(shape)
    have, want = len(raw) - start, math.prod(shape) * dtype.itemsize
    if have < want:
        raise DamagedFile(
            f"{path} is truncated: its header promises {want:,} bytes of shape {shape} and {have:,} are there; "
            f"delete it and fetch it again"
        )
    if have > want:
        raise DamagedFile(
            f"{path} has {have - want:,} trailing bytes after the {want:,} of shape {shape} that its header promises; "
            f"delete it and fetch it again"
        )
    try:
        found = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    except ValueError as error:  # a size of 0 hides a product that numpy cannot hold
        raise DamagedFile(f"{path} promises the impossible shape {shape}; delete it and fetch it again") from error
    return found.astype(dtype.newbyteorder("="))


def _gunzip(raw: bytes, path: Path) -> bytes:
    """Undo gzip where there is one."""
    if not raw.startswith(GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except EOFError as error:
        raise DamagedFile(
            f"{path} is truncated: its gzip data end in the middle; delete it and fetch it again"
        ) from error
    except (OSError, zlib.error) as error:
        raise DamagedFile(f"{path} is a damaged gzip file ({error}); delete it and fetch it again") from error


def _header(raw: bytes, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    """Read type and shape: two zero bytes, the type, the number of dimensions, then each as 32 bits, big-endian."""
    if len(raw) < 4:
        raise DamagedFile(f"{path} is truncated: {len(raw)} bytes are fewer than the 4 of an IDX magic number")
    code, dimensions = raw[2], raw[3]
    if raw[:2] != b"\0\0" or code not in DTYPES:
        raise DamagedFile(f"{path} is not an IDX file: it begins with {raw[:4].hex(' ')}, and no IDX file does")
    if not 1 <= dimensions <= NUMPY_DIMENSIONS:
        raise DamagedFile(f"{path} promises {dimensions} dimensions; 1 to {NUMPY_DIMENSIONS} can be read")
    if len(raw) < 4 + 4 * dimensions:
        raise DamagedFile(f"{path} is truncated: it ends within the sizes of its {dimensions} dimensions")
    sizes = np.frombuffer(raw, ">u4", dimensions, offset=4)
    return np.dtype(DTYPES[code]), tuple(int(size) for size in sizes)


def _read_set(name: str, root: str | Path | None) -> DataSet:
    """Read the four files of a set."""
    return DataSet(_read_split(name, root, "train"), _read_split(name, root, "t10k"), CLASSES, name)


def _read_split(name: str, root: str | Path | None, split: str) -> tuple[Tensor, Tensor]:
    """Read images and labels, and check one against the other."""
    images_file = file_of(name, root, f"{split}-images-idx3-ubyte.gz", f"{split}-images-idx3-ubyte")
    labels_file = file_of(name, root, f"{split}-labels-idx1-ubyte.gz", f"{split}-labels-idx1-ubyte")
    images, labels = _read_images(images_file), _read_labels(labels_file)
    if len(images) != len(labels):
        raise DamagedFile(
            f"{images_file.name} holds {len(images):,} images and {labels_file.name} {len(labels):,} labels in "
            f"{images_file.parent}; they do not belong together, fetch both again"
        )
    return images, labels


def _read_images(path: Path) -> Tensor:
    """Read pixels of shape (N, 28, 28) as inputs of shape (N, 1, 28, 28)."""
    pixels = read_idx(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (SIDE, SIDE) or len(pixels) == 0:
        raise DamagedFile(
            f"{path} holds {pixels.dtype} numbers of shape {pixels.shape}; "
            f"images are uint8 of shape (N, {SIDE}, {SIDE})"
        )
    return torch.from_numpy(pixels).to(torch.float32).div_(255).unsqueeze(1)


def _read_labels(path: Path) -> Tensor:
    """Read labels, each in 0 .. 9."""
    labels = read_idx(path)
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise DamagedFile(
            f"{path} holds {labels.dtype} numbers of shape {labels.shape}; labels are uint8 of shape (N,)"
        )
    targets = torch.from_numpy(labels).to(torch.int64)
    outside = (targets >= CLASSES).nonzero().flatten().tolist()
    if outside:
        at = outside[0]
        raise DamagedFile(f"{path} has label {targets[at]} at position {at}; labels are 0 to {CLASSES - 1}")
    return targets
