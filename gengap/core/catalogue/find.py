"""Looking names up, and importing what they stand for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from gengap.core.errors import BadInput

E = TypeVar("E")


def find(kind: str, entries: Mapping[str, E], name: str) -> E:
    """Look a name up.

    Args:
        kind: what it is, for the message: "network", "data set", "loss".
        entries: the catalogue.
        name: the name to find.

    Returns:
        The entry.

    Raises:
        BadInput: the name is not in the catalogue; the message lists the names that are.
    """
    if name not in entries:
        raise BadInput(f"there is no {kind} called {name!r}; known are: {', '.join(entries)}")
    return entries[name]


def resolve(builder: str) -> Callable[..., Any]:
    """Import what "module:function" names.

    Args:
        builder: "package.module:attribute".

    Returns:
        The attribute.

    Raises:
        BadInput: the text has no colon, the module cannot be imported, or it has no such attribute.
    """
    module_name, colon, attribute = builder.partition(":")
    if not colon or not module_name or not attribute:
        raise BadInput(f"{builder!r} names no function; write it as package.module:function")
    try:
        module = import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything while it is imported
        raise BadInput(f"cannot import {module_name!r} of {builder!r}: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise BadInput(f"module {module_name!r} has no function {attribute!r}; check the part after the colon")
    return found  # type: ignore[no-any-return]
