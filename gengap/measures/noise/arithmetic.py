"""Gradient noise from squared norms: arithmetic on floats, of which the estimators in a training loop and at a point are made.

Throughout, G is the gradient of the mean loss over the population and Sigma the covariance of the gradient of one sample.
The mean gradient g of b independent samples has E|g|^2 = |G|^2 + tr(Sigma) / b.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, t_quantile

INDEPENDENT_SHARE = 2 / 3  # what squared differences of neighbours are worth, in degrees of freedom per pair


def squared_gradient_norm(square_small: float, square_big: float, B_small: float, B_big: float) -> float:
    r"""Estimate :math:`|G|^2` without bias from gradients of two batch sizes.

    .. math::
        \frac{B_{big} |G_{big}|^2 - B_{small} |G_{small}|^2}{B_{big} - B_{small}}

    Args:
        square_small: squared norm of the mean gradient over B_small samples, or a mean of such.
        square_big: the same over B_big samples; the small batches may be parts of the big one.
        B_small: samples; need not be whole where sizes are effective ones.
        B_big: samples, more than B_small.

    Returns:
        The estimate, in squared units of the gradient; negative where noise outweighs it.

    Raises:
        BadInput: the sizes are not 0 < B_small < B_big.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """
    check_sizes(B_small, B_big)
    return (B_big * square_big - B_small * square_small) / (B_big - B_small)


def trace_covariance(square_small: float, square_big: float, B_small: float, B_big: float) -> float:
    r"""Estimate :math:`\mathrm{tr}(\Sigma)` without bias from gradients of two batch sizes.

    .. math::
        \frac{|G_{small}|^2 - |G_{big}|^2}{1 / B_{small} - 1 / B_{big}}

    Args:
        square_small: squared norm of the mean gradient over B_small samples, or a mean of such.
        square_big: the same over B_big samples; the small batches may be parts of the big one.
        B_small: samples; need not be whole where sizes are effective ones.
        B_big: samples, more than B_small.

    Returns:
        The estimate, in squared units of the gradient of one sample. Never negative up to rounding where the big batch
        is made of the small ones.

    Raises:
        BadInput: the sizes are not 0 < B_small < B_big.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """
    check_sizes(B_small, B_big)
    return (square_small - square_big) / (1 / B_small - 1 / B_big)


def check_sizes(B_small: float, B_big: float) -> None:
    """Refuse two batch sizes that tell nothing apart.

    Args:
        B_small: samples.
        B_big: samples.

    Raises:
        BadInput: they are not 0 < B_small < B_big.
    """
    if not 0 < B_small < B_big:
        raise BadInput(f"batch sizes are {B_small:g} and {B_big:g}; give a small one above 0 and a larger big one")


@dataclass(frozen=True, slots=True)
class Parts:
    r"""A batch gradient as a sum over parts, :math:`g = \sum_i w_i g_i`.

    With :math:`g_i` the mean gradient of :math:`b_i` samples,

    .. math::
        E\sum_i |w_i g_i|^2 = |G|^2 \sum_i w_i^2 + \mathrm{tr}(\Sigma) \sum_i w_i^2 / b_i, \qquad
        E|g|^2 = |G|^2 \Big(\sum_i w_i\Big)^2 + \mathrm{tr}(\Sigma) \sum_i w_i^2 / b_i,

    which are the gradients of two batch sizes, whatever the parts.

    Attributes:
        weight: sum of w_i; 1 where g is a mean.
        square: sum of w_i^2.
        noise: sum of w_i^2 / b_i.
    """

    weight: float
    square: float
    noise: float

    @classmethod
    def of(cls, weights: Sequence[float], sizes: Sequence[int]) -> "Parts":
        """Add up parts.

        Args:
            weights: w_i.
            sizes: b_i, samples, as many.

        Returns:
            The sums.

        Raises:
            BadInput: a size or a weight is not positive.
        """
        if not all(w > 0 for w in weights) or not all(b > 0 for b in sizes):
            raise BadInput(f"weights are {list(weights)} and batch sizes {list(sizes)}; all must be above 0")
        squares = [w * w for w in weights]
        return cls(
            math.fsum(weights), math.fsum(squares), math.fsum(s / b for s, b in zip(squares, sizes, strict=True))
        )

    @property
    def B_small(self) -> float:  # noqa: N802 - a shape letter
        """Effective size of a part; the common size where all are alike."""
        return self.square / self.noise

    @property
    def B_big(self) -> float:  # noqa: N802 - a shape letter
        """Effective size of the whole; the number of samples where every sample weighs the same."""
        return self.weight**2 / self.noise

    def estimates(self, sum_of_squares: float, square_of_sum: float) -> tuple[float, float]:
        """Estimate |G|^2 and tr(Sigma) without bias.

        Args:
            sum_of_squares: sum of |w_i g_i|^2.
            square_of_sum: |g|^2.

        Returns:
            The estimates of |G|^2 and of tr(Sigma).
        """
        pair = (sum_of_squares / self.square, square_of_sum / self.weight**2, self.B_small, self.B_big)
        return squared_gradient_norm(*pair), trace_covariance(*pair)


@dataclass(frozen=True, slots=True)
class Averages:
    """Weighted means of a numerator and a denominator over a series, with the covariance of their sampling errors.

    Attributes:
        top: mean of the numerators.
        bottom: mean of the denominators.
        var_top: variance of `top`.
        var_bottom: variance of `bottom`.
        cov: covariance of the two.
        n: pairs.
        degrees: degrees of freedom of the variances, at least 1.
        method: how the means and their intervals are made, in words.
    """

    top: float
    bottom: float
    var_top: float
    var_bottom: float
    cov: float
    n: int
    degrees: int
    method: str

    @property
    def quantile(self) -> float:
        """Two-sided 95 % quantile of Student's t."""
        return t_quantile(self.degrees)

    def of_top(self) -> Estimate:
        """Give the mean numerator with its interval."""
        return self._mean(self.top, self.var_top)

    def of_bottom(self) -> Estimate:
        """Give the mean denominator with its interval."""
        return self._mean(self.bottom, self.var_bottom)

    def ratio(self) -> Estimate:
        """Give top / bottom, with the interval of `ratio_interval`; ask only where that is bounded."""
        value = self.top / self.bottom
        variance = self.var_top - 2 * value * self.cov + value * value * self.var_bottom
        spread = math.sqrt(max(variance, 0.0) * self.n) / abs(self.bottom)
        return Estimate(value, spread, self.n, self.ratio_interval(), f"ratio, Fieller, {self.method}")

    def ratio_interval(self) -> tuple[float, float]:
        """Find the 95 % interval of top / bottom, both taken to be positive in truth.

        It holds every ratio r >= 0 for which top - r bottom is within its own error of zero, so it is right where the
        denominator is uncertain: (low, inf) where that may be zero, and (0, inf) where nothing is known.

        Returns:
            Low and high.

        Source:
            Fieller 1954, Some problems in interval estimation, J. R. Stat. Soc. B 16.
        """
        square = self.quantile**2
        a = self.bottom**2 - square * self.var_bottom
        b = self.top * self.bottom - square * self.cov
        c = self.top**2 - square * self.var_top
        root = math.sqrt(max(b * b - a * c, 0.0))
        if a > 0:
            return max((b - root) / a, 0.0), max((b + root) / a, 0.0)
        if c > 0:  # roots of different signs; the positive one, written so that a = 0 divides nothing by zero
            return c / (b + root), math.inf
        return 0.0, math.inf

    def _mean(self, value: float, variance: float) -> Estimate:
        """Give a mean with Student's interval."""
        half = self.quantile * math.sqrt(variance)
        return Estimate(value, math.sqrt(variance * self.n), self.n, (value - half, value + half), self.method)


def exponential_averages(pairs: Sequence[tuple[float, float]], beta: float) -> Averages:
    r"""Average a series of (numerator, denominator), the latest weighing most.

    The weights :math:`\beta^{n - i}` are divided by their sum, which is the bias-corrected exponential average. Errors
    come from squared differences of neighbours, :math:`(x_i - x_{i - 1})^2 / 2`, which a slow drift of the truth does
    not enter; neighbours are taken to be uncorrelated.

    Args:
        pairs: at least two, oldest first.
        beta: decay from one pair to the next, in (0, 1]; 1 is the plain mean.

    Returns:
        Both averages and the covariance of their errors.

    Raises:
        BadInput: there are fewer than two pairs, or beta is out of range.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1 (numerator and denominator are averaged separately);
        von Neumann 1941, Distribution of the ratio of the mean square successive difference to the variance.
    """
    if len(pairs) < 2:
        raise BadInput(f"{len(pairs)} pairs have no spread; give at least two")
    if not 0 < beta <= 1:
        raise BadInput(f"beta is {beta}; choose a decay in (0, 1], for example 0.99")
    x = np.asarray(pairs, dtype=np.float64)
    weights = beta ** np.arange(len(x) - 1.0, -1.0, -1.0)
    weights /= weights.sum()
    steps = np.diff(x, axis=0)
    steps = np.concatenate([steps[:1], steps])
    squares = weights**2
    cov = 0.5 * (steps * squares[:, None]).T @ steps
    top, bottom = (weights @ x).tolist()
    alike = float(squares.sum() ** 2 / (squares**2).sum())  # so many pairs of equal weight, by Satterthwaite
    degrees = max(1, int(INDEPENDENT_SHARE * (alike - 1)))
    how = "plain mean" if beta == 1 else f"exponential average, decay {beta:g}"
    return Averages(
        top, bottom, float(cov[0, 0]), float(cov[1, 1]), float(cov[0, 1]), len(x), degrees, f"{how}, Student t, 95 %"
    )


def parts_of(
    batch_size: int | Sequence[int], weights: float | Sequence[float] | None, passes: int, ranks: int, *, scale: float
) -> Parts:
    """Say of which parts the gradient of a rank is made.

    Args:
        batch_size: samples of all passes together, or of each.
        weights: factor of the mean loss of all passes, or of each; None for one over their number.
        passes: backward passes that were seen.
        ranks: processes of which gradients are averaged.
        scale: of the gradient scaler.

    Returns:
        Their sums.

    Raises:
        BadInput: there is only one part, or sizes or weights do not fit the passes.
    """
    if not passes:
        raise BadInput("no backward pass was seen; call step once after the backward passes of every step")
    if passes * ranks < 2:
        raise BadInput(
            "one backward pass in one process has gradients of one batch size only; accumulate several passes, or call "
            "monitor.backward(losses) in place of losses.mean().backward() and step"
        )
    if not isinstance(batch_size, Sequence):
        if batch_size % passes:
            raise BadInput(
                f"{passes} backward passes were seen, which cannot share a batch_size of {batch_size} evenly; give the size "
                f"of each"
            )
        batch_size = [batch_size // passes] * passes
    if weights is None:
        weights = 1 / passes
    factors = list(weights) if isinstance(weights, Sequence) else [weights] * passes
    if not len(batch_size) == len(factors) == passes:
        raise BadInput(
            f"{passes} backward passes were seen, but {len(batch_size)} batch sizes and {len(factors)} weights given; give "
            f"one for each"
        )
    return Parts.of([scale * w for w in factors], batch_size)
