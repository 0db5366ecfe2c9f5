"""What measures and fits return: frozen records with a JSON form."""

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gengap.core.estimate import Estimate, finite


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
    return callable(getattr(value, "untyped_storage", None))  # known by this, so that torch is not loaded
