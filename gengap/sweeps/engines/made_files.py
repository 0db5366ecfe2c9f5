"""A run that came out, as one file: what a job on another machine leaves for the driver to find."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gengap.core.errors import DamagedFile
from gengap.core.files import whole_file
from gengap.store.rows import RunRow
from gengap.sweeps.work import Made


def write_made(path: Path, made: Made) -> None:
    """Write a run to a file, whole or not at all.

    Args:
        path: the file.
        made: row and weights.

    Raises:
        OutOfSpace: the disk is full.
        BadInput: the folder cannot be written to.
    """
    arrays = {
        f"{which}/{name}": np.asarray(array, order="C")
        for which, part in made.weights.items()
        for name, array in part.items()
    }
    header = {"row": json.dumps(asdict(made.row)), "parts": json.dumps(list(made.weights))}
    with whole_file(path) as part:
        save_file(arrays, part, metadata=header)


def read_made(path: Path) -> Made:
    """Read what `write_made` wrote.

    Args:
        path: the file.

    Returns:
        The run.

    Raises:
        DamagedFile: it is no such file.
    """
    try:
        with safe_open(path, framework="np") as file:
            header, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        row, parts = json.loads(header["row"]), json.loads(header["parts"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"{path} holds no run that can be read ({error}); remove it to make the run anew") from error
    weights: dict[str, dict[str, Any]] = {which: {} for which in parts}
    for name, array in arrays.items():
        which, _, inner = name.partition("/")
        weights[which][inner] = array
    return Made(RunRow(**{**row, "history": tuple(row["history"])}), weights)
