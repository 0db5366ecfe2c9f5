"""How much memory a measure takes: foretold from a few samples, kept below a limit, and read afterwards."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gengap.core.errors import BadInput

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TRANSIENT = 2.0  # what kernels and the allocator take beside the tensors of a pass, as a factor: up to 2.3 was seen
GRAPH = 1.5  # the same for graphs that are kept, of which there are more and smaller tensors: up to 1.4 was seen
SPARE = 48 * 2**20  # what torch loads and sets up on first use, in bytes; of a small limit a quarter
TRIAL = 4  # samples of the smaller trial pass; the larger one has twice as many


@dataclass(frozen=True, slots=True)
class Memory:
    """What a measure may use.

    Attributes:
        limit: bytes.
        per_sample: bytes that one sample takes at the worst moment of a pass of the kind the measure makes.
        free: bytes left for graphs that are kept, once one chunk and the measure's vectors are paid for.
        kept_per_sample: bytes of the graph of one sample, where it is kept.
    """

    limit: int
    per_sample: float
    free: int
    kept_per_sample: float = 0.0


def plan(limit: int, per_sample: float, vectors: int, chunk: int) -> tuple[int, int]:
    """Choose how many samples go through at once.

    Args:
        limit: bytes.
        per_sample: bytes of one sample in one pass.
        vectors: bytes of the vectors that the measure holds.
        chunk: samples at once where memory is no matter.

    Returns:
        Samples at once, and the bytes left beside one such chunk and the vectors.

    Raises:
        BadInput: the limit is too small for a single sample.
    """
    room = limit - vectors - min(SPARE, limit // 4)
    size = min(chunk, int(room / per_sample)) if per_sample else chunk
    if room < 0 or size < 1:
        needed = vectors + per_sample
        raise BadInput(
            f"memory_limit is {readable(limit)}, but this measure needs at least {readable(needed + min(SPARE, needed / 3))} "
            f"({readable(vectors)} of them for vectors as long as the weights); raise it, or ask for less at once"
        )
    return size, max(0, int(room - size * per_sample))


def readable(size: float) -> str:
    """Write a number of bytes: "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


class PeakMemory:
    """Reads the most memory that was held while a block ran, above what was held before.

    On CUDA that is what torch allocated; else the resident memory of the process, where the system (Linux) tells its
    high-water mark. Blocks may be nested.

    Attributes:
        bytes: the peak, or None where it cannot be read; set when the block ends.
    """

    active: ClassVar[list[Any]] = []  # of PeakMemory, the outermost first

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None
        self._before = self._highest = 0
        self._readable = False

    def __enter__(self) -> Self:
        for outer in self.active:
            outer._note()
        give_back()
        self._readable = reset(self.device)
        self._before = self._highest = held(self.device)
        self.active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.active:
            one._note()
        self.active.remove(self)
        self.bytes = max(0, self._highest - self._before) if self._readable else None

    def _note(self) -> None:
        self._highest = max(self._highest, peak(self.device))


def reset(device: torch.device) -> bool:
    """Begin a new high-water mark; tell whether the system lets us."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak(device: torch.device) -> int:
    """Return the high-water mark in bytes, 0 where it is not known."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else status("VmHWM")


def held(device: torch.device) -> int:
    """Return the bytes held now, 0 where it is not known."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else status("VmRSS")


def give_back() -> None:
    """Ask the allocator for what it keeps of freed memory, so that its later use shows."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def status(key: str) -> int:
    """Read a number of bytes from the system's view of this process, 0 where there is none."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def tree_bytes(tree: Mapping[str, Tensor]) -> int:
    """Return the bytes of the weights."""
    return sum(p.numel() * p.element_size() for p in tree.values())
