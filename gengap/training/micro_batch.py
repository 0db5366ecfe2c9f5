"""How many samples go through a network at once: as many as fit the memory, found by trying with a few."""

from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.core.errors import BadInput
from gengap.measures.live_bytes import LiveBytes
from gengap.measures.memory import TRANSIENT, readable
from gengap.measures.random_state import kept
from gengap.problem.samples import Samples, parse_bytes
from gengap.training.gradient import Gradient
from gengap.training.minibatch import Minibatch

FREE = {"cuda": 0.8, "cpu": 0.5}  # share of the free memory that is taken by default; others use the CPU's too
TRIAL = 4  # samples of the smaller trial; the larger has twice as many
# as large as the weights: the gradient, two averages of an optimizer, and the message to other processes
COPIES = 4
AVAILABLE = Path("/proc/meminfo")


def fitting_piece(gradient: Gradient, train: Samples, limit: str | int | None) -> int | None:
    """Choose the largest piece whose gradient fits the memory.

    Two small pieces are tried, which tells what a sample takes; on a GPU the piece that was chosen is tried too, and halved as
    long as it does not fit. Weights, buffers and random states are left as they were.

    Args:
        gradient: of the network; the choice is the same on all of its ranks.
        train: training samples, on the device.
        limit: bytes that an update may take beside the weights and the data, as a number or as "4 GiB"; None: a share of what
            is free.

    Returns:
        Samples, a whole number of ghost batches where there are any; None where the whole share of a batch fits.

    Raises:
        BadInput: the network has plain batch norm, whose statistics would depend on the memory; or one sample (or ghost
            batch) does not fit.
    """
    model, recipe, device = gradient.model, gradient.recipe, gradient.weights[0].device
    check_batch_norm(model, recipe.ghost_batch)
    unit = recipe.ghost_batch or 1
    room = free_bytes(device) if limit is None else parse_bytes(limit)
    weights = COPIES * sum(w.nbytes for w in gradient.weights)
    each = bytes_per_sample(gradient, train, unit) * (1 if device.type == "cuda" else TRANSIENT)
    batch = int(recipe.batch_size) if recipe.batch_schedule is None else len(train)
    most = unit * -(-batch // (unit * gradient.ranks.size))  # the largest share of a process
    fits = max(0, int((room - weights) / each)) if each else most
    size = min(fits, most) // unit * unit
    if size < unit:
        raise BadInput(
            f"memory_limit is {readable(room)}, but one piece of {unit} takes {readable(weights + unit * each)}, "
            f"{readable(weights)} of them for copies of the weights; raise it or choose a smaller network or ghost_batch"
        )
    if device.type == "cuda":
        size = tried(gradient, train, size, unit)
    (least,) = gradient.ranks.largest([-size])
    return None if -least >= min(most, batch) else int(-least)


def check_batch_norm(model: nn.Module, ghost: int | None) -> None:
    """Refuse batch norm whose statistics are those of whatever fits.

    Args:
        model: in training mode.
        ghost: samples of a ghost batch, or None.

    Raises:
        BadInput: it has batch norm, and there are no ghost batches.
    """
    if ghost is None and any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise BadInput(
            "micro_batch is 'auto' and the network has batch norm, whose statistics would depend on the memory; "
            "set ghost_batch, or give micro_batch as a number"
        )


def free_bytes(device: torch.device) -> int:
    """Give the memory that may be taken without asking."""
    if device.type == "cuda":
        return int(FREE["cuda"] * torch.cuda.mem_get_info(device)[0])
    lines = AVAILABLE.read_text(encoding="utf-8").splitlines() if AVAILABLE.exists() else []
    free = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 4 * 2**30)
    return int(FREE["cpu"] * free)


def bytes_per_sample(gradient: Gradient, train: Samples, unit: int) -> float:
    """Foretell what one more sample takes at the worst moment of a gradient; 0 where the set is too small to tell."""
    small = min(unit * -(-TRIAL // unit), len(train) // 2)
    if not small:
        return 0.0
    courses = [passed(gradient, train, count) for count in (small, 2 * small)]
    return max((b - a for a, b in zip(*courses, strict=False)), default=0) / small


def passed(gradient: Gradient, train: Samples, count: int) -> list[int]:
    """Compute the gradient of the first samples, and give the bytes alive after each operation."""
    inputs, targets = next(iter(train.batches(count)))
    buffers = [buffer.clone() for buffer in gradient.model.buffers()]
    try:
        with kept(), LiveBytes() as live:
            gradient.objective(Minibatch.of(inputs, targets)).backward()
    finally:
        gradient.model.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(gradient.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
    course: list[int] = live.course
    return course


def tried(gradient: Gradient, train: Samples, size: int, unit: int) -> int:
    """Halve a piece until its gradient fits the GPU.

    Args:
        gradient: of the network.
        train: training samples.
        size: to begin with.
        unit: samples that stay together.

    Returns:
        Samples that fit.

    Raises:
        OutOfMemoryError: not even `unit` do.
    """
    while True:
        try:
            passed(gradient, train, size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if size <= unit:
                raise
            size = max(unit, size // 2 // unit * unit)
        else:
            return size
