"""Weights on disk: safetensors files, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gengap.core.errors import DamagedFile
from gengap.core.files import whole_file

Arrays = Mapping[str, NDArray[Any]]


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write named arrays to one file."""
    with whole_file(path) as part:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, part)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read named arrays.

    Args:
        path: a safetensors file.

    Returns:
        The arrays by name.

    Raises:
        DamagedFile: the file is missing or not whole.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedFile(
            f"the weights in {path} cannot be read ({error}); copy the file back, or make the runs again in another folder"
        ) from error
