"""`gengap.load_checkpoint`: weights from a file, made to fit a network or refused in a sentence."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.problem.problem import Problem
from gengap.problem.weight_files import read_end, read_start

WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "model",
)  # DataParallel and DDP, torch.compile, FSDP, Lightning


class Checkpoint(NamedTuple):
    """The weights of a network, as measures and `problem.loss_function` take them.

    Attributes:
        params: weights by name, tied ones once, frozen ones too.
        buffers: running statistics and other buffers by name.
    """

    params: dict[str, Tensor]
    buffers: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a network is made of.

    Attributes:
        params: its own weights by name, tied ones once.
        buffers: its own buffers by name.
        aliases: every further name of a tied tensor, with the name it has above.
        optional: buffers that a state_dict leaves out.
    """

    params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    optional: frozenset[str]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Weights and buffers."""
        return {**self.params, **self.buffers}


def load_checkpoint(model: nn.Module | Problem, path: str | Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Read the weights of a network from a file; nothing in the file can run.

    Names may carry the prefixes of DataParallel, DDP, FSDP, torch.compile or a Lightning module. Half-precision numbers
    are widened to the network's dtype; double precision stays.

    Args:
        model: the network, or a problem that makes it; not modified.
        path: a safetensors file; a state_dict that torch.save wrote, by itself or under "state_dict",
            "model_state_dict", "model" or "module"; a folder that `gengap train --out` wrote; or `runs/<key>` of a store.
        device: where the tensors go.

    Returns:
        (params, buffers). Buffers that a state_dict leaves out are the network's own.

    Raises:
        BadInput: there is no such file, reading it would run code, or its names or shapes are not the network's.
        DamagedFile: the file is not whole.
    """
    where = Path(path)
    layout = layout_of(model)
    found = fitted(read_end(where), layout, str(where))
    own = {name: value.detach().clone() for name, value in layout.tensors.items() if name in layout.optional}
    placed = {name: value.to(device) for name, value in {**own, **found}.items()}
    return Checkpoint({n: placed[n] for n in layout.params}, {n: placed[n] for n in layout.buffers})


def load_start(
    model: nn.Module | Problem, path: str | Path, *, device: torch.device | str = "cpu"
) -> dict[str, Tensor] | None:
    """Read the weights a run began with, where they are kept beside a checkpoint.

    Args:
        model: the network, or a problem that makes it.
        path: of the checkpoint.
        device: where the tensors go.

    Returns:
        Weights by name, or None where none are kept.

    Raises:
        BadInput: they are not the network's.
    """
    found = read_start(Path(path))
    if found is None:
        return None
    layout = layout_of(model)
    weights = Layout(layout.params, {}, layout.aliases, frozenset())
    return {name: p.to(device) for name, p in fitted(found, weights, f"the start of {path}").items()}


def layout_of(model: nn.Module | Problem) -> Layout:
    """List what a network is made of."""
    module = model.model(seed=0) if isinstance(model, Problem) else model
    params, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    first = {id(tensor): name for name, tensor in [*params.items(), *buffers.items()]}
    every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    aliases = {name: first[id(tensor)] for name, tensor in every if name != first[id(tensor)]}
    saved = {aliases.get(name, name) for name in module.state_dict()}
    return Layout(params, buffers, aliases, frozenset(buffers.keys() - saved))


def fitted(found: Mapping[str, Tensor], layout: Layout, what: str) -> dict[str, Tensor]:
    """Bring tensors of a file into a network's names and dtypes.

    Args:
        found: by the names in the file.
        layout: of the network.
        what: the file, for messages.

    Returns:
        By the network's names; only optional buffers may be missing.

    Raises:
        BadInput: a name is missing, unexpected or contradicted by a tied one, or a shape or a kind differs.
    """
    own = layout.tensors
    named = one_name_each(unwrapped(found, {*own, *layout.aliases}), layout, what)
    if missing := [name for name in own if name not in named and name not in layout.optional]:
        raise BadInput(f"{what} lacks {counted(missing)} of the network; choose a checkpoint of this network")
    if unexpected := [name for name in named if name not in own]:
        raise BadInput(f"{what} holds {counted(unexpected)}, which the network has not; choose a checkpoint of it")
    if odd := [name for name, value in named.items() if value.shape != own[name].shape]:
        shapes = f"{tuple(named[odd[0]].shape)} and not {tuple(own[odd[0]].shape)}"
        raise BadInput(f"{what} has other shapes than the network: {counted(odd)} ({odd[0]!r} is {shapes})")
    return {name: converted(value, own[name], f"{what} holds {name!r}") for name, value in named.items()}


def unwrapped(found: Mapping[str, Tensor], known: set[str]) -> Mapping[str, Tensor]:
    """Take off the prefixes that wrappers of a network put before its names; only those that no network's name needs."""
    for _ in range(len(WRAPPERS)):
        if not found or not known.isdisjoint(found):
            break
        first = {name.partition(".")[0] for name in found}
        if len(first) > 1 or not first <= set(WRAPPERS):
            break
        found = {name.partition(".")[2]: value for name, value in found.items()}
    inner = {name.replace("._orig_mod.", ".").replace("._fsdp_wrapped_module.", "."): v for name, v in found.items()}
    return inner if inner.keys() - known < found.keys() - known else found


def one_name_each(found: Mapping[str, Tensor], layout: Layout, what: str) -> dict[str, Tensor]:
    """Give tied tensors their one name.

    Args:
        found: by the names of a state_dict.
        layout: of the network.
        what: the file, for messages.

    Returns:
        By the names of the layout.

    Raises:
        BadInput: two names of one tensor have different values.
    """
    named: dict[str, Tensor] = {}
    for name, value in found.items():
        other = named.setdefault(layout.aliases.get(name, name), value)
        if other is not value and not torch.equal(other, value):
            raise BadInput(
                f"{what} has different values under {name!r} and {layout.aliases.get(name, name)!r}, which the network ties; "
                f"choose a checkpoint of this network"
            )
    return named


def converted(value: Tensor, own: Tensor, what: str) -> Tensor:
    """Bring a tensor to the network's dtype, or keep the finer one it has.

    Args:
        value: of the file.
        own: of the network.
        what: for the message.

    Returns:
        The tensor.

    Raises:
        BadInput: one holds whole numbers and the other does not, as in a quantised checkpoint.
    """
    if value.is_floating_point() != own.is_floating_point():
        raise BadInput(f"{what} as {value.dtype}, but the network's is {own.dtype}; choose one that is not quantised")
    dtype = torch.promote_types(value.dtype, own.dtype) if own.is_floating_point() else own.dtype
    return value.detach().to(dtype)


def counted(names: Iterable[str]) -> str:
    """Name the first and count the rest."""
    first, *rest = names
    return f"{first!r} and {len(rest):,} more" if rest else repr(first)
