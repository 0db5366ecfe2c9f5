"""The largest batch whose loss stays within a tolerance, from short branches of one run at several batch sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean, paired_difference
from gengap.core.records import Record

Standing = Literal["reference", "within", "beyond", "undecided"]
Verdict = Literal["found", "at least", "not resolvable"]


@dataclass(frozen=True, slots=True)
class BranchSize(Record):
    """The branches of one batch size.

    Attributes:
        batch_size: B.
        loss: at the end of the branches, over seeds; None where one diverged.
        excess: above the reference branch of the same seed, over seeds; None where one diverged.
        standing: "within" the tolerance or "beyond" it with 95 % confidence, else "undecided"; one seed decides by its value.
    """

    batch_size: int
    loss: Estimate | None
    excess: Estimate | None
    standing: Standing


@dataclass(frozen=True, slots=True)
class Crossing(Record):
    """Where the excess of the loss crosses the tolerance.

    Attributes:
        value: batch size at the crossing, interpolated in the logarithm; None where no size is beyond on average.
        interval: the largest size with all up to it within, and the smallest with all from it on beyond (infinite where
            there is none). Sizes are tested in order from both ends, so that 95 % holds for the whole; None with one seed.
        verdict: "found", "at least" the largest size, or "not resolvable".
        reason: one sentence.
        sizes: the branches, ascending; the first is the reference.
        tolerance: in the unit of the loss.
        n: seeds.
    """

    value: float | None
    interval: tuple[float, float] | None
    verdict: Verdict
    reason: str
    sizes: tuple[BranchSize, ...]
    tolerance: float
    n: int

    def __str__(self) -> str:
        return f"critical batch: {self.reason}"


def branch_crossing(batch_sizes: Sequence[int], losses: npt.ArrayLike, *, tolerance: float) -> Crossing:
    """Find the largest batch size whose loss stays within a tolerance of that of the smallest.

    Args:
        batch_sizes: ascending, at least two; the first is the reference. Shape (k,).
        losses: at the end of branches that start from the same weights and use as many samples, shape (seeds, k); branches of
            one seed see samples in the same order. Not finite where a branch diverged: its size is beyond.
        tolerance: excess of the loss that is accepted, >= 0, in its unit.

    Returns:
        The crossing. Costs nothing.

    Raises:
        BadInput: sizes do not ascend, the losses do not fit them, a reference loss is not finite, or the tolerance is negative.

    Source:
        Merrill et al. 2025, arXiv:2505.23971, who take the largest batch whose smoothed loss is within the tolerance; the
        interpolation and the interval are ours.
    """
    sizes, table = checked(batch_sizes, losses, tolerance)
    others = [of_size(size, table[:, 0], table[:, i], tolerance) for i, size in enumerate(sizes)]
    rows = (replace(others[0], standing="reference"), *others[1:])
    means = [math.inf if row.excess is None else row.excess.value for row in rows]
    value = crossing(sizes, means, tolerance)
    low = float(within_up_to(rows))
    high = beyond_down_to(rows)
    interval = (low, high) if len(table) > 1 else None
    verdict, reason = judged(rows, value, interval)
    return Crossing(value, interval, verdict, reason, rows, tolerance, len(table))


def checked(
    batch_sizes: Sequence[int], losses: npt.ArrayLike, tolerance: float
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Take the arguments of `branch_crossing`, or refuse them."""
    sizes, table = [int(size) for size in batch_sizes], np.atleast_2d(np.asarray(losses, dtype=np.float64))
    if len(sizes) < 2 or sizes != sorted(set(sizes)) or sizes[0] < 1:
        raise BadInput(f"batch_sizes is {list(batch_sizes)}; give at least two, ascending, from 1")
    if table.ndim != 2 or table.shape[1] != len(sizes) or not len(table):
        raise BadInput(
            f"losses has shape {table.shape}; give a row for each seed with {len(sizes)} losses, one each size"
        )
    if not np.isfinite(table[:, 0]).all():
        raise BadInput(f"the branch of batch {sizes[0]:,}, which is the reference, diverged; lower its learning rate")
    if not tolerance >= 0:
        raise BadInput(f"tolerance is {tolerance}; give a number of at least 0")
    return sizes, table


def of_size(
    size: int, reference: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], tolerance: float
) -> BranchSize:
    """Say how one batch size stands beside the reference."""
    if not np.isfinite(losses).all():
        return BranchSize(size, None, None, "beyond")
    loss, above = mean(losses.tolist()), paired_difference(reference.tolist(), losses.tolist())
    low, high = above.interval or (above.value, above.value)
    standing: Standing = "within" if high <= tolerance else "beyond" if low > tolerance else "undecided"
    return BranchSize(size, loss, above, standing)


def within_up_to(rows: Sequence[BranchSize]) -> int:
    """Give the largest size with all up to it within the tolerance; the reference is."""
    last = rows[0].batch_size
    for row in rows[1:]:
        if row.standing != "within":
            break
        last = row.batch_size
    return last


def beyond_down_to(rows: Sequence[BranchSize]) -> float:
    """Give the smallest size with all from it on beyond the tolerance."""
    first = math.inf
    for row in reversed(rows):
        if row.standing != "beyond":
            break
        first = float(row.batch_size)
    return first


def crossing(sizes: Sequence[int], means: Sequence[float], tolerance: float) -> float | None:
    """Interpolate, in the logarithm of the size, where the mean excess first crosses the tolerance."""
    for i in range(1, len(sizes)):
        if means[i] > tolerance:
            if math.isinf(means[i]):
                return float(sizes[i - 1])  # a branch that diverged says nothing of how far beyond it is
            before = min(means[i - 1], tolerance)
            share = (tolerance - before) / (means[i] - before)
            return float(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share)
    return None


def judged(
    rows: Sequence[BranchSize], value: float | None, interval: tuple[float, float] | None
) -> tuple[Verdict, str]:
    """Say what the branches say."""
    largest = rows[-1].batch_size
    if interval is None:
        if value is None:
            return "at least", f"at least {largest:,}: the loss of every batch tried is within the tolerance (one seed)"
        return "found", f"{value:,.0f} (one seed, no interval)"
    low, high = interval
    if low == rows[0].batch_size and math.isinf(high):
        return (
            "not resolvable",
            "seeds differ more than the tolerance at every batch size; add seeds or lengthen branches",
        )
    if math.isinf(high):
        reached = f"at least {low:,.0f}"
        return "at least", reached + (
            ": the loss of every batch tried is within the tolerance"
            if low == largest
            else f"; what lies above, up to {largest:,}, is not resolved with these seeds"
        )
    shown = low if value is None else value
    return "found", f"{shown:,.0f} (between {low:,.0f}, still within the tolerance, and {high:,.0f}, beyond it)"
