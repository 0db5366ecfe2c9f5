"""Studies and sweeps as TOML files."""

import tomllib
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: the file.
        what: it holds, for messages: "study", "sweep".

    Returns:
        Its fields.

    Raises:
        BadInput: the file is not there, or is no TOML; one sentence with the path.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}") from error


def without_none(value: Any) -> Any:
    """Drop absent fields: TOML has no word for them."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value
