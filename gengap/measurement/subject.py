"""The checkpoint that is measured, with everything that belongs to it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.recipe import digest
from gengap.measures.session import Names, divided
from gengap.problem.checkpoint import Checkpoint, load_checkpoint, load_start
from gengap.problem.problem import Problem
from gengap.problem.weight_files import read_end
from gengap.training.snapshots import SnapshotFolder

Tree = Mapping[str, Tensor]


@runtime_checkable
class Trained(Protocol):
    """What `gengap.train` returns, or anything like it."""

    @property
    def params(self) -> Tree:
        """Weights at the end."""
        ...

    @property
    def initial_params(self) -> Tree:
        """Weights at the start."""
        ...

    @property
    def buffers(self) -> Tree:
        """Running statistics and other buffers."""
        ...


@dataclass(frozen=True, eq=False)
class Subject:
    """A checkpoint with its problem.

    Attributes:
        problem: what was learnt.
        name: what the checkpoint is called.
        params: its weights by name.
        buffers: its buffers by name.
        device: where they lie.
        start: the weights the training began with, or None.
        second: another checkpoint, to which paths are measured, or None.
        second_name: what that is called.
        trajectory: snapshots of the training, or None.
    """

    problem: Problem
    name: str
    params: Tree
    buffers: Tree
    device: torch.device
    start: Tree | None = None
    second: Checkpoint | None = None
    second_name: str = ""
    trajectory: SnapshotFolder | None = None

    @cached_property
    def weights(self) -> int:
        """How many numbers the weights are, P."""
        return sum(p.numel() for p in self.params.values())

    @cached_property
    def frozen(self) -> frozenset[str]:
        """Names of the weights that the model does not train."""
        return frozenset(name for name, p in self.problem.model(seed=0).named_parameters() if not p.requires_grad)

    def moved(self, only: Names) -> Tree:
        """Choose the weights that patterns match, or without patterns those that the model trains."""
        return divided(self.params, only, self.frozen)[0]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the problem, the checkpoint, the start and the second checkpoint."""
        parts = [self.problem.fingerprint, fingerprint(self.params), fingerprint(self.buffers)]
        parts += ["" if self.start is None else fingerprint(self.start)]
        parts += ["" if self.second is None else fingerprint(self.second.params) + fingerprint(self.second.buffers)]
        parts += [] if self.trajectory is None else [str(self.trajectory.path.resolve())]
        return digest(parts)

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader should know about it, as JSON values."""
        origin = self.problem.origin
        return {
            "checkpoint": self.name,
            "second": self.second_name or None,
            "data": origin.data or self.problem.name,
            "network": origin.network or self.problem.name,
            "loss": self.problem.loss.name,
            "train_samples": len(self.problem.samples("train")),
            "test_samples": len(self.problem.samples("test")),
            "parameters": self.weights,
            "dtype": "+".join(dict.fromkeys(str(p.dtype).removeprefix("torch.") for p in self.params.values())),
            "has_batch_norm": self.problem.has_batch_norm,
        }


def load_subject(
    problem: Problem,
    checkpoint: str | Path | Trained,
    *,
    initial: str | Path | None = None,
    second: str | Path | Trained | None = None,
    trajectory: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> Subject:
    """Read a checkpoint and what belongs to it.

    Args:
        problem: what was learnt.
        checkpoint: a file or folder as `gengap.load_checkpoint` takes it, or a run.
        initial: the checkpoint the training began with; by default the one kept beside the end, where there is one.
        second: another checkpoint of the same network.
        trajectory: folder of snapshots of the training; by default the one beside the checkpoint, where there is one.
        device: where the weights go.

    Returns:
        The subject.

    Raises:
        BadInput: a checkpoint cannot be read or does not fit, or holds a weight that is not finite.
    """
    place = torch.device(device)
    end, start, name = end_of(problem, checkpoint, place)
    if initial is not None:
        start = fitting(problem, initial, place).params
    check_finite(end.params, name)
    other, other_name = None, ""
    if second is not None:
        other, _, other_name = end_of(problem, second, place)
        check_finite(other.params, other_name)
    moments = moments_of(checkpoint, trajectory)
    return Subject(problem, name, end.params, end.buffers, place, start, other, other_name, moments)


def moments_of(checkpoint: str | Path | Trained, trajectory: str | Path | None) -> SnapshotFolder | None:
    """Find the snapshots of the training.

    Args:
        checkpoint: a folder may hold them.
        trajectory: their folder, or None.

    Returns:
        The snapshots, or None.

    Raises:
        BadInput: the folder that was named holds none.
    """
    if trajectory is None and isinstance(checkpoint, str | Path):
        beside = SnapshotFolder(Path(checkpoint) / "snapshots")
        return beside if len(beside) else None
    found = None if trajectory is None else SnapshotFolder(trajectory)
    if found is not None and not len(found):
        raise BadInput(f"{trajectory} holds no snapshots; name a folder that gengap train --snapshots wrote")
    return found


def end_of(
    problem: Problem, checkpoint: str | Path | Trained, device: torch.device
) -> tuple[Checkpoint, Tree | None, str]:
    """Give weights and buffers, the weights at the start where they are known, and a name."""
    if isinstance(checkpoint, str | Path):
        end = fitting(problem, checkpoint, device)
        return end, load_start(problem, checkpoint, device=device), str(checkpoint)
    parts = [{n: x.detach().to(device) for n, x in part.items()} for part in (checkpoint.params, checkpoint.buffers)]
    start = {n: x.detach().to(device) for n, x in checkpoint.initial_params.items()}
    return Checkpoint(parts[0], parts[1]), start, "a run"


def fitting(problem: Problem, path: str | Path, device: torch.device) -> Checkpoint:
    """Read a checkpoint; where it is one of another network, say which network it was held against.

    Args:
        problem: whose network it is.
        path: of the checkpoint.
        device: where the weights go.

    Returns:
        Weights and buffers.

    Raises:
        BadInput: it cannot be read, or does not fit the network.
    """
    try:
        return load_checkpoint(problem, path, device=device)
    except BadInput as error:
        read_end(Path(path))  # what cannot be read at all says so itself, whatever the network
        known = trained_problem(Path(path))
        said = f", but run.json beside it says {known!r}" if known and known != problem.name else ""
        raise BadInput(
            f"{error} (it was held against the network of {problem.name!r}{said}; --data with --network, or --problem, choose)"
        ) from error


def trained_problem(path: Path) -> str:
    """Give what `gengap train` wrote that it trained, or nothing."""
    try:
        found = json.loads(((path if path.is_dir() else path.parent) / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(found.get("problem", "")) if isinstance(found, dict) else ""


def check_finite(params: Tree, name: str) -> None:
    """Refuse weights of a run that diverged.

    Args:
        params: the weights.
        name: of the checkpoint.

    Raises:
        BadInput: one of them is not finite.
    """
    for key, p in params.items():
        if not bool(p.isfinite().all()):
            raise BadInput(f"{name} holds a weight in {key!r} that is not finite; measure a run that did not diverge")


def fingerprint(tree: Tree) -> str:
    """Hash tensors with their names, shapes and dtypes."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in tree.items():
        found.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
