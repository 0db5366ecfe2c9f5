"""What a monitor of gradient noise found: single observations, and the reading that averages them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gengap.core.estimate import Estimate
from gengap.measures.noise.arithmetic import Averages, Parts, exponential_averages

FEWEST = 8  # observations before a number is given
FORGOTTEN = 1e-6  # weight, relative to the latest observation, below which one is left out

Row = Sequence[float]  # weight, square, noise (of `Parts`), sum of squares, square of sum, then s.s, s.t, t.t


@dataclass(frozen=True, slots=True)
class NoiseObservation:
    """What one step said; a single step says little.

    Attributes:
        step: number of the step, from 1.
        samples: seen until then, over all ranks.
        squared_gradient_norm: unbiased estimate of |G|^2; may be negative.
        trace_covariance: unbiased estimate of tr(Sigma), of one sample.
        B_small: effective size of a small batch, samples.
        B_big: effective size of the whole batch, samples.
    """

    step: int
    samples: int
    squared_gradient_norm: float
    trace_covariance: float
    B_small: float
    B_big: float


@dataclass(frozen=True, slots=True)
class NoiseScaleReading:
    """The gradient noise scale of late.

    Attributes:
        simple: tr(Sigma) / |G|^2, in samples; None where it is not resolvable.
        reason: why `simple` is None, or "".
        at_least: low end of the 95 % interval of the noise scale, given also where it has no high end; None before
            there are enough observations.
        trace_covariance: tr(Sigma), the covariance of the gradient of one sample; None before there are enough.
        squared_gradient_norm: |G|^2, likewise.
        observations: steps that went into the averages.
        dropped: observed steps that could not be used.
        fault: why the latest of them could not, or "".
        steps: steps so far.
        samples: samples so far, over all ranks.
        B_small: effective small batch of the latest observation, samples; None before the first.
        B_big: effective big batch of the latest observation.
        every: steps from one observation to the next.
        overhead: share of the time that was spent on observing.
        metric: "euclidean", or "adam" where squares are divided by the root of Adam's second moment.
    """

    simple: Estimate | None
    reason: str
    at_least: float | None
    trace_covariance: Estimate | None
    squared_gradient_norm: Estimate | None
    observations: int
    dropped: int
    fault: str
    steps: int
    samples: int
    B_small: float | None
    B_big: float | None
    every: int
    overhead: float
    metric: str

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        estimates = {
            name: None if (found := getattr(self, name)) is None else found.to_dict()
            for name in ("simple", "trace_covariance", "squared_gradient_norm")
        }
        return {**asdict(self), **estimates}

    def __str__(self) -> str:
        said = f"noise scale not resolvable: {self.reason}"
        if self.simple and self.simple.interval:
            low, high = self.simple.interval
            said = f"noise scale {self.simple.value:.3g} samples (95 %: {low:.3g} to {high:.3g})"
        lost = f", {self.dropped} dropped ({self.fault})" if self.dropped else ""
        cost = f"{100 * self.overhead:.1f} % of the time"
        return f"{said}; {self.observations} observations in {self.steps} steps{lost}, {cost}"


def observation(step: int, samples: int, row: Row, tolerance: float) -> NoiseObservation | str:
    """Make an observation of the sums of one step.

    Args:
        step: its number.
        samples: seen so far.
        row: the sums.
        tolerance: relative difference between passes and whole that rounding explains.

    Returns:
        The observation, or what is wrong in a sentence.
    """
    weight, square, noise, sum_of_squares, square_of_sum, ss, st, tt = row
    if not all(map(math.isfinite, row)):
        return "a gradient is not finite"
    if ss - 2 * st + tt > tolerance**2 * max(ss, tt):
        straight = st > 0 and st * st > 0.99 * ss * tt
        found = f"add up to {st / tt:.3g} times the gradient in .grad" if straight else "do not add up to .grad"
        return (
            f"the gradients of the backward passes {found}; call step after all of them, before clipping, unscaling and "
            f"zero_grad, leave no older gradient in .grad, and under DistributedDataParallel give the wrapped model"
        )
    parts = Parts(weight, square, noise)
    norm, trace = parts.estimates(sum_of_squares, square_of_sum)
    return NoiseObservation(step, samples, norm, trace, parts.B_small, parts.B_big)


def averages_of(history: Sequence[NoiseObservation], beta: float) -> Averages | None:
    """Average the traces and squared norms of a history, or give None while there are too few."""
    if len(history) < FEWEST:
        return None
    known = len(history) if beta == 1 else max(FEWEST, math.ceil(math.log(FORGOTTEN) / math.log(beta)))
    pairs = [(o.trace_covariance, o.squared_gradient_norm) for o in history[-known:]]
    return exponential_averages(pairs, beta)


def why_not(found: Averages | None, observations: int) -> str:
    """Say why there is no noise scale, or return ""."""
    if found is None:
        return f"{observations} observations, of which at least {FEWEST} are needed"
    low, high = found.ratio_interval()
    if math.isinf(high):
        than = f"; the noise scale is at least {low:.3g} samples (95 %)" if low > 0 else ""
        return f"the squared gradient norm is not told from zero with {observations} observations{than}"
    return "" if found.top > 0 < found.bottom else "the gradients of the parts do not differ more than by rounding"
