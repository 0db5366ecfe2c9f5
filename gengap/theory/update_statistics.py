"""Mean and covariance of one SGD update, as batches are really drawn, and what keeps them equal between batch sizes."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.least_squares import Floats
from gengap.theory.noise_scale import check_batch, check_rate

Sampling = Literal["without replacement", "with replacement"]


@dataclass(frozen=True, slots=True)
class UpdateVariance(Record):
    """Variance of one update of SGD in one direction, for gradients of variance F over the N samples.

    Attributes:
        exact: lr^2 F (N - B) / (B (N - 1)): batches without replacement.
        diffusion: lr^2 (N/B - 1) F / N, what the stochastic differential equation takes for it.
        ratio: exact / diffusion = N / (N - 1); nan for N = 1.
        epoch_correlation: of two updates of one epoch at the same weights, when epochs are permutations: -B / (N - B). None for
            the full batch.
    """

    exact: float
    diffusion: float
    ratio: float
    epoch_correlation: float | None


def update_variance(gradient_variance: float, *, lr: float, batch_size: int, samples: int) -> UpdateVariance:
    """Compute the variance of one update at fixed weights.

    Args:
        gradient_variance: F, variance of the gradients of the N samples (N in the denominator), >= 0.
        lr: learning rate for the mean gradient.
        batch_size: B.
        samples: N.

    Returns:
        The exact variance, the one of the diffusion equation, and how updates of one epoch go together.

    Raises:
        BadInput: a number is out of range.

    Source:
        Smith & Le 2018, arXiv:1710.06451, eq. 15; the finite population is Cochran, Sampling Techniques, theorem 2.2.
    """
    check_rate(lr, 0.0)
    check_batch(batch_size, samples)
    if not (math.isfinite(gradient_variance) and gradient_variance >= 0):
        raise BadInput(f"gradient_variance is {gradient_variance!r}; give a number of at least 0")
    diffusion = lr**2 * (samples / batch_size - 1) * gradient_variance / samples
    ratio = samples / (samples - 1) if samples > 1 else math.nan
    return UpdateVariance(
        exact=diffusion * ratio if samples > 1 else 0.0,
        diffusion=diffusion,
        ratio=ratio,
        epoch_correlation=-batch_size / (samples - batch_size) if batch_size < samples else None,
    )


def update_covariance(
    gradients: npt.ArrayLike,
    *,
    lr: float,
    batch_size: int,
    sampling: Sampling = "without replacement",
    noise_variance: float = 0.0,
) -> Floats:
    r"""Compute the covariance of one update from the gradients of all samples.

    With multiplicative noise every gradient is first multiplied by its own :math:`z \sim N(1, \sigma^2)`, which adds
    :math:`\frac{\varepsilon^2 \sigma^2}{B} \frac1N \sum_n g_n g_n^\top`: not the covariance but the second moment, mean
    gradient included.

    Args:
        gradients: g, one row for each sample, shape (N, P).
        lr: learning rate for the mean gradient.
        batch_size: B.
        sampling: how the samples of a batch are drawn; batches are independent of each other.
        noise_variance: sigma^2 of the multiplicative noise, >= 0.

    Returns:
        The covariance, exact, shape (P, P). Costs N P^2 multiplications.

    Raises:
        BadInput: the gradients are not a matrix of finite numbers, or a number is out of range.

    Source:
        Hoffer et al. 2017, arXiv:1705.08741, section 4.
    """
    g = np.asarray(gradients, dtype=np.float64)
    if g.ndim != 2 or not g.size or not np.isfinite(g).all():
        raise BadInput(f"gradients has shape {g.shape}; give a matrix of finite numbers, one row for each sample")
    if sampling not in get_args(Sampling):
        raise BadInput(f"sampling is {sampling!r}; choose one of {', '.join(get_args(Sampling))}")
    check_rate(lr, 0.0)
    check_batch(batch_size, len(g))
    if not (math.isfinite(noise_variance) and noise_variance >= 0):
        raise BadInput(f"noise_variance is {noise_variance!r}; give a number of at least 0")
    away = g - g.mean(axis=0)
    share = 1 / batch_size if sampling == "with replacement" else left_to_chance(batch_size, len(g))
    return np.asarray(lr**2 / len(g) * (share * away.T @ away + noise_variance / batch_size * g.T @ g))


def epoch_sum_variance(gradient_variance: float, *, lr: float, batch_size: int, samples: int, updates: int) -> float:
    """Return the variance of the sum of updates of one epoch, which is a permutation, at fixed weights.

    Until k of the N/B updates are done, k B samples have been drawn without replacement; with the last batch the errors have
    added up to zero. The diffusion equation, in which updates are independent, says k times the variance of one.

    Args:
        gradient_variance: F, variance of the gradients of the N samples.
        lr: learning rate for the mean gradient.
        batch_size: B.
        samples: N.
        updates: k, with k B at most N.

    Returns:
        lr^2 F k (N - k B) / (B (N - 1)).

    Raises:
        BadInput: a number is out of range.
    """
    one = update_variance(gradient_variance, lr=lr, batch_size=batch_size, samples=samples)
    if not 1 <= updates * batch_size <= samples:
        raise BadInput(
            f"updates is {updates!r}; an epoch of {samples:,} samples has {samples // batch_size:,} of {batch_size:,}"
        )
    if batch_size == samples:
        return 0.0
    return one.exact * updates * (samples - updates * batch_size) / (samples - batch_size)


def matching_lr(lr: float, *, small: int, large: int, samples: int | None = None) -> float:
    """Give a large batch the learning rate whose updates scatter like those of a small one.

    Args:
        lr: of the small batch.
        small: B_S.
        large: B_L, not below B_S.
        samples: N, where batches are drawn without replacement from so many; None for N far above both.

    Returns:
        lr sqrt(B_L / B_S), times sqrt((N - B_S) / (N - B_L)) with `samples`. The mean update grows by the same factor: clip
        the gradient if training gets unstable.

    Raises:
        BadInput: a number is out of range, or the large batch is all samples and cannot scatter.

    Source:
        Hoffer et al. 2017, arXiv:1705.08741, section 4.
    """
    check_rate(lr, 0.0)
    check_pair(small, large)
    if samples is None:
        return lr * math.sqrt(large / small)
    check_batch(large, samples)
    if large == samples:
        raise BadInput(f"large is all {samples:,} samples, whose gradient does not scatter at any learning rate")
    return lr * math.sqrt(left_to_chance(small, samples) / left_to_chance(large, samples))


def matching_noise(*, small: int, large: int) -> float:
    """Give a large batch the multiplicative noise whose updates scatter like those of a small one, at the same learning rate.

    Args:
        small: B_S.
        large: B_L, not below B_S.

    Returns:
        sigma^2 = B_L / B_S - 1 of factors z ~ N(1, sigma^2), one for each sample. It matches the covariance where the mean
        gradient is small beside the scatter; `update_covariance` gives the rest.

    Raises:
        BadInput: the sizes are out of range.

    Source:
        Hoffer et al. 2017, arXiv:1705.08741, section 4.
    """
    check_pair(small, large)
    return large / small - 1


def left_to_chance(batch_size: float, samples: int) -> float:
    """Return variance of a batch's mean over that of a sample, without replacement."""
    return (samples - batch_size) / (batch_size * max(samples - 1, 1))


def check_pair(small: int, large: int) -> None:
    """Refuse two batch sizes that are not a small and a large one.

    Args:
        small: B_S.
        large: B_L.

    Raises:
        BadInput: they are below 1 or in the wrong order.
    """
    if not 1 <= small <= large:
        raise BadInput(f"small is {small!r} and large {large!r}; give 1 <= small <= large")
