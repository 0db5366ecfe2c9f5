"""Weights, gradients and the memory of an optimizer spread over processes: each holds a part of every tensor.

torch's `fully_shard` does it (FSDP2): the weights of a block are put together on every process for its forward and its backward
pass and dropped again, and each process keeps its part of the sum of the gradients. Optimizers that treat every number by itself
do not notice.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.recipe.methods import IsotropicNoise
from gengap.core.recipe.schedules import BatchDynamic
from gengap.measures.memory import readable
from gengap.training.ranks import Ranks
from gengap.training.running_statistics import RunningStatistics

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Policy = Callable[[nn.Module], bool]  # whether the weights of a module are put together by themselves
ELEMENTWISE = ("sgd", "adam", "adamw", "adagrad", "rmsprop")
CONTAINERS = nn.Sequential | nn.ModuleList


def check_shardable(recipe: Recipe, ranks: Ranks, *, noise_scale: bool = False, memory: bool = False) -> None:
    """Refuse what needs whole tensors, or passes of its own through the network.

    Args:
        recipe: resolved.
        ranks: the processes.
        noise_scale: whether it is to be read.
        memory: whether a snapshot brings the memory of an optimizer along, or is to show it.

    Raises:
        BadInput: there is one process, or the recipe has something that cannot go with parts of weights.
    """
    if ranks.size == 1:
        raise BadInput(
            "shard spreads weights over processes, and there is one; start several with torchrun, or leave shard out"
        )
    if recipe.optimizer not in ELEMENTWISE:
        raise BadInput(
            f"shard is for optimizers that treat every number by itself ({', '.join(ELEMENTWISE)}), and {recipe.optimizer} needs "
            f"whole tensors; choose one of these, or leave shard out"
        )
    if noise_scale:
        raise BadInput(
            "shard leaves no process its own gradient to read the noise scale from; leave noise_scale or shard out"
        )
    if memory:
        raise BadInput(
            "shard keeps the optimizer's memory in parts, and snapshots hold it whole; use a checkpoint, or leave shard out"
        )
    for name, why in unshardable(recipe):
        raise BadInput(f"shard and {name} do not go together: {why}; leave one of them out")


def unshardable(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Give what a recipe has that cannot go with parts of weights, with the reason."""
    method, noise, several = recipe.method, recipe.gradient_noise, "it goes through the network several times in a pass"
    found = {
        f"method {method and method.name!r}": (method, "it keeps or moves copies of whole weights"),
        "adversarial": (recipe.adversarial, several),
        "stability": (recipe.stability, several),
        "isotropic gradient_noise": (isinstance(noise, IsotropicNoise), "it is drawn for whole tensors"),
        "a dynamic batch_schedule": (
            isinstance(recipe.batch_schedule, BatchDynamic),
            "it compares whole gradients of halves",
        ),
        "quirks": (recipe.quirks, "they cut batches in their own way"),
        "micro_batch 'auto'": (
            recipe.micro_batch == "auto",
            "a trial is not made on all processes in step; give a number",
        ),
        "channels_last": (recipe.memory_format == "channels_last", "parts of tensors have no such layout"),
    }
    for name, (there, why) in found.items():
        if there:
            yield name, why


def shard(model: nn.Module, ranks: Ranks, device: torch.device, policy: Policy | None = None) -> nn.Module:
    """Spread the weights of a network over processes, in place, along their first axis.

    Args:
        model: on the CPU or on the device of the process; equal on all of them. Every block moves to the device as it is cut.
        ranks: the processes.
        device: of this process.
        policy: chooses the modules whose weights are put together by themselves; None: the modules in Sequential and ModuleList
            that are none themselves. The weights of all others stay together during the whole pass.

    Returns:
        The network. Its weights have the names they had.

    Raises:
        BadInput: a weight has no axis.
    """
    from torch.distributed.device_mesh import init_device_mesh  # seconds that only who shards should wait
    from torch.distributed.fsdp import fully_shard

    for name, weight in model.named_parameters():
        if not weight.ndim:
            raise BadInput(f"shard cuts weights along their first axis, and {name} has none; give it the shape (1,)")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (ranks.size,))
    for block in [*blocks(model, policy), model]:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    return model


def blocks(model: nn.Module, policy: Policy | None = None) -> list[nn.Module]:
    """Choose the modules whose weights are put together by themselves, inner ones first.

    Args:
        model: the network.
        policy: see `shard`.

    Returns:
        Modules with weights that nothing outside of them uses.
    """
    if policy is None:
        chosen = list(in_containers(model))
    else:
        chosen = [m for m in reversed(list(model.modules())) if m is not model and policy(m)]
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    return [block for block in chosen if has_own_weights(block, uses)]


def in_containers(module: nn.Module) -> Iterator[nn.Module]:
    """Give the modules that stand in a row, not looking into them."""
    for child in module.children():
        if isinstance(module, CONTAINERS) and not isinstance(child, CONTAINERS):
            yield child
        else:
            yield from in_containers(child)


def has_own_weights(block: nn.Module, uses: Counter[int]) -> bool:
    """Tell whether a module has weights, all of them used in it alone."""
    inside = Counter(id(p) for _, p in block.named_parameters(remove_duplicate=False))
    return bool(inside) and all(uses[weight] == count for weight, count in inside.items())


def is_sharded(model: nn.Module) -> bool:
    """Tell whether the weights of a network are parts."""
    return any(map(is_part, model.parameters()))


def is_part(tensor: Tensor | None) -> "TypeGuard[DTensor]":
    """Tell whether a tensor is spread over processes, without loading what spreads tensors."""
    return hasattr(tensor, "to_local")


@contextmanager
def views_allowed(model: nn.Module) -> Iterator[None]:
    """Do not warn of a sharded network that gives a view: what follows here, a loss, does not write into it.

    Args:
        model: the network; torch's warnings of its blocks stay, where gradients may really get lost.

    Yields:
        Nothing.
    """
    if not is_sharded(model):
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \({type(model).__name__}\) returned a view")
        yield


class ShardedExchange:
    """Takes the place of `Exchange` where torch adds the gradients up, in the middle of every backward pass.

    Args:
        model: sharded.
        ranks: the processes.
        span: processes that share the statistics of batch norm.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, *, span: int = 1) -> None:
        self._weights, self._ranks = list(model.parameters()), ranks
        self._statistics = RunningStatistics(model, ranks, span=span)

    def begin(self) -> None:
        """Begin a gradient."""
        self._statistics.begin()

    def expect(self) -> None:
        """Learn that the next backward pass is the last of this gradient: there is nothing to prepare."""

    @torch.no_grad()
    def finish(self, value: Tensor) -> Tensor:
        """Make sums over processes of what torch averaged.

        Args:
            value: a number of this process, a scalar in float64.

        Returns:
            Its sum.
        """
        for weight in self._weights:
            if is_part(weight.grad):
                weight.grad.to_local().mul_(self._ranks.size)
        total = value.reshape(1).clone()
        self._ranks.begin_to_add(total)()
        self._statistics.finish()
        return total[0]


def told_of_parts(model: nn.Module) -> str:
    """Say what a process holds of the weights."""
    weights = list(model.parameters())
    mine, all_of_them = held_bytes(weights), sum(w.numel() * w.element_size() for w in weights)
    return (
        f"sharded: this process holds {readable(mine)} of the {readable(all_of_them)} of weights, and as small a part of "
        f"gradients and of the optimizer's memory"
    )


def whole(named: Iterable[tuple[str, Tensor]], *, keep: bool = True) -> dict[str, Tensor]:
    """Put tensors together, one after the other; all processes together.

    Args:
        named: tensors, of which some may be parts.
        keep: whether this process wants them.

    Returns:
        Copies out of the graph, on the CPU where they were parts; nothing unless `keep`.
    """
    found: dict[str, Tensor] = {}
    for name, value in named:
        detached = value.detach()
        full = detached.full_tensor().cpu() if is_part(detached) else detached.clone()
        if keep:
            found[name] = full
    return found


def part_like(value: Tensor, like: Tensor) -> Tensor:
    """Give of a whole tensor, which all processes have, the part that `like` is of its own; nothing is sent."""
    if not is_part(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    place = like.to_local().device
    return distribute_tensor(value.to(place), like.device_mesh, like.placements, src_data_rank=None)


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Add up what this process holds of tensors."""
    return sum((t.to_local() if is_part(t) else t).nbytes for t in tensors)


def load_parts(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole weights and buffers into a network that may be sharded."""
    own = model.state_dict()
    model.load_state_dict({
        name: part_like(value, own[name]) if name in own else value for name, value in state.items()
    })
