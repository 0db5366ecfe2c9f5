"""The batch size that tests best, with its error, and whether it grows in proportion to lr, N and 1 / (1 - m)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import fdtr

from gengap.core.errors import BadInput
from gengap.core.estimate import t_quantile
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.least_squares import Coefficient, Floats, line_with_errors, widening
from gengap.theory.seed_table import SeedTable, room, seed_table

PeakVerdict = Literal["peak", "lower edge", "upper edge", "not resolvable"]
Word = Literal["proportional", "not proportional", "not resolvable"]
WINDOW = 2  # neighbours on either side of the best that the parabola is laid through
LEAST = 3  # peaks of a fit
RESAMPLES = 1_000
LOPSIDED = 0.25  # octaves between a wide and a narrow parabola from which on neither says where the top is


@dataclass(frozen=True, slots=True)
class Peak(Record):
    """The best batch size on a grid.

    Attributes:
        verdict: "peak" where values fall on both sides beyond the noise (or, of one seed, at all); "lower edge" or "upper
            edge" where the best is the smallest or largest batch, which only bounds it; "not resolvable".
        reason: one sentence.
        batch_size: highest mean over seeds.
        bar: neighbours of it on the grid; an end is None at an edge.
        value: mean there.
        resampled: 2.5 % and 97.5 % of the best batch size over resamples of the seeds; None for one seed.
        share: of the resamples that have the same best; None likewise.
        smooth: top of a parabola in log2 B through the best and up to two neighbours on each side, with an interval from
            the seeds; None where these have no top, or are too lopsided for a parabola, as beside batches that hardly train.
        n: number of values.
        seeds: number of seeds.
    """

    verdict: PeakVerdict
    reason: str
    batch_size: float
    bar: tuple[float | None, float | None]
    value: float
    resampled: tuple[float, float] | None
    share: float | None
    smooth: Coefficient | None
    n: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Proportion(Record):
    """best batch = factor x^slope, put to the test of slope 1.

    Attributes:
        verdict: "proportional" where the interval of the slope holds 1 and not 0, "not proportional" where it leaves 1
            out, "not resolvable" where it holds both, or for too few peaks.
        reason: one sentence.
        slope: on the scale of both logarithms; None for too few peaks.
        intercept: log2 of the best batch at x = 1; None likewise.
        constant: best batch / x with the slope held at 1; None likewise.
        n: peaks used.
        bounds: values of x whose best batch was at an edge or not resolvable.
        centre: mean log2 x of the peaks.
        stderr: of the curve at the centre, in octaves; None likewise.
    """

    verdict: Word
    reason: str
    slope: Coefficient | None
    intercept: float | None
    constant: Coefficient | None
    n: int
    bounds: int
    centre: float | None = None
    stderr: float | None = None

    def predict(self, x: float) -> tuple[float, float, float]:
        """Predict the best batch size, and the 95 % interval of the curve there.

        Args:
            x: lr, N or 1 / (1 - m); outside of what was run it holds as far as the power does.

        Returns:
            Best batch size, lower and upper end.

        Raises:
            BadInput: x is not positive, or there is no fit.
        """
        if self.slope is None or self.intercept is None or self.stderr is None or self.centre is None:
            raise BadInput(f"there is nothing to predict from: {self.reason}")
        if not x > 0:
            raise BadInput(f"x is {x!r}; give a positive number")
        assert self.slope.stderr is not None
        middle = self.intercept + self.slope.value * math.log2(x)
        away = self.slope.stderr * (math.log2(x) - self.centre)
        half = t_quantile(self.n - 2) * math.hypot(self.stderr, away)
        return 2**middle, 2 ** (middle - half), 2 ** (middle + half)

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def find_peak(
    batch_sizes: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    seeds: npt.ArrayLike | None = None,
    higher_is_better: bool = True,
    lost: Sequence[float] = (),
    seed: int = 0,
) -> Peak:
    """Find the batch size with the best mean, and how sure that is.

    Three errors are given: the bar to the neighbours on the grid, as the paper draws it; the spread of the best over
    resamples of the seeds; and that of the top of a parabola. Where a curve is flat, the best is an accident of the noise:
    a peak is only said to be one if on each side some batch size is worse by more than Student's t allows (5 % over both
    sides and all batch sizes).

    Args:
        batch_sizes: of each observation, all of one learning rate, N and momentum, shape (n,).
        values: test accuracy in percent, or a loss, shape (n,).
        seeds: of the runs, shape (n,).
        higher_is_better: False for a loss.
        lost: batch sizes at which runs diverge: they have no value, and are worse than any that has one.
        seed: of the resampling.

    Returns:
        The best batch size.

    Source:
        Smith & Le 2018, arXiv:1710.06451, figures 5b, 6b and 7b.
    """
    table = seed_table(batch_sizes, values, seeds)
    if not higher_is_better:
        table = SeedTable(table.sizes, -table.values, table.paired)
    best = int(table.means.argmax())
    size = float(table.sizes[best])
    grid = [*table.sizes.tolist(), *map(float, lost)]
    below, above = [each for each in grid if each < size], [each for each in grid if each > size]
    rows = resamples(table, seed)
    tops = table.sizes[rows.argmax(axis=1)]
    verdict, reason = judge_peak(table, best, tops, (any(x < size for x in lost), any(x > size for x in lost)))
    return Peak(
        verdict=verdict,
        reason=reason,
        batch_size=size,
        bar=(max(below, default=None), min(above, default=None)),
        value=float(table.means[best]) * (1 if higher_is_better else -1),
        resampled=None if len(tops) < 2 else (nearest(tops, 0.025), nearest(tops, 0.975)),
        share=None if len(tops) < 2 else float((tops == size).mean()),
        smooth=smooth_top(table, best, rows),
        n=table.n,
        seeds=len(table.values),
    )


def resamples(table: SeedTable, seed: int) -> Floats:
    """Return means of the batch sizes over resamples of the seeds, shape (r, b); of one seed, those of the table alone."""
    S = len(table.values)
    if S < 2:
        return table.means[None]
    rng = np.random.default_rng(stream(seed, "seeds of a peak"))
    drawn = table.values[rng.integers(S, size=(RESAMPLES, S))]
    there = np.isfinite(drawn)
    counts = there.sum(axis=1)
    means = np.where(there, drawn, 0.0).sum(axis=1) / np.maximum(counts, 1)
    return np.where(counts > 0, means, table.means)


def nearest(tops: Floats, share: float) -> float:
    """Return a quantile that is one of the batch sizes."""
    return float(np.quantile(tops, share, method="inverted_cdf"))


def judge_peak(table: SeedTable, best: int, tops: Floats, diverging: tuple[bool, bool]) -> tuple[PeakVerdict, str]:
    """Say whether the best batch size is a peak, and why; on a side where runs diverge there are worse ones."""
    size, last = f"{table.sizes[best]:,.0f}", len(table.sizes) - 1
    if not table.scatter()[1]:
        word = (
            "at the edge of the grid"
            if best in {0, last}
            else "between its neighbours; one seed tells nothing of the noise"
        )
        found: PeakVerdict = "lower edge" if best == 0 else "upper edge" if best == last else "peak"
        return found, f"batch {size} is best, {word}"
    worse = table.means[best] - table.means > room(*table.errors_against(best), 1 - 0.05 / max(1, last))
    left, right = bool(worse[:best].any()) or diverging[0], bool(worse[best + 1 :].any()) or diverging[1]
    share = f"best in {100 * float((tops == table.sizes[best]).mean()):.0f} % of resamples of the seeds"
    if left and right:
        return "peak", f"batch {size} is best, worse ones lie on both sides ({share})"
    if right and best == 0 and not left:
        return "lower edge", f"the smallest batch, {size}, is best: the peak lies there or below"
    if left and best == last and not right:
        return "upper edge", f"the largest batch, {size}, is best: the peak lies there or above"
    where = "on either side" if not (left or right) else "below it" if right else "above it"
    return "not resolvable", f"batch {size} is best, but none {where} is worse beyond the noise ({share})"


def smooth_top(table: SeedTable, best: int, rows: Floats) -> Coefficient | None:
    """Lay a parabola in log2 B through the means around the best; give its top with an interval from the seeds."""
    near = slice(max(0, best - WINDOW), best + WINDOW + 1)
    x = np.log2(table.sizes[near])
    if len(x) < 3 or best in {0, len(table.sizes) - 1}:
        return None
    top = float(tops_of(x, table.means[None, near])[0])
    if not x[0] <= top <= x[-1]:
        return None
    S = len(table.values)
    if S < 2:
        return Coefficient(2**top, None, None, table.n, "parabola in log2 B; one seed, no interval")
    # a resample without a top lies as far off as the window reaches
    drawn = np.clip(np.nan_to_num(tops_of(x, rows[:, near]), nan=x[-1]), x[0], x[-1])
    # resampling n seeds makes the spread smaller than it is by (n - 1) / n
    of_seeds = float(np.mean((drawn - top) ** 2) * S / (S - 1))
    moved = lopsidedness(table, best, near, top)
    if moved > LOPSIDED:
        return None
    stderr = math.hypot(math.sqrt(of_seeds), moved)
    half = t_quantile(S - 1) * stderr
    method = "parabola in log2 B, resampled seeds and its misfit, Student t, 95 %; stderr in octaves"
    return Coefficient(2**top, stderr, (2 ** (top - half), 2 ** (top + half)), table.n, method)


def lopsidedness(table: SeedTable, best: int, near: slice, top: float) -> float:
    """Return how far the top moves for a narrower parabola, where the wide one misses the means beyond the noise; else 0."""
    inside = np.zeros(len(table.sizes), dtype=np.bool_)
    inside[near] = True
    part, narrow = table.part(inside), slice(best - 1, best + 2)
    x, (variance, degrees) = np.log2(part.sizes), table.scatter()
    left = len(x) - 3
    if not left or not degrees or not variance:
        return 0.0
    rest = part.means - np.polyval(np.polyfit(x - x.mean(), part.means, 2), x - x.mean())
    if fdtr(left, degrees, float(part.counts @ rest**2) / left / variance) < 0.95:
        return 0.0
    other = float(tops_of(np.log2(table.sizes[narrow]), table.means[None, narrow])[0])
    return abs(other - top)


def tops_of(x: Floats, rows: Floats) -> Floats:
    """Return where the least-squares parabola of each row has its top, shape (r,); nan where it has none."""
    middle = x.mean()
    design = np.stack([(x - middle) ** 2, x - middle, np.ones_like(x)], axis=1)
    bent, slope, _ = np.linalg.lstsq(design, rows.T, rcond=None)[0]
    return np.asarray(np.where(bent < 0, middle - slope / np.where(bent < 0, 2 * bent, -1.0), np.nan))


def fit_proportion(x: npt.ArrayLike, peaks: Sequence[Peak], *, of: str = "x", smooth: bool = True) -> Proportion:
    """Fit the best batch size by a power of lr, N or 1 / (1 - m), and put the power 1 to the test.

    Args:
        x: lr, N or 1 / (1 - m), > 0, shape (n,).
        peaks: of each, in the same order. Only those with the verdict "peak" are fitted; the others are counted.
        of: what x is, for the sentence.
        smooth: take tops of parabolas with the error from seeds, where every peak has one; otherwise, and with False, the
            best on the grid as anywhere between its neighbours, as in the paper.

    Returns:
        The slope with its interval. Errors are widened where peaks scatter about the line by more than they say.

    Raises:
        BadInput: there are not as many peaks as x, or an x is not positive.

    Source:
        Smith & Le 2018, arXiv:1710.06451: B proportional to lr N / (1 - m).
    """
    at = np.asarray(x, dtype=np.float64)
    if at.shape != (len(peaks),) or not (at > 0).all():
        raise BadInput(f"x has shape {at.shape} for {len(peaks)} peaks; give a positive number for each")
    used = [i for i, peak in enumerate(peaks) if peak.verdict == "peak"]
    u, bounds = np.log2(at[used]), len(peaks) - len(used)
    if len(np.unique(u)) < LEAST:
        several = f", at {len(np.unique(u))} values of {of}" if len(np.unique(u)) < len(used) else ""
        reason = f"{len(used)} of {len(peaks)} best batch sizes are resolved peaks{several}; a slope needs {LEAST}"
        return Proportion("not resolvable", reason, None, None, None, len(used), bounds)
    y, stdev, method = heights([peaks[i] for i in used], smooth=smooth)
    return line_of(u, y, stdev, method=method, of=of, bounds=bounds)


def heights(peaks: Sequence[Peak], *, smooth: bool) -> tuple[Floats, Floats, str]:
    """Give log2 of the best batch sizes, their errors, and what they are."""
    tops = [peak.smooth for peak in peaks]
    if smooth and all(top is not None and top.stderr is not None for top in tops):
        y = np.log2([top.value for top in tops if top])
        return y, np.array([top.stderr or 0.0 for top in tops if top]), "tops of parabolas, errors from seeds"
    bars = np.array([peak.bar for peak in peaks], dtype=np.float64)
    y = np.log2([peak.batch_size for peak in peaks])
    return y, np.log2(bars[:, 1] / bars[:, 0]) / math.sqrt(12), "best on the grid, anywhere between its neighbours"


def line_of(u: Floats, y: Floats, stdev: Floats, *, method: str, of: str, bounds: int) -> Proportion:
    """Fit the line of both logarithms and judge its slope."""
    n = len(u)
    # errors from few seeds differ by chance alone; a weight must not let one point decide the line
    stdev = np.maximum(stdev, np.median(stdev))
    stdev = np.maximum(stdev, 1e-9)
    line = line_with_errors(u, y, stdev)
    note = f"weighted least squares of log2, {method}, Student t, 95 %"
    found = Coefficient.student(line.slope, line.slope_stderr, n - 2, n=n, method=note)
    assert found.interval is not None
    low, high = found.interval
    word: Word = "not proportional"
    if low <= 1 <= high:
        word = "proportional" if low > 0 else "not resolvable"
    allowed = {"proportional": "which allows 1 and not 0", "not proportional": "which leaves 1 out"}
    reason = f"the best batch goes as {of} to the power {found}, {allowed.get(word, 'which allows 0 and 1')}"
    if bounds:
        reason += f" ({bounds} best batch sizes only bounded)"
    return Proportion(
        verdict=word,
        reason=reason,
        slope=found,
        intercept=line.intercept,
        constant=held_at_one(u, y, stdev, note),
        n=n,
        bounds=bounds,
        centre=line.centre,
        stderr=line.height_stderr,
    )


def held_at_one(u: Floats, y: Floats, stdev: Floats, note: str) -> Coefficient:
    """Give best batch / x, the slope held at 1."""
    n, weights = len(u), stdev**-2.0
    level = float(weights @ (y - u) / weights.sum())
    scale = widening(float(weights @ (y - u - level) ** 2), n - 1)
    stderr = scale / math.sqrt(float(weights.sum()))
    half = t_quantile(n - 1) * stderr
    return Coefficient(2**level, None, (2 ** (level - half), 2 ** (level + half)), n, f"slope held at 1; {note}")
