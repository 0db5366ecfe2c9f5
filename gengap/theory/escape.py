"""Leaving a minimum: how long it takes, and in which of two SGD is found in the end."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.integrate import cumulative_simpson, simpson

from gengap.core.errors import BadInput
from gengap.core.estimate import safe_exp
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.least_squares import Coefficient, Floats, coefficients, straight_line, sum_of_squares
from gengap.theory.ornstein_uhlenbeck import HeavyBall
from gengap.theory.potentials import Potential, positive, wide

Verdict = Literal["exponential", "not exponential", "not resolvable"]

DECISIVE = 6.0  # difference of AICc from which one curve is preferred
LEAST = 4  # points to fit


@dataclass(frozen=True, slots=True)
class EscapeTime(Record):
    """How long runs needed to pass a place.

    Attributes:
        steps: updates until they pass it, the mean; infinite where none did.
        stderr: its standard error; None where none did.
        escaped: runs that passed it.
        runs: all of them.
    """

    steps: float
    stderr: float | None
    escaped: int
    runs: int

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" ± {self.stderr:.2g}"
        return f"{self.steps:.4g}{error} updates ({self.escaped} of {self.runs} runs escaped)"


def simulate_escape(
    potential: Potential,
    rule: HeavyBall,
    gradient_variance: float,
    *,
    start: float,
    beyond: float,
    limit: int,
    runs: int = 1000,
    seed: int = 0,
) -> EscapeTime:
    """Count the updates of SGD until it passes a place.

    Runs that have not by the limit count with their whole time: the mean is the time of all runs over the number of
    escapes. Where the barrier is high against the noise, escapes come at a constant rate and this is without bias; where
    it is low, choose a limit that all runs escape before.

    Args:
        potential: the mean loss L.
        rule: learning rate, batch size, momentum.
        gradient_variance: sigma^2, of the gradient of one sample; the noise is Gaussian.
        start: where all runs begin, for example the minimum.
        beyond: the place to pass; take it well behind the barrier, where hardly any run turns back.
        limit: updates after which a run is given up, >= 1.
        runs: K, >= 2.
        seed: of the noise.

    Returns:
        The mean time with its error. Costs limit times K evaluations of the slope at most.

    Raises:
        BadInput: a number is out of range, or start and beyond are one place.
        FloatingPointError: a run left for infinity, which is no escape; lower the learning rate.
    """
    positive(limit=limit, gradient_variance=gradient_variance)
    if runs < 2 or beyond == start or not (math.isfinite(start) and math.isfinite(beyond)):
        raise BadInput(f"runs is {runs!r}, start {start!r} and beyond {beyond!r}; give two runs and two places")
    rng = np.random.default_rng(stream(seed, "escape"))
    spread, side = math.sqrt(rule.noise_share * gradient_variance), math.copysign(1.0, beyond - start)
    w, v = np.full(runs, float(start)), np.zeros(runs)
    times: list[int] = []
    for t in range(1, limit + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            v = rule.momentum * v + potential.slope(w) + spread * rng.standard_normal(len(w))
            w = w - rule.lr * v
        if not np.isfinite(w).all():
            raise FloatingPointError(f"a run left for infinity at update {t}; lower lr from {rule.lr!r}")
        inside = side * (w - beyond) < 0
        if not inside.all():
            times += [t] * int((~inside).sum())
            w, v = w[inside], v[inside]
            if not len(w):
                break
    return mean_time(np.array(times, dtype=np.float64), runs, limit)


def mean_time(times: Floats, runs: int, limit: int) -> EscapeTime:
    """Estimate the mean of times of which the longest were cut off at a limit."""
    n = len(times)
    if not n:
        return EscapeTime(math.inf, None, 0, runs)
    mean = (float(times.sum()) + (runs - n) * limit) / n
    if n == runs:
        return EscapeTime(mean, float(times.std(ddof=1)) / math.sqrt(n), n, runs)
    return EscapeTime(mean, mean / math.sqrt(n), n, runs)


def kramers_time(*, barrier: float, at_minimum: float, at_barrier: float, temperature: float) -> float:
    r"""Return the mean time of escape over a high barrier, :math:`2 \pi e^{\Delta V / T} / \sqrt{h |h_b|}`.

    Args:
        barrier: height Delta V of the barrier above the minimum, far above the temperature.
        at_minimum: curvature h there, > 0.
        at_barrier: curvature h_b on the barrier; its sign does not matter.
        temperature: T, in units of the loss.

    Returns:
        Time, in units of the learning rate: divided by it, updates of SGD without momentum. It is the time to the other
        side; half the runs that reach the top turn back.

    Raises:
        BadInput: a number is not positive.

    Source:
        Kramers 1940, Physica 7, 284, for strong damping.
    """
    positive(barrier=barrier, at_minimum=at_minimum, at_barrier=abs(at_barrier), temperature=temperature)
    return 2 * math.pi / math.sqrt(at_minimum * abs(at_barrier)) * safe_exp(barrier / temperature)


def mean_first_passage(potential: Potential, temperature: float, *, start: float, beyond: float) -> float:
    r"""Compute the mean time until Langevin dynamics without inertia first reaches a place, exactly.

    .. math::
        \tau = \frac1T \int_{start}^{beyond} e^{V(y) / T} \int_{-\infty}^{y} e^{-V(z) / T} \, dz \, dy

    for a place to the right of the start, and its mirror image for one to the left.

    Args:
        potential: V, rising to both sides.
        temperature: T, in units of the loss.
        start: where it begins.
        beyond: where it is waited for.

    Returns:
        Time, in units of the learning rate, to about six digits.

    Raises:
        BadInput: the temperature is not positive.

    Source:
        Gardiner, Stochastic Methods, section 5.5.
    """
    positive(temperature=temperature)
    far = wide(potential, temperature)[0 if beyond > start else 1]
    place = np.linspace(far, beyond, 20_001)
    level = potential.value(place) / temperature
    waited = np.abs(place - far) >= abs(start - far)
    # each integrand is taken relative to its own largest value, so that neither overflows
    low, high = float(level.min()), float(level[waited].max())
    step = abs(place[1] - place[0])
    inner = cumulative_simpson(np.exp(low - level), dx=step, initial=0.0)
    outer = float(simpson(np.exp(level[waited] - high) * inner[waited], dx=step))
    return outer / temperature * safe_exp(high - low)


@dataclass(frozen=True, slots=True)
class EscapeFit(Record):
    """Escape times as an exponential of B / lr.

    Attributes:
        verdict: "exponential" where that beats a power law by an AICc of 6 and grows; "not exponential" where the power law
            does; else "not resolvable".
        reason: one sentence with the numbers.
        rate: growth of ln(time) with B / lr; in theory 2 barrier / sigma^2. None for too few points.
        intercept: ln(time) at B / lr = 0, extrapolated; None likewise.
        difference: AICc of the power law minus that of the exponential; None likewise.
        n: number of points.
    """

    verdict: Verdict
    reason: str
    rate: Coefficient | None
    intercept: Coefficient | None
    difference: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def fit_escape(batch_over_lr: npt.ArrayLike, times: npt.ArrayLike) -> EscapeFit:
    """Fit the logarithm of escape times as a line in B / lr, against a power law with as many coefficients.

    Args:
        batch_over_lr: B / lr of each point, > 0, shape (n,).
        times: mean time of escape at each, shape (n,): updates times learning rate, or updates where only B changes; infinite
            where nothing escaped.

    Returns:
        The line and a verdict. Points where nothing escaped are left out; fewer than four are an outcome, not an error.

    Raises:
        BadInput: the two do not fit each other, or a number is not positive.

    Source:
        Hu, Li, Li & Liu 2017, arXiv:1705.07562: the time grows exponentially in B / lr.
    """
    x, y = np.asarray(batch_over_lr, dtype=np.float64), np.asarray(times, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise BadInput(f"batch_over_lr has shape {x.shape} and times {y.shape}; give as many of both")
    if not (np.isfinite(x) & (x > 0) & (y > 0)).all():
        raise BadInput("batch_over_lr or times hold a number that is not positive, or a B / lr that is not finite")
    x, y = x[np.isfinite(y)], np.log(y[np.isfinite(y)])
    n = len(x)
    if len(np.unique(x)) < LEAST:
        return EscapeFit("not resolvable", f"{n} points escaped; {LEAST} are needed", None, None, None, n)
    slope, intercept = straight_line(x, y)
    residuals = y - (slope * x + intercept)
    rate, level = coefficients([slope, intercept], np.stack([x, np.ones(n)], axis=1), residuals)
    power, offset = straight_line(np.log(x), y)
    rounding = n * (4 * np.finfo(np.float64).eps * float(np.abs(y).max())) ** 2
    others = sum_of_squares(y - (power * np.log(x) + offset))
    difference = n * math.log((others + rounding) / (sum_of_squares(residuals) + rounding))
    verdict, reason = judge(rate, power, difference)
    return EscapeFit(verdict, reason, rate, level, difference, n)


def judge(rate: Coefficient, power: float, difference: float) -> tuple[Verdict, str]:
    """Return which curve the times follow, and why."""
    numbers = f"ln(time) grows by {rate} per unit of B / lr, AICc {abs(difference):.3g} "
    if difference > DECISIVE and rate.interval is not None and rate.interval[0] > 0:
        return "exponential", f"{numbers}below that of a power law"
    if difference < -DECISIVE:
        return "not exponential", f"{numbers}above that of a power law with exponent {power:.3g}"
    return (
        "not resolvable",
        f"{numbers}{'below' if difference > 0 else 'above'} that of a power law; {DECISIVE:g} would decide",
    )


@dataclass(frozen=True, slots=True)
class Well(Record):
    """A minimum as the three factors see it.

    Attributes:
        loss: at the minimum, mean over samples.
        log_determinant: of its Hessian: the sum of the logarithms of its curvatures.
    """

    loss: float
    log_determinant: float


def odds(a: Well, b: Well, temperature: float) -> float:
    r"""Return how much likelier SGD is in minimum a than in b, after long enough to move between them.

    .. math::
        \frac{p_a}{p_b} = \sqrt{\frac{\det H_b}{\det H_a}} \exp\frac{L_b - L_a}{T},
        \qquad T = \frac{\varepsilon \sigma^2}{2 B}.

    The wider of two minima of equal depth is preferred at any temperature; depth matters the more, the lower it is.

    Args:
        a: the one minimum.
        b: the other.
        temperature: T, from `sgd_temperature`.

    Returns:
        The odds of a against b, to leading order in the temperature: wells are taken as parabolas.

    Raises:
        BadInput: the temperature is not positive.

    Source:
        Jastrzebski et al. 2017, arXiv:1711.04623, theorem 2, for gradient noise that is the same in all directions.
    """
    positive(temperature=temperature)
    exponent = (b.log_determinant - a.log_determinant) / 2 + (b.loss - a.loss) / temperature
    return safe_exp(exponent)
