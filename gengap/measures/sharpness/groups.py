"""Weights in named groups: by layer, or by patterns of their names."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gengap.core.errors import BadInput

Groups = str | Mapping[str, str | Sequence[str]]


def grouped(tree: Mapping[str, Tensor], groups: Groups) -> Mapping[str | None, tuple[str, ...]]:
    """Put weights into groups.

    Args:
        tree: the weights by name.
        groups: "layer" for one group per module (the name without its last part), or patterns of names, shell style, by
            the name of the group. Groups may overlap, and need not hold every weight.

    Returns:
        The names of each group's weights, in the order of the tree.

    Raises:
        BadInput: it is neither, or a pattern matches no name.
    """
    if groups == "layer":
        layers: dict[str, list[str]] = {}
        for name in tree:
            layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return {layer: tuple(names) for layer, names in layers.items()}
    if not isinstance(groups, Mapping) or not groups:
        raise BadInput(f"groups is {groups!r}; give 'layer', or a dict from group name to a pattern of weight names")
    return {group: matched(tree, group, patterns) for group, patterns in groups.items()}


def matched(tree: Mapping[str, Tensor], group: str, patterns: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names that a group's patterns match.

    Args:
        tree: the weights by name.
        group: its name, for the message.
        patterns: one or several.

    Returns:
        Names in the order of the tree.

    Raises:
        BadInput: a pattern matches none.
    """
    several = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in several or [""]:
        if not any(fnmatchcase(name, pattern) for name in tree):
            known = ", ".join(list(tree)[:6])
            raise BadInput(
                f"group {group!r} holds the pattern {pattern!r}, which no weight is called; there are {known}"
            )
    return tuple(name for name in tree if any(fnmatchcase(name, pattern) for pattern in several))


def positions(tree: Mapping[str, Any], names: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return where the weights of some names stand in the vector of all weights, ascending."""
    found, start = [], 0
    for name, p in tree.items():
        if name in names:
            found.append(np.arange(start, start + p.numel()))
        start += p.numel()
    return np.concatenate(found) if found else np.empty(0, np.intp)
