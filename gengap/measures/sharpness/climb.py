"""What searches in a box found, as the climb that papers quote, and the arguments they share."""

import math
from dataclasses import dataclass
from typing import Any, get_args

from gengap.core.errors import BadInput
from gengap.measures.sharpness.box_search import Found, Search


@dataclass(frozen=True, slots=True)
class Start:
    """What one of the searches found.

    Attributes:
        name: "point", "corner", "random corner" (L-BFGS-B from there), "sign ascent" or "curvature" (from the corner along
            the largest curvature).
        percent: the climb it found, 100 * (peak - base) / (1 + base); negative where it never met the base again, nan
            where it met no finite loss.
        iterations: iterations of the optimiser, or ascent steps.
        evaluations: loss-and-gradient evaluations it spent.
        share_at_bound: share of coordinates on a face of the box at its peak, 0 to 1.
    """

    name: str
    percent: float
    iterations: int
    evaluations: int
    share_at_bound: float


def percent(peak: float, base: float) -> float:
    """Return the climb from `base` to `peak` relative to 1 + base, in percent (Keskar et al. 2017, eq. 4)."""
    return 100 * (peak - base) / (1 + base)


def summary(found: list[Found], base: float) -> dict[str, Any]:
    """Turn the peaks of the searches into percentages, the best of them, and how well they agree."""
    finite_first = sorted(found, key=lambda f: -math.inf if math.isnan(f.peak) else f.peak, reverse=True)
    best, climb = finite_first[0], finite_first[0].peak - base  # one search always includes the point: climb >= 0
    agreement = None
    if len(found) > 1 and climb > 0:
        second = finite_first[1].peak
        agreement = 0.0 if math.isnan(second) else max(0.0, second - base) / climb
    return {
        "percent": percent(best.peak, base),
        "base": base,
        "peak": best.peak,
        "starts": tuple(
            Start(f.name, percent(f.peak, base), f.iterations, f.evaluations, f.share_at_bound) for f in found
        ),
        "share_at_bound": best.share_at_bound if climb > 0 else 0.0,
        "agreement": agreement,
    }


def check_search(search: str, iterations: int) -> None:
    """Refuse a search that there is not.

    Args:
        search: its name.
        iterations: of each search.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    if search not in get_args(Search):
        raise BadInput(f"search is {search!r}; choose one of {', '.join(get_args(Search))}")
    check_count("iterations", iterations)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse what is not a whole number, or too small.

    Args:
        name: of the argument.
        value: of it.
        least: the smallest allowed.

    Raises:
        BadInput: with the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{name} is {value!r}; give a whole number of at least {least}")


def check_positive(name: str, value: float, example: str) -> None:
    """Refuse what is not a positive finite number.

    Args:
        name: of the argument.
        value: of it.
        example: a value to give.

    Raises:
        BadInput: with the value.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):
        raise BadInput(f"{name} is {value!r}; give a positive number, for example {example}")
