"""Noise-dominated and curvature-dominated: at which batch size accuracy stops being flat, and momentum begins to help."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.records import Record
from gengap.theory.broken_line import Bend, falls, fit_bend
from gengap.theory.least_squares import Coefficient
from gengap.theory.seed_table import SeedTable, room, seed_table

Verdict = Literal["transition", "falls throughout", "insensitive", "not resolvable"]
LEAST = 4  # batch sizes below which no bend is looked for


@dataclass(frozen=True, slots=True)
class Transition(Record):
    """Where values that are flat at small batches begin to fall.

    Attributes:
        verdict: "transition"; "falls throughout" where no plateau is seen, so that the transition is at or below the
            upper end of `interval`; "insensitive" where no batch size differs by more than the tolerance; "not resolvable".
        reason: one sentence with the numbers it rests on.
        batch_size: the transition batch; None without a bend.
        interval: of the transition batch where there is a fall; its lower end is None where no plateau is seen.
        level: value on the plateau, or the mean of all values; None for too few batch sizes.
        drop: from the plateau to the largest batch; None likewise.
        shape: of the fall in log2 B beyond the bend: 1 straight, 2 quadratic; None without a bend.
        n: number of values.
        sizes: number of batch sizes used.
    """

    verdict: Verdict
    reason: str
    batch_size: Coefficient | None
    interval: tuple[float | None, float] | None
    level: float | None
    drop: float | None
    shape: int | None
    n: int
    sizes: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Separation(Record):
    """One method against another over batch sizes, by pairs that share their seed.

    Attributes:
        verdict: "transition" where they are equal and then part, else as of `Transition`.
        reason: one sentence.
        transition: where the difference begins to fall.
        differences: mean of first - second at each batch size, with its interval.
        sizes: those batch sizes.
        equal_below: largest batch size up to which no difference is told from zero, at 5 % over all batch sizes together;
            None: they differ at the smallest.
        worse_from: smallest batch size from which on the first is worse at every batch size; None: at none.
    """

    verdict: Verdict
    reason: str
    transition: Transition
    differences: tuple[Estimate, ...]
    sizes: tuple[float, ...]
    equal_below: float | None
    worse_from: float | None

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def find_transition(
    batch_sizes: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    seeds: npt.ArrayLike | None = None,
    tolerance: float = 0.0,
    higher_is_better: bool = True,
) -> Transition:
    """Find the batch size where values begin to get worse.

    A plateau and a fall, straight or quadratic in log2 B, are fitted to the means over seeds; the interval of the bend is
    that of the profile over both shapes. Before that a fall has to be there at all: tests from each batch size, at 2.5 %
    over all. Batch sizes that scatter unlike, as those near the limit of stability do, weigh by their own scatter, and the
    slope is then tested from seed to seed. Where values get worse toward small batches too (they cannot be trained, or their
    best learning rate was not on the grid), the part below that bend is left out, and the reason says so.

    Args:
        batch_sizes: of each observation, each at its own best learning rate, shape (n,).
        values: test accuracy in percent, or a loss, shape (n,).
        seeds: of the runs, shape (n,); pairs make the differences between batch sizes sharper. None: not paired.
        tolerance: a difference that does not matter, in the unit of the values: within it the verdict is "insensitive".
        higher_is_better: False for a loss.

    Returns:
        The transition with its interval, or why there is none. Costs a millisecond for each batch size.

    Raises:
        BadInput: the vectors do not fit each other, a number is out of range, or a seed occurs twice at a batch size.

    Source:
        Smith, Elsen & De 2020, arXiv:2006.15081 (flat and then falling; the transition is sharp). The fit is ours.
    """
    if not tolerance >= 0:
        raise BadInput(f"tolerance is {tolerance!r}; give a number of at least 0")
    table = seed_table(batch_sizes, values, seeds)
    if not higher_is_better:
        table = SeedTable(table.sizes, -table.values, table.paired)
    sign = 1.0 if higher_is_better else -1.0
    if len(table.sizes) < LEAST:
        reason = f"a plateau and a fall need at least {LEAST} batch sizes, got {len(table.sizes)}"
        return without_bend("not resolvable", reason, table, sign)
    kept, note = without_rise(table)
    if not falls(kept):
        return unfallen(kept, sign, tolerance, note)
    return bent(kept, fit_bend(kept), sign, note)


def without_rise(table: SeedTable) -> tuple[SeedTable, str]:
    """Leave out the smallest batches that are worse than the best one, if enough are left; say so."""
    if not table.scatter()[1]:
        return table, ""
    best = int(table.means.argmax())
    allowed = room(*table.errors_against(best), 1 - 0.05 / len(table.sizes))
    start = int((table.means[best] - table.means <= allowed).argmax())
    start = min(start, len(table.sizes) - LEAST)
    if not start:
        return table, ""
    kept = table.part(np.arange(len(table.sizes)) >= start)
    return kept, f"; batches below {kept.sizes[0]:,.0f} are worse too and were left out"


def bent(table: SeedTable, bend: Bend, sign: float, note: str) -> Transition:
    """Describe a fall."""
    x = np.log2(table.sizes)
    drop = bend.slope * (x[-1] - bend.knot) ** bend.shape
    low, high = 2**bend.low, 2**bend.high
    ends = f"{bend.level * sign:.4g} before the fall, worse by {drop:.3g} at batch {table.sizes[-1]:,.0f}"
    common: dict[str, Any] = {"level": sign * bend.level, "drop": float(drop), "n": table.n, "sizes": len(table.sizes)}
    if bend.low <= x[0] + 1e-9:
        reason = f"no plateau is seen: the fall may begin at or below the smallest batch, at {high:,.0f} at most ({ends}{note})"
        return Transition("falls throughout", reason, None, (None, high), shape=bend.shape, **common)
    method = "plateau and fall in log2 B, profile over straight and quadratic falls, 95 %"
    size = Coefficient(float(2**bend.knot), None, (low, high), table.n, method)
    reason = f"flat up to batch {2**bend.knot:,.0f} (95 % {low:,.0f} to {high:,.0f}), then falling ({ends}{note})"
    return Transition("transition", reason, size, (low, high), shape=bend.shape, **common)


def unfallen(table: SeedTable, sign: float, tolerance: float, note: str) -> Transition:
    """Say whether there is no fall, or none that could be seen."""
    spread = np.abs(table.means - table.values[np.isfinite(table.values)].mean())
    if not table.scatter()[1]:
        reason = (
            f"one seed cannot tell a fall from chance (batch sizes differ by up to {np.ptp(table.means):.3g}){note}"
        )
        return without_bend("not resolvable", reason, table, sign)
    most = float((spread + room(*table.errors(), 1 - 0.05 / len(table.sizes))).max())
    sizes = f"batches {table.sizes[0]:,.0f} to {table.sizes[-1]:,.0f}"
    if most <= tolerance:
        reason = f"no batch size of {sizes} is off their mean by more than {most:.2g}, and {tolerance:g} does not matter{note}"
        return without_bend("insensitive", reason, table, sign)
    reason = f"no fall over {sizes} stands out; one of up to {most:.2g} may hide in the noise{note}"
    return without_bend("not resolvable", reason, table, sign)


def without_bend(verdict: Verdict, reason: str, table: SeedTable, sign: float) -> Transition:
    """Make the answer where no bend was found."""
    level = float(table.values[np.isfinite(table.values)].mean())
    drop = float(table.means[0] - table.means[-1]) if len(table.sizes) >= LEAST else None
    return Transition(verdict, reason, None, None, sign * level, drop, None, table.n, len(table.sizes))


def find_separation(
    batch_sizes: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    seeds: npt.ArrayLike | None = None,
    tolerance: float = 0.0,
    higher_is_better: bool = True,
) -> Separation:
    """Find the batch size from which on one method is worse than another, say SGD than momentum.

    Args:
        batch_sizes: of each pair of runs, shape (n,).
        first: values of the method that may fall behind, at its own best learning rate, shape (n,).
        second: values of the other, in the same order.
        seeds: that the two runs of a pair share, shape (n,).
        tolerance: a difference that does not matter.
        higher_is_better: False for losses.

    Returns:
        Paired differences with the interval of each batch size, and the transition of their fall.

    Raises:
        BadInput: the vectors do not fit each other, or what `find_transition` refuses.

    Source:
        Smith, Elsen & De 2020, arXiv:2006.15081: equal while noise dominates, since only lr / (1 - m) counts; apart where
        curvature does.
    """
    sign = 1.0 if higher_is_better else -1.0
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape:
        raise BadInput(f"first has shape {one.shape} and second {other.shape}; give a value of each for each pair")
    away = sign * (one - other)
    table = seed_table(batch_sizes, away, seeds)
    found = find_transition(batch_sizes, away, seeds=seeds, tolerance=tolerance)
    columns = [table.values[np.isfinite(table.values[:, j]), j].tolist() for j in range(len(table.sizes))]
    differences = tuple(mean(column) for column in columns)
    signs = [side(each) for each in differences]
    worse = next((i for i in range(len(signs)) if all(s < 0 for s in signs[i:])), None)
    apart = min(first_apart(table), len(signs) if worse is None else worse)
    verdict, reason = found.verdict, found.reason
    if verdict == "insensitive" and abs(found.level or 0.0) > tolerance:
        verdict, reason = "not resolvable", f"the two differ by {found.level:.3g} at every batch size alike"
    return Separation(
        verdict=verdict,
        reason=reason,
        transition=found,
        differences=differences,
        sizes=tuple(float(size) for size in table.sizes),
        equal_below=float(table.sizes[apart - 1]) if apart else None,
        worse_from=None if worse is None else float(table.sizes[worse]),
    )


def first_apart(table: SeedTable) -> int:
    """Return the first batch size whose mean is told from zero, at 5 % over all of them; their number where none is.

    What a seed adds to all batch sizes counts as scatter: it moves a mean, if not its differences.
    """
    error, degrees = SeedTable(table.sizes, table.values, paired=False).errors()
    if not degrees.any():
        return len(table.sizes)
    apart = np.abs(table.means) > room(error, degrees, 1 - 0.05 / len(table.sizes))
    return int(apart.argmax()) if apart.any() else len(table.sizes)


def side(difference: Estimate) -> int:
    """Return on which side of zero an interval lies; 0 where it holds zero or does not exist."""
    if difference.interval is None:
        return 0
    low, high = difference.interval
    return int(low > 0) - int(high < 0)
