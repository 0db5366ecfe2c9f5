"""The page of all fields of a recipe, from the recipe itself."""

import inspect
import re
from types import UnionType
from typing import Any, get_args

from pydantic_core import PydanticUndefined

from gengap.core.recipe import Recipe, Record

HEAD = """# The fields of a recipe

A recipe is written in Python (`gengap.Recipe(lr=0.1, ...)`), as JSON or TOML (`--recipe FILE`), or field by field on the command
line (`--set FIELD=JSON`). What is no field, or does not go with another one, is refused in one sentence.

"""


def page() -> str:
    """Give the page."""
    meanings = attributes(inspect.getdoc(Recipe) or "")
    rows = ["| field | default | meaning |", "|---|---|---|"]
    rows += [f"| `{name}` | {default(field)} | {meanings[name]} |" for name, field in Recipe.model_fields.items()]
    parts = [HEAD + "\n".join(rows)]
    for name, field in Recipe.model_fields.items():
        parts += [described(name, kind) for kind in kinds(field.annotation)]
    return "\n\n".join(parts) + "\n"


def attributes(text: str) -> dict[str, str]:
    """Read the section Attributes of a docstring."""
    section = text.partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.split(r"\n    (?=\w+: )", "\n" + inspect.cleandoc("\n" + section).replace("\n", "\n    "))
    pairs = (entry.strip().partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(meaning.split()) for name, _, meaning in pairs}


def default(field: Any) -> str:
    """Write a default."""
    value = field.default
    if value is PydanticUndefined:
        return "needed"
    return f"`{value.name}`" if isinstance(value, Record) else f"`{value}`"


def kinds(annotation: Any) -> list[type[Record]]:
    """List the records that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return (
        [kind for part in get_args(annotation) for kind in kinds(part)]
        if get_args(annotation) or isinstance(annotation, UnionType)
        else []
    )


def described(field: str, kind: type[Record]) -> str:
    """Describe one record that a field may hold."""
    name = get_args(kind.model_fields["name"].annotation) if "name" in kind.model_fields else ()
    title = f"## `{field}`" + (f": `{name[0]}`" if name else "")
    text = " ".join((inspect.getdoc(kind) or "").split())
    own = [(key, one) for key, one in kind.model_fields.items() if not (key == "name" and name)]
    lines = [f"- `{key}` ({default(one)})" + (f": {one.description}" if one.description else "") for key, one in own]
    return "\n\n".join([title, text] + (["\n".join(lines)] if lines else []))
