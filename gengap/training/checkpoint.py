"""The whole state of a run in one safetensors file: what resuming needs to go on to the same bits."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile
from gengap.core.files import whole_file
from gengap.training.ranks import ALONE, Ranks

FORMAT = "gengap.checkpoint/1"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which run a checkpoint belongs to.

    Attributes:
        recipe: key of the resolved recipe.
        problem: fingerprint of the problem.
    """

    recipe: str
    problem: str


def save(path: Path, identity: Identity, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint; the old one stays until the new one is whole.

    Args:
        path: the file.
        identity: of the run.
        numbers: everything that is no tensor, as JSON.
        tensors: by name.

    Raises:
        OutOfSpace: the disk is full; the old checkpoint is still there.
    """
    write(path, {"format": FORMAT, "identity": json.dumps(asdict(identity)), "numbers": json.dumps(numbers)}, tensors)


def write(path: Path, header: dict[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with a header to one file, whole or not at all."""
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as part:
        save_file(apart, part, metadata=header)


def load(path: Path, identity: Identity) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint.

    Args:
        path: the file.
        identity: of the run that wants to go on.

    Returns:
        The numbers and the tensors that were saved.

    Raises:
        DamagedFile: it is not a whole checkpoint.
        BadInput: it belongs to another recipe or problem.
    """
    try:
        header, tensors = read(path)
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path} is not a readable checkpoint ({error}); remove it to start the run anew") from error
    if header.get("format") != FORMAT:
        raise DamagedFile(f"{path} is not a checkpoint of gengap ({FORMAT}); choose another file")
    found = Identity(**json.loads(header["identity"]))
    if found != identity:
        what = "recipe" if found.recipe != identity.recipe else "problem (network, loss or data)"
        raise BadInput(f"{path} belongs to another {what}; remove it, or name another checkpoint file")
    return json.loads(header["numbers"]), tensors


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read what `write` wrote: header and tensors."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def pack_optimizer(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split an optimizer's `state_dict()` into JSON and tensors."""
    numbers: dict[str, Any] = {"param_groups": state["param_groups"], "state": {}}
    tensors: dict[str, Tensor] = {}
    for index, memory in state["state"].items():
        plain = numbers["state"].setdefault(str(index), {})
        for name, value in memory.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain[name] = value
    return numbers, tensors


def unpack_optimizer(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Put back together what `pack_optimizer` split."""
    state: dict[int, dict[str, Any]] = {int(index): dict(plain) for index, plain in numbers["state"].items()}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/", 2)
            state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": numbers["param_groups"]}


def random_state(device: torch.device, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """Read the generators that dropout draws from, those of every process."""
    own = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        own["random/cuda"] = torch.cuda.get_rng_state(device)
    return {of_rank(name, rank): state for name in own for rank, state in enumerate(ranks.gather(own[name]))}


def restore_random_state(tensors: dict[str, Tensor], device: torch.device, ranks: Ranks = ALONE) -> bool:
    """Set the generators back; tell whether this process was there when they were read."""
    here = [of_rank(name, ranks.rank) for name in ("random/cpu", "random/cuda")]
    if here[0] not in tensors:
        return False
    torch.set_rng_state(tensors[here[0]])
    if device.type == "cuda" and here[1] in tensors:
        torch.cuda.set_rng_state(tensors[here[1]], device)
    return True


def of_rank(name: str, rank: int) -> str:
    """Name the state of one process."""
    return f"{name}/{rank}" if rank else name
