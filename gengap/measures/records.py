"""What every measure says beside its number: on what it was measured, how exactly, and what it cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a number was measured.

    Attributes:
        data: which split, or "unknown" for a plain function.
        samples: how many of them, or None where unknown.
        batch_norm: which statistics batch norm used: "running", "batch", "recompute", "none" or "unknown".
        chunk_size: samples that went through the network at once; None for a plain function.
        dtype: of the weights, in which the loss was evaluated.
        weights: how many numbers were moved or differentiated by, P.
        seconds: wall clock.
        memory_limit: bytes the measure was allowed.
        peak_memory: bytes it was seen to take above what the process held before; None where the system does not tell.
    """

    data: str
    samples: int | None
    batch_norm: str
    chunk_size: int | None
    dtype: str
    weights: int
    seconds: float
    memory_limit: int
    peak_memory: int | None

    def __str__(self) -> str:
        samples = "" if self.samples is None else f" ({self.samples:,} samples)"
        return f"data {self.data}{samples}, batch norm {self.batch_norm}, {self.dtype}, {self.seconds:.3g} s"
