"""What all parts of a recipe are: frozen, checked, and refused in one sentence."""

import difflib
import re
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from gengap.core.errors import BadInput

NOISE = re.compile(r"int|str|float|constrained-\w+|literal\[.*\]|function-.*")
SYNONYMS = {"learning_rate": "lr", "batch": "batch_size", "wd": "weight_decay", "epochs": "budget", "steps": "budget"}


class Record(BaseModel):
    """A frozen part of a recipe; what it does not know, it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise BadInput(sentence(error, type(self))) from None


def named(value: Any) -> Any:
    """Read "cosine" as {"name": "cosine"}."""
    return {"name": value} if isinstance(value, str) else value


def variants_of(annotation: Any) -> dict[str, type[Record]]:
    """Name the records that a field may hold, by their `name`."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        name = annotation.model_fields.get("name")
        return {} if name is None else {get_args(name.annotation)[0]: annotation}
    return {name: kind for part in get_args(annotation) for name, kind in variants_of(part).items()}


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one sentence what is wrong with the first field at fault, or with one that does not exist."""
    found = error.errors(include_url=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    # the names of union members that pydantic puts into the path say nothing to a user
    path = [str(part) for part in first["loc"] if not NOISE.fullmatch(str(part))]
    field, kind = ".".join(path), first["type"]
    noun = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__.removesuffix("Spec")).lower()
    noun = f"{'an' if noun[0] in 'aeiou' or noun.startswith('lr') else 'a'} {noun}"
    if kind == "extra_forbidden":
        known = model.model_fields
        meant = SYNONYMS.get(path[-1])
        near = [meant] if meant in known else difflib.get_close_matches(path[-1], known)
        hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known)}"
        return f"{noun} has no field {field!r}; {hint}"
    if kind == "missing":
        return f"{noun} needs the field {field!r}"
    text = first["msg"].removeprefix("Value error, ")
    if not path:
        return text
    return f"{field} is {first['input']!r}: {text[0].lower()}{text[1:]}"
