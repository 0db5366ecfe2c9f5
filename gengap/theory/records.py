"""What the arithmetic of this package returns: frozen records with a JSON form."""

from dataclasses import fields, is_dataclass
from typing import Any

from gengap.core.estimate import finite


class Record:
    """Base of the records: `to_dict` gives the JSON form of a frozen dataclass; what is not a finite number is null."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return json_form(self)  # type: ignore[no-any-return]


def json_form(value: Any) -> Any:
    """Turn a record, at any depth, into what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_form(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [json_form(part) for part in value]
    return finite(value) if isinstance(value, float) else value
