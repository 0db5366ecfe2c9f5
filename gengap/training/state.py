"""Everything that changes while a run trains, as JSON and tensors, and back."""

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.training.checkpoint import pack_optimizer, random_state, restore_random_state, unpack_optimizer
from gengap.training.loop import Training
from gengap.training.run import Outcome, Point
from gengap.training.sharded import is_sharded, load_parts, part_like, whole
from gengap.training.sharing import dropout_seed

COUNTERS = (
    "step",
    "samples",
    "epoch",
    "position",
    "epoch_loss",
    "best",
    "stale",
    "seconds",
    "evaluation_seconds",
    "lr",
    "batch_size",
)


def pack(training: Training) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give the whole state as JSON and tensors; all ranks together."""
    optimizer, memory = pack_optimizer(training.optimizer.state_dict())
    numbers = {name: getattr(training, name) for name in COUNTERS}
    numbers["best"] = None if math.isinf(training.best) else training.best
    numbers["history"] = [asdict(point) for point in training.history]
    numbers["optimizer"] = optimizer
    halves = training.gradient.halves
    numbers["halves"] = None if halves is None else [halves.trace, halves.squared_norm]
    numbers["micro_batch"] = training.gradient.micro_batch
    numbers["noise"] = training.noise.state() if training.noise else None
    numbers["outcome"] = asdict(training.outcome) if training.outcome else None
    tensors = {f"model/{k}": v for k, v in training.model.state_dict().items()}
    tensors |= {f"initial/{k}": v for k, v in training.initial.items()} | memory
    if is_sharded(training.model):
        tensors = whole(tensors.items(), keep=training.ranks.rank == 0)  # who writes
    tensors |= random_state(training.device, training.ranks)
    return numbers, tensors


def unpack(training: Training, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Take up the state that `pack` gave."""
    for name in COUNTERS:
        setattr(training, name, numbers.get(name, getattr(training, name)))  # old files lack what came later
    training.best = math.inf if numbers["best"] is None else numbers["best"]
    training.history = [Point(**point) for point in numbers["history"]]
    training.due = [step for step in training.due if step > training.history[-1].step]
    training.showing.go_on_from(training.step)
    training.outcome = Outcome(**numbers["outcome"]) if numbers["outcome"] else None
    model = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    load_parts(training.model, model)
    training.optimizer.load_state_dict(unpack_optimizer(numbers["optimizer"], tensors))
    match_layouts(training.optimizer)
    if training.gradient.halves is not None and numbers.get("halves"):
        training.gradient.halves.trace, training.gradient.halves.squared_norm = numbers["halves"]
    if training.recipe.micro_batch == "auto":
        training.gradient.limit_pieces(numbers.get("micro_batch"))
    if training.noise and numbers.get("noise"):
        training.noise.load(numbers["noise"])
    if not restore_random_state(tensors, training.device, training.ranks):
        torch.manual_seed(dropout_seed(training.recipe, training.ranks, training.step))


def match_layouts(optimizer: Optimizer) -> None:
    """Lay the memory of an optimizer out as its weights are, in parts where they are parts.

    Fused kernels pair the two by their place in storage.
    """
    for weight, memory in optimizer.state.items():
        for name, value in memory.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                memory[name] = torch.empty_like(weight).copy_(part_like(value, weight))
