"""Files of weights, read so that nothing in them can run: safetensors, or what torch.load takes with weights_only."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile

SAVE = "save model.state_dict() with safetensors.torch.save_file, and name that file"
UNDER = ("state_dict", "model_state_dict", "model", "module")  # where training loops put a state_dict
ENDS = (("params", "initial_params"), ("final", "initial"))  # of gengap train --out, and of a run of a store
ONGOING, RUN_STATE = "checkpoint", "gengap.checkpoint/1"


def read_end(path: Path) -> dict[str, Tensor]:
    """Read the weights and buffers at the end of a run.

    Args:
        path: a file, or a folder that `gengap train --out` or a store (`runs/<key>`) wrote.

    Returns:
        Tensors by the names they have in the file.

    Raises:
        BadInput: there is nothing of the kind, or reading it would run code.
        DamagedFile: the file is not whole.
    """
    folder = path if path.is_dir() else path.parent
    for final, _ in ENDS:
        own = folder / f"{final}.safetensors"
        if own.exists() and path in {folder, own}:
            buffers = folder / "buffers.safetensors"
            return {**read_file(own), **(read_file(buffers) if buffers.exists() else {})}
    if path.is_dir():
        path = folder / f"{ONGOING}.safetensors"
        if not path.exists():
            raise BadInput(
                f"{folder} holds no weights (params.safetensors or final.safetensors); name a folder that gengap train --out "
                f"wrote, runs/<key> of a store, or a file"
            )
    return read_file(path)


def read_start(path: Path) -> dict[str, Tensor] | None:
    """Read the weights that a run began with, where they lie beside those it ended with; None where they do not."""
    folder = path if path.is_dir() else path.parent
    for final, initial in ENDS:
        if path in {folder, folder / f"{final}.safetensors"} and (folder / f"{initial}.safetensors").exists():
            return read_file(folder / f"{initial}.safetensors")
    state = folder / f"{ONGOING}.safetensors"
    if path in {folder, state} and state.exists():
        return safetensors(state, "initial/") or None
    return None


def read_file(path: Path) -> dict[str, Tensor]:
    """Read one file of weights.

    Args:
        path: a safetensors file, or a state_dict that torch.save wrote, by itself or under a usual key.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        BadInput: it is no such file, or reading it would run code.
        DamagedFile: it is not whole.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise BadInput(
            f"cannot read the checkpoint {path}: {error.strerror}; name a file or folder of weights"
        ) from error
    if path.suffix == ".safetensors" or head[8:9] == b"{":  # after the length of the header, a JSON object
        return safetensors(path)
    if path.suffix in {".py", ".sh", ".ipynb"}:
        raise BadInput(f"{path} is a program and no weights; {SAVE}")
    if not head:
        raise DamagedFile(f"{path} is empty; copy the checkpoint again")
    refuse_programs(path)
    return state_dict(unpickled(path), path)


def safetensors(path: Path, part: str = "model/") -> dict[str, Tensor]:
    """Read a safetensors file; of one that keeps the state of an ongoing run, only one part.

    Args:
        path: the file.
        part: "model/" or "initial/".

    Returns:
        Tensors by name.

    Raises:
        DamagedFile: it is not whole.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if (file.metadata() or {}).get("format") != RUN_STATE:
                return {name: file.get_tensor(name) for name in names}
            return {name.removeprefix(part): file.get_tensor(name) for name in names if name.startswith(part)}
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path} is not a whole safetensors file ({error}); copy it again") from error


def refuse_programs(path: Path) -> None:
    """Refuse archives that hold a network's code beside its weights.

    Args:
        path: any file.

    Raises:
        BadInput: it is a TorchScript or an exported program.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        inside = [name.partition("/")[2] or name for name in archive.namelist()]
    if any(name.startswith("code/") or name == "constants.pkl" for name in inside):
        raise BadInput(f"{path} is a TorchScript archive, which holds a program beside its weights; {SAVE}")
    if not any(name.endswith("data.pkl") for name in inside):
        raise BadInput(f"{path} is a zip archive that torch.save did not write; {SAVE}")


def unpickled(path: Path) -> Any:
    """Read what torch.save wrote, tensors and plain values only.

    Args:
        path: the file.

    Returns:
        What was saved.

    Raises:
        BadInput: it holds anything else, which would run code.
        DamagedFile: it is not whole.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols: what cannot be read is an error anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found or is_pickle(path):
            what = f"a pickled {found[1]}" if found else "pickled objects"
            raise BadInput(f"{path} holds {what}, and reading that would run code from the file; {SAVE}") from error
        raise BadInput(f"{path} is neither a safetensors file nor weights that torch.save wrote; {SAVE}") from error
    except Exception as error:  # of a damaged file, the reader raises whatever its bytes lead to
        if not (zipfile.is_zipfile(path) or is_pickle(path)):
            raise BadInput(f"{path} is neither a safetensors file nor weights that torch.save wrote; {SAVE}") from error
        reason = str(error).partition(". ")[0] or type(error).__name__
        raise DamagedFile(f"{path} is not a whole checkpoint ({reason}); copy it again") from error


def is_pickle(path: Path) -> bool:
    """Tell whether a file begins as pickles of protocol 2 and later do."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def state_dict(saved: Any, path: Path) -> dict[str, Tensor]:
    """Find the state_dict in what a training loop saved.

    Args:
        saved: the state_dict, or a mapping that has it under a usual key, at most two of them deep.
        path: of the file, for the message.

    Returns:
        Its tensors by name; what a module keeps beside them (`_extra_state`) is left out.

    Raises:
        BadInput: there is none.
    """
    inner = saved
    for _ in range(3):
        if not isinstance(inner, Mapping):
            break
        tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
        others = [name for name in inner if name not in tensors and not str(name).endswith("_extra_state")]
        if tensors and not others:
            return tensors
        inner = next((inner[key] for key in UNDER if isinstance(inner.get(key), Mapping)), None)
    keys = f" with the keys {', '.join(map(repr, list(saved)[:6]))}" if isinstance(saved, Mapping) else ""
    raise BadInput(
        f"{path} holds a {type(saved).__name__}{keys} and no state_dict, by itself or under one of {', '.join(UNDER)}; {SAVE}"
    )
