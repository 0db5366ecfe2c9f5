"""What every measure says beside its number: on what it was measured, how exactly, and what it cost."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gengap.core.estimate import Estimate, finite


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


class Record:
    """Base of what measures return: `to_dict` gives the JSON form of a frozen dataclass.

    Tensors are left out; `conditions` are spread among the other keys; what is not a finite number is null.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return json_form(self)  # type: ignore[no-any-return]


def json_form(value: Any) -> Any:
    """Turn a record, at any depth, into what JSON can hold."""
    if isinstance(value, Estimate):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: getattr(value, f.name) for f in fields(value)}
        named |= json_form(named.pop("conditions", None)) or {}
        return {key: json_form(part) for key, part in named.items() if not holds_tensors(part)}
    if isinstance(value, dict):
        return {str(key): json_form(part) for key, part in value.items() if not holds_tensors(part)}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [json_form(part) for part in value]
    return finite(value) if isinstance(value, float) else value


def holds_tensors(value: Any) -> bool:
    """Tell whether something is a tensor, or a collection of nothing but tensors at any depth."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return bool(value) and all(map(holds_tensors, value))
    return isinstance(value, Tensor)
