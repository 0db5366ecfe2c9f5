"""Values of a grid written short: "8:4096:x2" doubles, "1:10:+1" counts, "0,0.5,0.9" lists."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

BATCH, LR, SEED, SIZE = "batch_size", "lr", "seed", "train_size"
RANGE = re.compile(r"(?P<low>[^:]+):(?P<high>[^:]+):(?P<kind>[x+])(?P<step>[^:]+)")
MOST = 1_000  # values in one range; more is a slip of the pen
DIGITS = 12  # equal rates have equal names however they were computed: 0.03 * 3 is not the double 0.09
ROUNDING = 1e-9


def expand(values: Any) -> list[Any]:
    """Give the values of one field of a grid.

    Args:
        values: a list, range or array, which stays as it is; one value; or a text: ranges "LOW:HIGH:xFACTOR" and
            "LOW:HIGH:+STEP", both ends included, and single values, with commas between them. What is no number there is a
            word or JSON.

    Returns:
        The values, in the order written. Those of ranges have 12 significant digits, and are whole numbers where all parts
        of the range are.

    Raises:
        ValueError: a range has another form, does not ascend, or has more than 1,000 values.
    """
    if not isinstance(values, str):
        several = isinstance(values, Iterable) and not isinstance(values, Mapping)
        return [plain(value) for value in values] if several else [plain(values)]
    if values.lstrip().startswith(("[", "{")):
        return expand(word(values))
    parts = [part.strip() for part in values.split(",") if part.strip()]
    return [value for part in parts for value in (spread(part) if ":" in part else [word(part)])]


def plain(value: Any) -> Any:
    """Give a number of numpy as one of Python."""
    return value.item() if hasattr(value, "item") else value


def spread(text: str) -> list[int | float]:
    """Give the values of one range.

    Args:
        text: for example "8:4096:x2".

    Returns:
        From low to high.

    Raises:
        ValueError: it is no range, or no ascending one of at most 1,000 values.
    """
    match = RANGE.fullmatch(text.replace(" ", ""))
    parts = [as_number(match[name]) for name in ("low", "high", "step")] if match else []
    if match is None or None in parts:
        raise ValueError(f"{text!r} is no range; write LOW:HIGH:xFACTOR or LOW:HIGH:+STEP, for example 8:4096:x2")
    low, high, step = (part for part in parts if part is not None)
    count = ratios(low, high, step) if match["kind"] == "x" else differences(low, high, step)
    if not 1 <= count <= MOST:
        raise ValueError(
            f"{text!r} is no ascending range of at most {MOST:,} values; write it from the smallest value up, with a "
            "factor above 1 or a step above 0"
        )
    found = [low * step**i if match["kind"] == "x" else low + step * i for i in range(count)]
    return [value if isinstance(value, int) else snapped(value) for value in found]


def ratios(low: float, high: float, factor: float) -> int:
    """Count the values of a range that multiplies; 0 where it does not ascend."""
    if low <= 0 or high < low or factor <= 1:
        return 0
    return math.floor(math.log(high / low) / math.log(factor) + ROUNDING) + 1


def differences(low: float, high: float, step: float) -> int:
    """Count the values of a range that adds; 0 where it does not ascend."""
    if high < low or step <= 0:
        return 0
    return math.floor((high - low) / step + ROUNDING) + 1


def as_number(text: str) -> int | float | None:
    """Read a finite number, whole where it is written so; None where it is none."""
    try:
        value = int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def word(text: str) -> Any:
    """Read one value: JSON where it is some, else a word."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def snapped(value: float) -> float:
    """Round to 12 significant digits, so that values computed in different ways are the same."""
    return float(f"{value:.{DIGITS}g}")


def values_of(field: str, values: Any) -> list[Any]:
    """Give the values of one field of the grid: whole numbers where only those make sense.

    Args:
        field: its name.
        values: as written.

    Returns:
        The values.

    Raises:
        ValueError: they are written in another form.
    """
    try:
        return WAYS.get(field, expand)(values)
    except ValueError as error:
        raise ValueError(f"grid.{field}: {error}") from error


def check_values(grid: Mapping[str, Sequence[Any]], recipe: Mapping[str, Any]) -> None:
    """Refuse fields of a grid that have no values, one twice, or one in the recipe too.

    Args:
        grid: values by field.
        recipe: fields that all runs share.

    Raises:
        ValueError: a field is one of these.
    """
    for field, values in grid.items():
        if not values or any(values.count(value) > 1 for value in values):
            raise ValueError(f"grid.{field} needs at least one value, each once; got {values}")
        if field in recipe:
            raise ValueError(f"{field} is in recipe and in grid; leave it in one of them")


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Give the fields of every cell of a grid, the last field fastest."""
    return [dict(zip(grid, cell, strict=True)) for cell in itertools.product(*grid.values())]


def whole(values: Any) -> list[Any]:
    """Give values of a field that counts; those of a range are rounded, and what rounds to the same number stands there once."""
    if not isinstance(values, str) or values.lstrip().startswith(("[", "{")):
        return expand(values)
    parts = [(":" in part, value) for part in values.split(",") for value in expand(part)]
    return list(dict.fromkeys(round(value) if in_range else value for in_range, value in parts))


def counts(values: Any) -> list[int]:
    """Give whole numbers.

    Args:
        values: as written.

    Returns:
        The numbers.

    Raises:
        ValueError: one is no whole number.
    """
    found = whole(values)
    if wrong := [value for value in found if not isinstance(value, int) or isinstance(value, bool)]:
        raise ValueError(f"{wrong[0]!r} is no whole number")
    return found


def learning_rates(values: Any) -> list[float]:
    """Give learning rates.

    Args:
        values: as written.

    Returns:
        The rates, with 12 digits.

    Raises:
        ValueError: one is no number above 0.
    """
    found = expand(values)
    if wrong := [value for value in found if not isinstance(value, int | float) or not value > 0]:
        raise ValueError(f"a learning rate is {wrong[0]!r}; give numbers above 0")
    return [snapped(float(value)) for value in found]


def several_budgets(values: Any) -> list[Any]:
    """Give budgets, as tables or as text."""
    given = [values] if isinstance(values, str | dict) else list(values)
    return [one for value in given for one in (budgets(value) if isinstance(value, str) else [value])]


WAYS: dict[str, Callable[[Any], list[Any]]] = {
    BATCH: whole,
    SIZE: counts,
    SEED: counts,
    LR: learning_rates,
    "budget": several_budgets,
}


def budgets(text: str) -> list[dict[str, Any]]:
    """Read budgets.

    Args:
        text: "epochs=30", "steps=10000", "converged"; several numbers as in a grid: "epochs=50:400:x2".

    Returns:
        Fields of a `Budget`, one for each number.

    Raises:
        ValueError: it is none of these.
    """
    kind, equals, numbers = (part.strip() for part in text.partition("="))
    if kind == "converged" and not equals:
        return [{"converged": {}}]
    if kind not in {"epochs", "steps"} or not numbers:
        raise ValueError(f"{text!r} is no budget; write epochs=30, steps=10000 or converged")
    return [{kind: number} for number in expand(numbers)]
