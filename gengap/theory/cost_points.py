"""From runs to one point for each batch size: samples to target with the spread of its seeds."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.estimate import mean, safe_exp
from gengap.core.records import Record
from gengap.theory.least_squares import Floats

PRIOR = 4  # seeds' worth of trust in the spread that all batch sizes have in common


@dataclass(frozen=True, slots=True)
class CostPoint(Record):
    """The runs of one batch size.

    Attributes:
        batch_size: B.
        samples: samples to target, geometric mean over the runs; their median where some missed it; None where that
            is not known.
        interval: of `samples`, 95 %, Student t on logarithms; None for one run or where some missed the target.
        runs: how many.
        missed: how many of them did not reach the target.
        used: whether the point is fitted.
        log_stderr: standard error of ln(samples), as far as seeds tell it; 0 where no batch size has two.
        residual_percent: how far `samples` is above the fitted curve; None without a curve or without `samples`.
    """

    batch_size: float
    samples: float | None
    interval: tuple[float, float] | None
    runs: int
    missed: int
    used: bool
    log_stderr: float
    residual_percent: float | None = None

    def beside(self, level: float) -> "CostPoint":
        """Return the point with its residual from a curve whose ln(samples) is `level` here."""
        if self.samples is None:
            return self
        return replace(self, residual_percent=100 * math.expm1(math.log(self.samples) - level))


def cost_points(batch_sizes: npt.ArrayLike, samples: npt.ArrayLike) -> tuple[tuple[CostPoint, ...], tuple[str, ...]]:
    """Gather runs by batch size.

    The variance of a point mixes the spread of its own seeds with the common one, which counts as four of them: two or
    three seeds alone would give some points a weight by luck.

    Args:
        batch_sizes: B of each run, shape (n,).
        samples: samples to target of each run, shape (n,); not finite where it was missed.

    Returns:
        Points by ascending batch size, and a sentence for each one with misses.

    Raises:
        BadInput: shapes do not fit, or a number is not positive.
    """
    sizes, logs = runs(batch_sizes, samples)
    groups = {float(size): logs[sizes == size] for size in np.unique(sizes)}
    whole = [group for group in groups.values() if np.isfinite(group).all()]
    degrees = sum(len(group) - 1 for group in whole)
    common = sum(squares(group) for group in whole) / degrees if degrees else 0.0
    points = tuple(one_point(size, group, common) for size, group in groups.items())
    return points, tuple(missing(point) for point in points if point.missed)


def runs(batch_sizes: npt.ArrayLike, samples: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Take runs.

    Args:
        batch_sizes: B, shape (n,).
        samples: samples to target, shape (n,).

    Returns:
        Batch sizes, and the logarithms of samples, infinite for a miss.

    Raises:
        BadInput: shapes do not fit, or a number is not positive.
    """
    sizes, counts = np.asarray(batch_sizes, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if sizes.ndim != 1 or sizes.shape != counts.shape:
        raise BadInput(f"batch_sizes has shape {sizes.shape} and samples {counts.shape}; give one of each for each run")
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise BadInput(f"batch_sizes holds {sizes[~(np.isfinite(sizes) & (sizes > 0))][0]:g}; give numbers above zero")
    if (counts <= 0).any():
        raise BadInput(f"samples holds {counts[counts <= 0][0]:g}; a target that is met at the start has no cost")
    missed = ~np.isfinite(counts)
    return sizes, np.where(missed, math.inf, np.log(np.where(missed, 1.0, counts)))


def one_point(size: float, logs: Floats, common: float) -> CostPoint:
    """Return the point of one batch size; `common` is the variance of ln(samples) over seeds."""
    n, missed = len(logs), int(np.isinf(logs).sum())
    if missed == 0:
        found = mean(logs.tolist())
        own = (PRIOR * common + squares(logs)) / (PRIOR + n - 1) if common else 0.0
        interval = None if found.interval is None else (safe_exp(found.interval[0]), safe_exp(found.interval[1]))
        return CostPoint(size, math.exp(found.value), interval, n, 0, used=True, log_stderr=math.sqrt(own / n))
    # with its upper end unknown a median is still known; it is worth 2 / pi as many draws as a mean
    known = 2 * missed < n - 1 or (2 * missed < n and n % 2 == 1)
    middle = math.exp(float(np.median(logs))) if known else None
    return CostPoint(size, middle, None, n, missed, used=known, log_stderr=math.sqrt(math.pi / 2 * common / n))


def squares(logs: Floats) -> float:
    """Return the sum of squares about the mean."""
    return float(((logs - logs.mean()) ** 2).sum())


def missing(point: CostPoint) -> str:
    """Say what was done about runs that missed the target."""
    done = "their median stands for the mean" if point.used else "left out, since the others alone would be too low"
    return f"batch {exactly(point.batch_size)}: {point.missed} of {point.runs} runs missed the target; {done}"


def exactly(batch_size: float) -> str:
    """Print a batch size that was run: whole, as everybody knows it."""
    return f"{batch_size:,.0f}" if batch_size == round(batch_size) else rounded(batch_size)


def rounded(x: float) -> str:
    """Print a count with three digits."""
    return f"{float(f'{x:.3g}'):,.0f}" if x >= 100 else f"{x:.3g}"
