"""How numbers are written: the same in the page, in the figures and in the terminal."""

import math
import re
from collections.abc import Mapping
from typing import Any

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(%|s|min|h|nats)(\W|$))")
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
SMALLEST_PLAIN = 1e-3
LARGEST_PLAIN = 1e6


def number(x: float | None, digits: int = 3) -> str:
    """Write a number with at least `digits` significant digits and thousands separators.

    Args:
        x: the number; None and NaN are written as a dash.
        digits: significant digits after rounding; the digits before the decimal point are never rounded away.

    Returns:
        For example "98.9" or "3,682", and a power of ten where zeros would hide the digits.
        A number that is not zero is never written as zero.
    """
    if x is None or math.isnan(x):
        return MISSING
    if math.isinf(x):
        return "∞" if x > 0 else f"{MINUS}∞"
    if x == 0:
        return "0"
    if not is_plain(x):
        return scientific(x, digits)
    return fixed(x, max(0, places(x, digits)))


def fixed(x: float, decimals: int) -> str:
    """Write a number with a given number of decimals; a negative number of decimals rounds to tens, hundreds, ..."""
    rounded = round(x, decimals)
    text = f"{abs(rounded):,.{max(0, decimals)}f}"
    return f"{MINUS}{text}" if rounded < 0 else text


def scientific(x: float, digits: int = 3) -> str:
    """Write a number as mantissa and power of ten."""
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    return f"{mantissa.replace('-', MINUS)} {TIMES} {power(int(exponent))}"


def power(exponent: int) -> str:
    """Write a power of ten with raised digits."""
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def whole(x: float | None) -> str:
    """Write a count."""
    return MISSING if x is None else fixed(x, 0)


def is_plain(x: float) -> bool:
    """Tell whether a number is read more easily without a power of ten."""
    return x == 0 or SMALLEST_PLAIN <= abs(x) < LARGEST_PLAIN


def places(x: float, digits: int) -> int:
    """Count the decimals that show `digits` significant digits of x."""
    return digits if x == 0 else digits - 1 - int(f"{abs(x):.{digits - 1}e}".partition("e")[2])


def error_places(error: float) -> int:
    """Count the decimals worth showing beside an error: two digits of it where it begins with 1 or 2, else one."""
    leading = int(f"{abs(error):.1e}"[0])
    return places(error, 2 if leading <= 2 else 1)


def spread(estimate: Mapping[str, Any] | None) -> str:
    """Write an estimate as "mean ± standard deviation"."""
    if estimate is None or estimate["value"] is None:
        return MISSING
    value, stdev = estimate["value"], estimate["stdev"]
    if not stdev:
        return number(value, 4)
    if is_plain(value):
        decimals = max(error_places(stdev), places(value, 1) if value else -9)
        return f"{fixed(value, decimals)} ± {fixed(stdev, decimals)}"
    exponent = int(f"{value:e}".partition("e")[2])
    return f"({spread_of(value / 10.0**exponent, stdev / 10.0**exponent)}) {TIMES} {power(exponent)}"


def spread_of(mantissa: float, stdev: float) -> str:
    """Write mantissa and deviation to the same decimals."""
    decimals = max(0, error_places(stdev))
    return f"{fixed(mantissa, decimals)} ± {fixed(stdev, decimals)}"


def interval(estimate: Mapping[str, Any] | None) -> str:
    """Write the interval of an estimate of a mean or a difference, "0.9 to 3.3"; "" where there is none."""
    bounds = ends(estimate)
    if bounds is None:
        return ""
    low, high = bounds
    largest = max(abs(low), abs(high))
    if math.isfinite(largest) and not is_plain(largest):
        unit = 10.0 ** int(f"{largest:e}".partition("e")[2])
        low, high, exponent = low / unit, high / unit, round(math.log10(unit))
        return f"({beside(low, high - low)} to {beside(high, high - low)}) {TIMES} {power(exponent)}"
    return " to ".join(apart_from_zero(end, low, high) for end in (low, high))


def share(estimate: Mapping[str, Any]) -> dict[str, Any]:
    """Cut the interval of an estimate in percent of a whole, as an accuracy is, to 0 and 100, where it must lie."""
    bounds = ends(estimate)
    return {**estimate, "interval": bounds and [min(max(end, 0.0), 100.0) for end in bounds]}


def apart_from_zero(end: float, low: float, high: float) -> str:
    """Write one end of an interval; where the interval leaves zero out, the end is not written as zero."""
    text = beside(end, high - low)
    if low * high > 0 and not text.strip("0.,+" + MINUS):
        return significant(end, 1)
    return text


def ratio_interval(estimate: Mapping[str, Any] | None) -> str:
    """Write the interval of a ratio, whose two ends have two significant digits each: "12 to 300"."""
    bounds = ends(estimate)
    return "" if bounds is None else f"{significant(bounds[0])} to {significant(bounds[1])}"


def ends(estimate: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Give both ends of an interval; an end that JSON could not hold is infinite."""
    if estimate is None or estimate["interval"] is None or estimate["interval"] == [None, None]:
        return None
    low, high = estimate["interval"]
    return (-math.inf if low is None else low, math.inf if high is None else high)


def beside(x: float, width: float) -> str:
    """Write a number to the decimals that the width of its interval justifies."""
    if width == 0 or not math.isfinite(width) or abs(width) < 2 * SMALLEST_PLAIN:
        return number(x)
    return fixed(x, max(0, error_places(width / 2)))


def difference(estimate: Mapping[str, Any] | None) -> str:
    """Write a difference to the decimals that its interval justifies, with its sign: "+2.1", "-0.34"."""
    if estimate is None or estimate["value"] is None:
        return MISSING
    bounds = ends(estimate)
    value: float = estimate["value"]
    text = number(value) if bounds is None else beside(value, bounds[1] - bounds[0])
    return f"+{text}" if value > 0 else text


def significant(x: float, digits: int = 2) -> str:
    """Write a number rounded to significant digits, also before the decimal point: 2,961 is "3,000"."""
    if not math.isfinite(x) or not is_plain(x):
        return number(x, digits)
    return fixed(x, places(x, digits)) if x else "0"


def times(ratio: Mapping[str, Any] | None) -> str:
    """Write a ratio as its two significant digits and a multiplication sign."""
    return MISSING if ratio is None or ratio["value"] is None else f"{significant(ratio['value'])} {TIMES}"


def seconds(x: float | None) -> str:
    """Write a duration: "0.42 s", "12.3 s", "3 min 20 s", "2 h 5 min"."""
    if x is None:
        return MISSING
    if x < 99.95:
        return f"{number(x)} s" if x >= 10 else f"{number(x, 2)} s"
    minutes, rest = divmod(round(x), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours:,} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def short(x: float, digits: int) -> str:
    """Write the number beside a mark."""
    return number(x, digits) if is_plain(x) else tick(float(f"{x:.2e}"))


def glued(text: str) -> str:
    """Keep lines of a page from breaking between a number and its unit; a terminal is given plain spaces, to search by."""
    return BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


def tick(x: float) -> str:
    """Write the number beside a tick as short as it can be."""
    if x == 0:
        return "0"
    if 1e-2 <= abs(x) < 1e5:
        return f"{x:,.10g}".replace("-", MINUS)
    mantissa, exponent = f"{x:.3e}".split("e")
    shortest = f"{float(mantissa):g}".replace("-", MINUS)
    factor = {"1": "", f"{MINUS}1": MINUS}.get(shortest, f"{shortest}·")
    return f"{factor}{power(int(exponent))}"
