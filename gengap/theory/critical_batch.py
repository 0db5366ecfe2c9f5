"""The critical batch size: fits of samples-to-target against batch size, or why there is none."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.cost_laws import LAWS, MCCANDLISH, PERFECT, LawFit, Means, Region, fit_law, region
from gengap.theory.cost_points import CostPoint, cost_points, exactly, rounded
from gengap.theory.least_squares import Floats

Verdict = Literal["resolved", "lower bound", "upper bound", "not resolvable"]

LEAST = 4  # batch sizes: two coefficients, and two left to see the scatter
DECISIVE = 6.0  # difference of AICc that takes the place of McCandlish's law
METHOD = "profile likelihood, Student t over batch sizes, 95 %"


@dataclass(frozen=True, slots=True)
class Bounded(Record):
    """A positive number that the points may bound on one side only.

    Attributes:
        value: the estimate; None where a side has no bound.
        interval: 95 %; the low end is 0, or the high end infinite, where there is no such bound.
        n: number of batch sizes it rests on.
        method: how the interval was made.
    """

    value: float | None
    interval: tuple[float, float]
    n: int
    method: str = METHOD

    def __str__(self) -> str:
        low, high = self.interval
        if self.value is not None:
            return f"{rounded(self.value)} (95 % {rounded(low)} to {rounded(high)})"
        if low == 0:
            return "not resolvable" if math.isinf(high) else f"at most {rounded(high)}"
        return f"at least {rounded(low)}"


@dataclass(frozen=True, slots=True)
class RankedLaw(Record):
    """One law on all batch sizes.

    Attributes:
        name: "McCandlish", "perfect scaling", "power form" or "three regimes".
        formula: of its curve.
        parameters: its numbers at the best fit, batch sizes in samples.
        e_min: samples to target of small batches at the best fit.
        aicc: above that of the best law; None where there are too few batch sizes for this law to be compared.
        residual_percent: root mean square of what the batch sizes miss the curve by.
        scatter_percent: how much of that is beyond what the seeds explain.
    """

    name: str
    formula: str
    parameters: dict[str, float]
    e_min: float
    aicc: float | None
    residual_percent: float
    scatter_percent: float


@dataclass(frozen=True, slots=True)
class CriticalBatch(Record):
    """How the cost of a target depends on the batch size.

    Attributes:
        verdict: whether the points bound the critical batch size: "resolved"; "lower bound" where all may scale
            perfectly; "upper bound" where steps may be constant in all; "not resolvable".
        reason: one sentence with the numbers that decided.
        b_crit: the batch size with twice the samples of small batches; None for too few batch sizes.
        e_min: samples to target of small batches; None likewise.
        s_min: steps to target of large batches; None likewise, and for the power form, whose steps have no limit.
        law: the law all this and the curve stand on; None for too few batch sizes.
        law_reason: why that one.
        laws: all that were fitted, best first.
        points: the batch sizes, ascending.
        notes: what was left out, and what else a reader should know.
    """

    verdict: Verdict
    reason: str
    b_crit: Bounded | None
    e_min: Bounded | None
    s_min: Bounded | None
    law: str | None
    law_reason: str
    laws: tuple[RankedLaw, ...]
    points: tuple[CostPoint, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"

    def samples(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Return the samples to target of the fitted curve.

        Args:
            batch_sizes: B > 0, any shape.

        Returns:
            E(B) in the same shape.

        Raises:
            BadInput: a batch size is not positive, or there is no curve.
        """
        x = self._logarithms(batch_sizes)
        return np.asarray(np.exp(self._fit().curve(x.ravel())).reshape(x.shape))

    def steps(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Return the steps to target of the fitted curve, E(B) / B; see `samples`."""
        return self.samples(batch_sizes) / np.asarray(batch_sizes, dtype=np.float64)

    def band(self, batch_sizes: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return the 95 % band of the samples to target: of the curve at each batch size, not of a new run.

        Args:
            batch_sizes: B > 0, any shape; outside of those that were run it holds as far as the law does.

        Returns:
            Lower and upper end in the same shape. Costs a fit, some hundredths of a second.

        Raises:
            BadInput: a batch size is not positive, or there is no curve.
        """
        x = self._logarithms(batch_sizes)
        low, high = region(self._fit()).band(x.ravel())
        return np.exp(low).reshape(x.shape), np.exp(high).reshape(x.shape)

    def _fit(self) -> LawFit:
        """Fit the curve again: it costs less than keeping all that the region holds in the record."""
        law = next(law for law in LAWS if law.name == self.law)
        return fit_law(law, means_of(self.points))

    def _logarithms(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Take batch sizes to ask the curve about."""
        if self.law is None:
            raise BadInput(f"there is no curve: {self.reason}")
        sizes = np.asarray(batch_sizes, dtype=np.float64)
        if not (sizes > 0).all():
            raise BadInput(f"batch_sizes holds {sizes.min():g}; ask for sizes above zero")
        return np.asarray(np.log(sizes))


def fit_critical_batch(batch_sizes: npt.ArrayLike, samples: npt.ArrayLike) -> CriticalBatch:
    r"""Fit the samples to a target against the batch size, everything else tuned anew for each batch size.

    .. math::
        E(B) = E_{min} \left(1 + \frac{B}{B_{crit}}\right)
        \quad\Longleftrightarrow\quad
        \left(\frac{S}{S_{min}} - 1\right) \left(\frac{E}{E_{min}} - 1\right) = 1,
        \qquad S = \frac{E}{B}, \quad S_{min} = \frac{E_{min}}{B_{crit}}.

    Beside it stand perfect scaling, E constant; a power form, 1 + (B/B_crit)^a; and Shallue's three regimes, straight
    in logarithms: perfect scaling, diminishing returns, stagnation. One of these takes over if its AICc is lower by 6.
    Perfect scaling never does: it is McCandlish's law with B_crit above what can be told.

    Each batch size is one point, the mean of the logarithms over its seeds. Points are weighted by the spread of their
    seeds together with the scatter between batch sizes that the seeds do not explain, of which each batch size has one
    draw; the intervals therefore count batch sizes.

    Args:
        batch_sizes: B of each run, > 0, shape (n,).
        samples: samples each run took to the target, batch size times steps, > 0, shape (n,); nan, infinite or None
            where it did not get there. Where fewer than half of the runs of a batch size missed it their median stands for the
            mean; other batch sizes with misses are left out, with a note.

    Returns:
        The critical batch size with its interval, and the curve. What the points cannot tell is a verdict with a
        reason.

    Raises:
        BadInput: shapes do not fit, or a number is not positive.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, section 2.3; Shallue et al. 2019, arXiv:1811.03600, section 4.1; AICc
        from Hurvich & Tsai 1989, Biometrika 76, 297.
    """
    points, notes = cost_points(batch_sizes, samples)
    used = [p for p in points if p.used]
    if len(used) < LEAST:
        sizes = "1 batch size" if len(used) == 1 else f"{len(used)} batch sizes"
        reason = f"{sizes} reached the target; at least {LEAST} are needed"
        return CriticalBatch("not resolvable", reason, None, None, None, None, "no law fitted", (), points, notes)
    means = means_of(points)
    fits = [fit_law(law, means) for law in LAWS if len(used) > law.coefficients + 1]
    chosen, law_reason = choose(fits)
    bounds = region(chosen)
    b_crit, e_min, s_min = numbers(chosen, bounds)
    verdict, reason = judge(bounds, b_crit, used)
    notes += outside(b_crit, used) + excess(chosen)
    return CriticalBatch(
        verdict=verdict,
        reason=reason,
        b_crit=b_crit,
        e_min=e_min,
        s_min=s_min,
        law=chosen.law.name,
        law_reason=law_reason,
        laws=ranked(fits),
        points=tuple(p.beside(chosen.curve(np.log([p.batch_size]))[0]) for p in points),
        notes=notes,
    )


def means_of(points: tuple[CostPoint, ...]) -> Means:
    """Return what a law is fitted to."""
    used = [p for p in points if p.used]
    return Means(
        x=np.log([p.batch_size for p in used]),
        y=np.log([p.samples for p in used if p.samples is not None]),
        variance=np.array([p.log_stderr for p in used]) ** 2,
    )


def choose(fits: list[LawFit]) -> tuple[LawFit, str]:
    """Return McCandlish's law, or one that is decisively better, and why."""
    usual = next(fit for fit in fits if fit.law is MCCANDLISH)
    if usual.aicc is None:
        return usual, f"{MCCANDLISH.name}'s law is taken: {LEAST} batch sizes cannot compare laws"
    leads = {fit.law.name: usual.aicc - fit.aicc for fit in fits if fit.aicc is not None and fit.law is not usual.law}
    rivals = [fit for fit in fits if leads.get(fit.law.name, 0) > DECISIVE and fit.law is not PERFECT]
    if rivals:
        best = max(rivals, key=lambda fit: leads[fit.law.name])
        return best, f"the {best.law.name} has an AICc lower by {leads[best.law.name]:.3g} than {MCCANDLISH.name}'s law"
    told = ", ".join(f"{name} {-lead:+.3g}" for name, lead in leads.items())
    kept = f"{MCCANDLISH.name}'s law is kept: but for perfect scaling, its limit, no other has an AICc lower by {DECISIVE:g}"
    return usual, f"{kept} ({told})"


def numbers(fit: LawFit, bounds: Region) -> tuple[Bounded, Bounded, Bounded | None]:
    """Return B_crit, E_min and S_min with the projections of the region as intervals."""
    law, n = fit.law, len(fit.means.x)
    assert law.doubling is not None
    best = fit.theta[None]
    doubling = law.doubling(bounds.thetas)
    b_crit = bounded(law.doubling(best), doubling, 0.0, n, open_ends=(bounds.no_least, bounds.no_most))
    level = np.array([fit.level])
    e_min = bounded(level, bounds.levels, bounds.slack, n, open_ends=(bounds.no_least, False))
    if law.floor is None:
        return b_crit, e_min, None
    steps = bounds.levels + law.floor(bounds.thetas)
    s_min = bounded(level + law.floor(best), steps, bounds.slack, n, open_ends=(bounds.no_most, False))
    return b_crit, e_min, s_min


def bounded(best: Floats, others: Floats, slack: Floats | float, n: int, *, open_ends: tuple[bool, bool]) -> Bounded:
    """Turn the logarithm of a number, and of those it may have, into an estimate with its bounds."""
    low = 0.0 if open_ends[0] else math.exp(float((others - slack).min()))
    high = math.inf if open_ends[1] else math.exp(float((others + slack).max()))
    return Bounded(None if any(open_ends) else math.exp(float(best[0])), (low, high), n)


def judge(bounds: Region, b_crit: Bounded, used: list[CostPoint]) -> tuple[Verdict, str]:
    """Return the verdict and its reason."""
    least, most, n = exactly(used[0].batch_size), exactly(used[-1].batch_size), len(used)
    if bounds.no_least and bounds.no_most:
        return "not resolvable", f"the scatter of {n} batch sizes hides whether samples or steps are the constant"
    if bounds.no_most:
        return "lower bound", f"up to batch {most} samples rise by no more than their scatter; b_crit is {b_crit}"
    if bounds.no_least:
        return "upper bound", f"from batch {least} on steps fall by no more than their scatter; b_crit is {b_crit}"
    return "resolved", f"b_crit is {b_crit}, from {n} batch sizes between {least} and {most}"


def outside(b_crit: Bounded, used: list[CostPoint]) -> tuple[str, ...]:
    """Say that a critical batch size rests on the law alone."""
    least, most = used[0].batch_size, used[-1].batch_size
    if b_crit.value is None or least <= b_crit.value <= most:
        return ()
    return (f"b_crit lies outside of the batch sizes that were run, {exactly(least)} to {exactly(most)}",)


def excess(fit: LawFit) -> tuple[str, ...]:
    """Say that the batch sizes scatter about the curve more than their seeds do."""
    seeds = math.sqrt(float(fit.means.variance.mean()))
    if seeds == 0 or fit.scatter < seeds:
        return ()
    return (
        f"batch sizes scatter about the curve by {100 * fit.scatter:.2g} % beyond the {100 * seeds:.2g} % of their seeds: "
        "unequal tuning, or another law",
    )


def ranked(fits: list[LawFit]) -> tuple[RankedLaw, ...]:
    """Return all laws, best first, those that cannot be compared last."""
    best = min((fit.aicc for fit in fits if fit.aicc is not None), default=0.0)
    rows = [
        RankedLaw(
            name=fit.law.name,
            formula=fit.law.formula,
            parameters=fit.law.parameters(fit.theta),
            e_min=math.exp(fit.level),
            aicc=None if fit.aicc is None else fit.aicc - best,
            residual_percent=100 * math.sqrt(float(np.mean(np.expm1(fit.means.y - fit.curve(fit.means.x)) ** 2))),
            scatter_percent=100 * fit.scatter,
        )
        for fit in fits
    ]
    return tuple(sorted(rows, key=lambda row: math.inf if row.aicc is None else row.aicc))
