"""A ratio of two means with its error, also where the denominator may be zero."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.estimate import t_quantile
from gengap.core.records import Record

Floats = npt.NDArray[np.float64]
Outcome = Literal["bounded", "denominator not distinguishable from zero"]
BOUNDED: Outcome = "bounded"
UNBOUNDED: Outcome = "denominator not distinguishable from zero"


@dataclass(frozen=True, slots=True)
class Ratio(Record):
    """A ratio of two means over the same draws.

    Attributes:
        value: mean of the numerators / mean of the denominators; infinite or nan where the latter is exactly zero.
        stderr: jackknife standard error; means little where the outcome is not "bounded".
        n: number of draws.
        interval: Fieller's 95 % interval; an end may be infinite, and it is None where every ratio is possible.
        jackknife_interval: value without its jackknife bias, plus and minus t standard errors; None where not finite.
        bias: jackknife estimate of how much `value` is too large on average; None where not finite.
        outcome: "bounded", or "denominator not distinguishable from zero": then there is no upper bound.
        method: how `interval` was made.
    """

    value: float
    stderr: float | None
    n: int
    interval: tuple[float, float] | None
    jackknife_interval: tuple[float, float] | None
    bias: float | None
    outcome: Outcome
    method: str

    def __str__(self) -> str:
        if self.outcome == UNBOUNDED:
            least = "" if self.interval is None else f", at least {self.interval[0]:.4g}"
            return f"{self.value:.4g}{least}; {self.outcome} (n={self.n})"
        assert self.interval is not None
        return f"{self.value:.4g} (95 % {self.interval[0]:.4g} to {self.interval[1]:.4g}, n={self.n})"


def ratio_interval(numerators: npt.ArrayLike, denominators: npt.ArrayLike, *, nonnegative: bool = False) -> Ratio:
    """Estimate E[numerator] / E[denominator] from paired draws.

    The ratio of the means is taken, never the mean of the ratios. Fieller's interval inverts the t test of
    mean(numerator) - ratio mean(denominator) = 0, so it covers the truth in 95 of 100 cases however near to zero the
    denominator is, for normal means; its price is that it may be unbounded, which is an answer.

    Args:
        numerators: draws, shape (n,), n >= 2; for a noise scale, of tr(Sigma).
        denominators: draws made together with them, shape (n,); of |G|^2. Single draws may be negative.
        nonnegative: both means are known to be >= 0, as those of a trace and of a squared norm: the interval keeps to
            ratios >= 0, and where the denominator may be zero it still has a lower end if the numerator may not.

    Returns:
        The ratio with jackknife standard error and both intervals.

    Raises:
        BadInput: the two are not equally long, have fewer than two draws, or hold what is not finite.

    Source:
        Fieller 1954, Journal of the Royal Statistical Society B 16, 175; Quenouille 1956, Biometrika 43, 353.
    """
    a, b = draws(numerators, "numerators"), draws(denominators, "denominators")
    if len(a) != len(b):
        raise BadInput(f"there are {len(a)} numerators and {len(b)} denominators; give them in pairs")
    n = len(a)
    covariance = np.cov(a, b) / n
    value = quotient(a.mean(), b.mean())
    interval, outcome = fieller(a.mean(), b.mean(), covariance, t_quantile(n - 1), nonnegative=nonnegative)
    stderr, bias = jackknife(a, b, value)
    near = None
    if stderr is not None and bias is not None:
        half = t_quantile(n - 1) * stderr
        near = (value - bias - half, value - bias + half)
    return Ratio(value, stderr, n, interval, near, bias, outcome, "Fieller, Student t, 95 %")


def fieller(
    numerator: float, denominator: float, covariance: npt.ArrayLike, quantile: float, *, nonnegative: bool = False
) -> tuple[tuple[float, float] | None, Outcome]:
    """Bound a ratio of two estimates that have errors.

    Args:
        numerator: estimate a.
        denominator: estimate b.
        covariance: of (a, b), shape (2, 2): squared standard errors and their covariance.
        quantile: two-sided quantile of the test, for example 1.96 for 95 %.
        nonnegative: the true a and b are both >= 0.

    Returns:
        The interval of all ratios r for which a - r b is within `quantile` of its standard errors, and the outcome.
        With the denominator not distinguishable from zero these ratios are all numbers, or all without a gap around
        zero where the numerator is distinguishable: the interval is None, except with `nonnegative`, where it goes from
        the upper end of the gap (or 0) to infinity. So it does where the denominator is significantly negative although
        `nonnegative` says that it cannot be.
    """
    (va, vab), (_, vb) = np.asarray(covariance, dtype=np.float64).tolist()
    # (a - r b)^2 <= q^2 (va - 2 r vab + r^2 vb) is p r^2 - 2 h r + c <= 0
    q2 = quantile * quantile
    p, h, c = denominator**2 - q2 * vb, numerator * denominator - q2 * vab, numerator**2 - q2 * va
    root = math.sqrt(max(0.0, h * h - p * c))
    if p > 0 and not (nonnegative and denominator < 0):
        low, high = (h - root) / p, (h + root) / p
        return ((max(low, 0.0), max(high, 0.0)) if nonnegative else (low, high)), BOUNDED
    if not nonnegative:
        return None, UNBOUNDED
    has_gap = p <= 0 and c > 0 and numerator > 0
    return (end_of_gap(p, h, c, root) if has_gap else 0.0, math.inf), UNBOUNDED


def end_of_gap(p: float, h: float, c: float, root: float) -> float:
    """Return the positive root of p r^2 - 2 h r + c for p <= 0 < c, in the one of its two forms that cancels no digits."""
    if h >= 0:
        return c / (h + root)
    return (h - root) / p if p else math.inf


def jackknife(a: Floats, b: Floats, value: float) -> tuple[float | None, float | None]:
    """Return standard error and bias of a ratio of means from leaving out each draw; None where one is not finite."""
    n = len(a)
    tops, bottoms = a.sum() - a, b.sum() - b
    if not (math.isfinite(value) and bottoms.all()):
        return None, None
    without = tops / bottoms
    stderr = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return stderr, (n - 1) * (float(without.mean()) - value)


def draws(values: npt.ArrayLike, name: str) -> Floats:
    """Take a vector of finite draws.

    Args:
        values: the draws.
        name: what to call them.

    Returns:
        The draws in float64, shape (n,).

    Raises:
        BadInput: they are not a vector, fewer than two, or not finite.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2:
        raise BadInput(f"{name} has shape {found.shape}; give a vector of at least two draws")
    if not np.isfinite(found).all():
        raise BadInput(
            f"{name} holds {int((~np.isfinite(found)).sum())} values that are not finite; leave those draws out"
        )
    return found


def quotient(a: float, b: float) -> float:
    """Return a / b as a float; infinite or nan where b is zero."""
    if b == 0:
        return math.nan if a == 0 else math.copysign(math.inf, a)
    return float(a) / float(b)
