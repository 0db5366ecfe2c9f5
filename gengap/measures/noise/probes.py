r"""Quadratic forms of centred gradients, :math:`(g_i - G)^T H (g_i - G)`, and the estimates that are made of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gengap.core.estimate import Estimate, t_quantile
from gengap.core.events import Listener, Progress
from gengap.core.seeds import stream
from gengap.measures.noise.jackknife import Floats
from gengap.measures.noise.jacobian import Jacobian
from gengap.measures.trees import dot
from gengap.theory.intervals import BOUNDED, fieller

LEAST = 6  # random probes before their spread is believed
EXACT = "exact: the data are the population and every sample was a probe"

Product = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Forms:
    """Quadratic forms over N samples, exactly or from random combinations of all.

    Attributes:
        along: g_i . H G, shape (N,).
        own: (g_i - G) . H (g_i - G), shape (N,), or the mean of estimates of it without bias.
        probes: values of u . H u for random u with covariance Sigma, of mean tr(H Sigma); none where `own` is exact.
    """

    along: Floats
    own: Floats
    probes: list[float] = field(default_factory=list)

    @property
    def trace(self) -> float:
        """Estimate of tr(H Sigma), N - 1 in the denominator."""
        return float(self.own.sum()) / (len(self.own) - 1)

    @property
    def probe_variance(self) -> float:
        """Variance that the random probes leave in `trace`; 0 where nothing was random."""
        return float(np.var(self.probes, ddof=1)) / len(self.probes) if self.probes else 0.0

    def within(self, rel_error: float) -> bool:
        """Tell whether what the probes leave is small; too few of them do not know."""
        if self.probes and len(self.probes) < LEAST:
            return False
        return math.sqrt(self.probe_variance) <= rel_error * abs(self.trace)


def all_forms(jacobian: Jacobian, product: Product, listen: Listener) -> Forms:
    """Multiply every centred gradient by H."""
    forms, n = started(jacobian, product), jacobian.samples
    for i in range(n):
        weights = torch.full((n,), -1 / n, dtype=torch.float64)
        weights[i] += 1
        u = jacobian.transposed(weights)
        forms.own[i] = dot(u, product(u))
        listen(Progress("curvature-weighted noise", i + 1, n, "samples"))
    return forms


def random_forms(
    jacobian: Jacobian, product: Product, *, rel_error: float, most: int, seed: int, listen: Listener
) -> Forms:
    r"""Multiply random combinations of the centred gradients by H until tr(H Sigma) is known well enough.

    With signs :math:`s_i`, :math:`u = \sum_i s_i (g_i - G) / \sqrt{N - 1}` has covariance Sigma, and
    :math:`\sqrt{N - 1} \, s_i (g_i - G) \cdot H u` is without bias the form of sample i.

    Args:
        jacobian: of the losses.
        product: with H.
        rel_error: at which to stop.
        most: probes.
        seed: of the signs.
        listen: is told after every probe.

    Returns:
        The forms.

    Raises:
        FloatingPointError: a form is not finite.
    """
    forms, n = started(jacobian, product), jacobian.samples
    while len(forms.probes) < most and not (forms.probes and forms.within(rel_error)):
        generator = torch.Generator().manual_seed(stream(seed, "probe", len(forms.probes)))
        signs = torch.randint(2, (n,), generator=generator).double() * 2 - 1
        u = jacobian.transposed((signs - signs.mean()) / math.sqrt(n - 1))
        bent = product(u)
        inner = jacobian.times(bent)
        new = math.sqrt(n - 1) * (signs * (inner - inner.mean())).numpy()
        forms.probes.append(dot(u, bent))
        forms.own += (new - forms.own) / len(forms.probes)
        if not math.isfinite(forms.probes[-1]):
            raise FloatingPointError("a product with the Hessian is not finite; look for overflow at params")
        listen(Progress("curvature-weighted noise", len(forms.probes), None, "probes", f"{forms.trace:.4g}"))
    return forms


def started(jacobian: Jacobian, product: Product) -> Forms:
    """Take the mean gradient, and what H makes of it."""
    n = jacobian.samples
    mean = jacobian.transposed(torch.full((n,), 1 / n, dtype=torch.float64))
    return Forms(jacobian.times(product(mean)).numpy(), np.zeros(n))


@dataclass(frozen=True, slots=True)
class Weighed:
    """Two estimates with the covariance of their errors.

    Attributes:
        trace: tr(H Sigma).
        along: G . H G.
        covariance: of the two, shape (2, 2).
        n: samples, or probes where the data are the population.
        degrees: degrees of freedom of the covariance.
        method: how the intervals are made.
    """

    trace: float
    along: float
    covariance: Floats
    n: int
    degrees: float
    method: str

    @property
    def quantile(self) -> float:
        """Two-sided 95 % quantile of Student's t."""
        return t_quantile(max(1, int(self.degrees)))

    def estimates(self) -> tuple[Estimate, Estimate]:
        """Give both with their intervals."""
        return self._estimate(self.trace, self.covariance[0, 0]), self._estimate(self.along, self.covariance[1, 1])

    def ratio(self) -> tuple[Estimate | None, str]:
        """Give trace / along, or None and the reason why not."""
        interval, outcome = fieller(self.trace, self.along, self.covariance, self.quantile)
        if outcome != BOUNDED:
            return None, f"the curvature along the gradient is not told from zero with n = {self.n:,}"
        if self.along <= 0:
            return None, "the loss does not curve upwards along the gradient, so that no step there is the best one"
        value, (top, bottom) = self.trace / self.along, (self.covariance[0, 0], self.covariance[1, 1])
        if self.method == EXACT:
            return Estimate(value, None, self.n, None, EXACT), ""
        spread = top - 2 * value * self.covariance[0, 1] + value**2 * bottom
        stdev = math.sqrt(max(spread, 0.0) * self.n) / self.along
        return Estimate(value, stdev, self.n, interval, f"ratio, Fieller, {self.method}"), ""

    def _estimate(self, value: float, variance: float) -> Estimate:
        if self.method == EXACT or not variance:
            return Estimate(value, None, self.n, None, EXACT)
        half = self.quantile * math.sqrt(variance)
        return Estimate(value, math.sqrt(variance * self.n), self.n, (value - half, value + half), self.method)


def weighed_sample(forms: Forms) -> Weighed:
    r"""Estimate for the population behind the samples, H taken as known.

    The spread over samples of the averaged estimates of their forms holds the samples' share of the error of tr(H Sigma)
    and half of the probes' (each product of two signs enters the forms of two samples); the other half is added.

    Args:
        forms: over N samples.

    Returns:
        tr(H Sigma), and G . H G with tr(H Sigma) / N taken away.
    """
    n, trace = len(forms.own), forms.trace
    bent = float(forms.along.mean())
    tops = n / (n - 1) * forms.own
    bottoms = 2 * (forms.along - bent) - (tops - trace) / n
    probes = forms.probe_variance
    lever = np.array([1.0, -1 / n])
    covariance: Floats = np.cov(tops, bottoms) / n + 0.5 * probes * np.outer(lever, lever)
    return Weighed(
        trace,
        bent - trace / n,
        covariance,
        n,
        degrees(covariance[0, 0], probes, n, len(forms.probes)),
        "over samples and probes, Student t, 95 %" if forms.probes else "over samples, Student t, 95 %",
    )


def weighed_data(forms: Forms) -> Weighed:
    """Take the samples as the population: only the probes leave an error."""
    n, count = len(forms.own), len(forms.probes)
    share = (n - 1) / n
    covariance = np.diag([share**2 * forms.probe_variance, 0.0])
    method = "over probes, Student t, 95 %" if count else EXACT
    return Weighed(share * forms.trace, float(forms.along.mean()), covariance, count or n, max(1, count - 1), method)


def degrees(total: float, probes: float, n: int, count: int) -> float:
    """Give the degrees of freedom of a sum of two variances, that over probes being `probes` (Satterthwaite 1946)."""
    if not probes or not total:
        return n - 1
    halves = (max(total - probes / 2, 0.0), probes / 2)
    return total**2 / (halves[0] ** 2 / (n - 1) + halves[1] ** 2 / (count - 1))
