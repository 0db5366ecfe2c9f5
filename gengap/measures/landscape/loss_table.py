"""Losses along a line in words: a column for each loss function."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def column_names(descriptions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Call each loss function by its data, and number those of the same name.

    Args:
        descriptions: what each was measured on.

    Returns:
        Names that differ, for example "tensors" and "tensors (2)".
    """
    seen: Counter[str] = Counter()
    names = []
    for description in descriptions:
        name = str(description.get("data", "unknown"))
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def loss_table(
    first: str, names: Sequence[str], places: Sequence[float], losses: Sequence[Sequence[float | None]]
) -> list[str]:
    """Write losses as lines of a table.

    Args:
        first: what the places are.
        names: of the loss functions.
        places: where the losses were taken.
        losses: of each function at each place; None where it is not finite.

    Returns:
        A heading and a line for each place.
    """
    left, widths = max(8, len(first) + 1), [max(10, len(name)) for name in names]
    rows = [first.ljust(left) + "  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
    for place, *values in zip(places, *losses, strict=True):
        shown = ["not finite" if value is None else f"{value:.4g}" for value in values]
        said = "  ".join(text.rjust(width) for text, width in zip(shown, widths, strict=True))
        rows.append(f"{place:.4g}".ljust(left) + said)
    return rows
