"""The noise of SGD as a stochastic differential equation sees it: one number for a recipe."""

import math
from dataclasses import dataclass

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.records import Record


@dataclass(frozen=True, slots=True)
class SdeNoise(Record):
    """The noise scale of a recipe, exact from its numbers.

    Attributes:
        value: g = lr (N/B - 1) / (1 - m), in units of the learning rate; 0 for the full batch.
        large_set: lr N / (B (1 - m)), its limit for N >> B, the form that papers print with momentum.
        effective_lr: lr / (1 - m): how far one gradient moves the weights in the end.
        temperature: effective_lr / B; g = N temperature in the limit.
        lr: learning rate for the mean gradient.
        batch_size: B.
        samples: N.
        momentum: m, of an undamped velocity.
    """

    value: float
    large_set: float
    effective_lr: float
    temperature: float
    lr: float
    batch_size: float
    samples: int
    momentum: float

    def __str__(self) -> str:
        return (
            f"noise scale {self.value:.4g}, effective learning rate {self.effective_lr:.4g}, batch {self.batch_size:g}"
        )


def sde_noise_scale(*, lr: float, batch_size: float, samples: int, momentum: float = 0.0) -> SdeNoise:
    r"""Compute the noise scale g of SGD.

    With C the sum of the losses of N samples, F the covariance of their gradients, and one update as a step of
    time lr/N, SGD follows

    .. math::
        \frac{dw}{dt} = -\frac{dC}{dw} + \eta(t), \qquad \langle \eta(t) \eta(t') \rangle = g F(w) \delta(t - t'),
        \qquad g = \frac{\varepsilon}{1 - m} \left( \frac{N}{B} - 1 \right).

    Batches are taken without replacement and independently of each other; the variance of one update is then larger by
    N / (N - 1), which the formula leaves out. Where epochs are permutations, the errors of one epoch add up to zero, so
    over times longer than an epoch the real noise is smaller than this.

    Args:
        lr: learning rate for the mean gradient, > 0.
        batch_size: B, from 1 to N; not necessarily whole.
        samples: N, size of the training set.
        momentum: m of heavy-ball or Nesterov momentum with an undamped velocity, from 0 to below 1.

    Returns:
        g with its limit for N >> B, the effective learning rate and the temperature.

    Raises:
        BadInput: a number is out of range.

    Source:
        Smith & Le 2018, arXiv:1710.06451, eq. 15 (m = 0), and appendix C, where N/B stands for N/B - 1; keeping the -1
        through that derivation gives the form above, which is right in both limits. Temperature: Smith, Elsen & De 2020,
        arXiv:2006.15081.
    """
    check_rate(lr, momentum)
    check_batch(batch_size, samples)
    effective = lr / (1 - momentum)
    return SdeNoise(
        value=effective * (samples / batch_size - 1),
        large_set=effective * samples / batch_size,
        effective_lr=effective,
        temperature=effective / batch_size,
        lr=lr,
        batch_size=batch_size,
        samples=samples,
        momentum=momentum,
    )


def recipe_noise_scale(recipe: Recipe, samples: int, *, lr: float | None = None) -> SdeNoise:
    """Compute the noise scale g of a recipe.

    Args:
        recipe: of optimizer "sgd", with or without momentum.
        samples: N, size of the training set; a batch size given as a share is resolved with it.
        lr: learning rate at the moment of interest, where a schedule or a warm-up changes it; the base rate if left out.

    Returns:
        What `sde_noise_scale` gives for the recipe's numbers.

    Raises:
        BadInput: the optimizer is not sgd, or the batch is larger than the training set.
    """
    if recipe.optimizer != "sgd":
        raise BadInput(
            f"optimizer is {recipe.optimizer!r}, for which the noise scale g does not exist: it divides each gradient by a "
            "running size of its own; give a recipe of sgd, or measure the noise of the gradient instead"
        )
    size = recipe.resolved(samples).batch_size
    rate = recipe.lr if lr is None else lr
    return sde_noise_scale(lr=rate, batch_size=int(size), samples=samples, momentum=recipe.momentum)


def batch_size_for(noise_scale: float, *, lr: float, samples: int, momentum: float = 0.0) -> float:
    """Give the batch size at which SGD has a wanted noise scale.

    Args:
        noise_scale: g >= 0, in units of the learning rate.
        lr: learning rate, > 0.
        samples: N, size of the training set.
        momentum: m, from 0 to below 1.

    Returns:
        B = N / (1 + g (1 - m) / lr), from 1 to N, not rounded; N for g = 0.

    Raises:
        BadInput: a number is out of range, or even single samples make less noise than that.
    """
    check_rate(lr, momentum)
    check_batch(1, samples)
    check_noise(noise_scale)
    size = samples / (1 + noise_scale * (1 - momentum) / lr)
    if size < 1 - 1e-9:  # rounding may put the noise of single samples just above what they make
        most = lr * (samples - 1) / (1 - momentum)
        raise BadInput(
            f"noise_scale is {noise_scale!r}, but batches of one sample make only {most:.4g}; raise lr or momentum"
        )
    return max(size, 1.0)


def lr_for(noise_scale: float, *, batch_size: float, samples: int, momentum: float = 0.0) -> float:
    """Give the learning rate at which SGD has a wanted noise scale.

    Args:
        noise_scale: g > 0, in units of the learning rate.
        batch_size: B, from 1 to below N.
        samples: N, size of the training set.
        momentum: m, from 0 to below 1.

    Returns:
        lr = g (1 - m) / (N/B - 1), for the mean gradient. Nothing says that training is stable with it.

    Raises:
        BadInput: a number is out of range, or the batch is the whole set, which has no noise at any learning rate.
    """
    check_rate(1.0, momentum)
    check_batch(batch_size, samples)
    check_noise(noise_scale)
    if noise_scale == 0:
        raise BadInput("noise_scale is 0, which no learning rate above 0 gives; use the full batch instead")
    if batch_size == samples:
        raise BadInput(f"batch_size is all {samples:,} samples: no learning rate gives noise; choose a smaller batch")
    return noise_scale * (1 - momentum) / (samples / batch_size - 1)


def check_rate(lr: float, momentum: float) -> None:
    """Refuse a learning rate or a momentum out of range.

    Args:
        lr: learning rate.
        momentum: its m.

    Raises:
        BadInput: one of them is out of range.
    """
    if not (math.isfinite(lr) and lr > 0):
        raise BadInput(f"lr is {lr!r}; give a positive number")
    if not 0 <= momentum < 1:
        raise BadInput(f"momentum is {momentum!r}; give a number from 0 to below 1")


def check_batch(batch_size: float, samples: int) -> None:
    """Refuse sizes that cannot be.

    Args:
        batch_size: B.
        samples: N.

    Raises:
        BadInput: B is not from 1 to N.
    """
    if not samples >= 1:
        raise BadInput(f"samples is {samples!r}; give the size of the training set, at least 1")
    if not 1 <= batch_size <= samples:
        raise BadInput(f"batch_size is {batch_size!r}; give a number from 1 to samples, which is {samples:,}")


def check_noise(noise_scale: float) -> None:
    """Refuse a noise scale that cannot be.

    Args:
        noise_scale: g.

    Raises:
        BadInput: it is negative or not finite.
    """
    if not (math.isfinite(noise_scale) and noise_scale >= 0):
        raise BadInput(f"noise_scale is {noise_scale!r}; give a number of at least 0")
