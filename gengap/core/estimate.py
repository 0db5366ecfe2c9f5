"""Numbers with their errors: means over seeds, paired differences and ratios, each with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value known from n observations.

    Attributes:
        value: the estimate, in the unit of what was observed.
        stdev: sample standard deviation of the observations (n - 1 in the denominator); None for n < 2.
        n: number of observations.
        interval: two-sided 95 % interval of `value`; None for n < 2.
        method: how the interval was made.
    """

    value: float
    stdev: float | None
    n: int
    interval: tuple[float, float] | None
    method: str

    @property
    def stderr(self) -> float | None:
        """Standard error of `value`, or None for n < 2."""
        return None if self.stdev is None else self.stdev / math.sqrt(self.n)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form: value, stdev, n, interval [low, high], method; what is not a finite number is null."""
        interval = None if self.interval is None else [finite(x) for x in self.interval]
        return {
            "value": finite(self.value),
            "stdev": None if self.stdev is None else finite(self.stdev),
            "n": self.n,
            "interval": interval,
            "method": self.method,
        }

    def __str__(self) -> str:
        spread = "" if self.stdev is None else f" ± {self.stdev:.2g}"
        return f"{self.value:.4g}{spread} (n={self.n})"


def finite(x: float) -> float | None:
    """Return x, or None where JSON has no word for it."""
    return x if math.isfinite(x) else None


def total(values: Sequence[float]) -> float:
    """Sum without rounding errors; what leaves the range of floats is infinite or nan instead of an error."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)


def mean(values: Sequence[float]) -> Estimate:
    """Estimate the mean of independent observations, with Student's t interval.

    Args:
        values: at least one observation.

    Returns:
        Mean, sample standard deviation, n and the 95 % t interval.

    Raises:
        ValueError: no observation.
    """
    n = len(values)
    if n == 0:
        raise ValueError("a mean needs at least one observation; got none")
    value = total(values) / n
    if n == 1:
        return Estimate(value, None, 1, None, "one observation, no interval")
    stdev = math.sqrt(total([(x - value) * (x - value) for x in values]) / (n - 1))
    half = t_quantile(n - 1) * stdev / math.sqrt(n)
    return Estimate(value, stdev, n, (value - half, value + half), "Student t, 95 %")


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Estimate the mean of `second - first` over pairs that share their seed.

    Args:
        first: observations of one thing, in the order of the seeds.
        second: observations of the other, in the same order.

    Returns:
        The mean difference with its t interval over pairs.

    Raises:
        ValueError: the two are not equally long, or empty.
    """
    found = mean([b - a for a, b in zip(first, second, strict=True)])
    return Estimate(found.value, found.stdev, found.n, found.interval, f"paired difference, {found.method}")


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """Estimate the geometric mean of `second / first` over pairs that share their seed.

    Args:
        first: observations, in the order of the seeds.
        second: observations of the other, in the same order.

    Returns:
        The ratio with an interval from Student's t on the logarithms (`stdev` is that of the logarithms), or None where
        an observation is not positive and the logarithm does not exist.

    Raises:
        ValueError: the two are not equally long, or empty.
    """
    pairs = list(zip(first, second, strict=True))
    if any(a <= 0 or b <= 0 or not math.isfinite(a * b) for a, b in pairs):
        return None
    found = mean([math.log(b) - math.log(a) for a, b in pairs])
    interval = None if found.interval is None else (safe_exp(found.interval[0]), safe_exp(found.interval[1]))
    method = "paired ratio, Student t on logarithms, 95 %"
    return Estimate(safe_exp(found.value), found.stdev, found.n, interval, method)


def safe_exp(x: float) -> float:
    """Return e**x, infinite where it overflows: two seeds give intervals that wide."""
    return math.exp(x) if x < 700 else math.inf


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + level / 2))
