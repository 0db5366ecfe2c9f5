"""Langevin dynamics on losses of one weight, and SGD with momentum as a step of it."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.least_squares import Floats
from gengap.theory.noise_scale import check_rate
from gengap.theory.ornstein_uhlenbeck import HeavyBall
from gengap.theory.potentials import Potential, positive


@dataclass(frozen=True, slots=True)
class Langevin(Record):
    """The equation w'' = -damping w' - C'(w) + eta, with C the sum of N losses, and the step it is integrated with.

    Attributes:
        damping: lambda, per unit of time.
        step: Delta t, of which one update covers a share 1/N.
        samples: N.

    Raises:
        BadInput: a number is out of range, or the step is longer than the velocity lasts.
    """

    damping: float
    step: float
    samples: int

    def __post_init__(self) -> None:
        positive(damping=self.damping, step=self.step, samples=self.samples)
        if self.damping * self.step > self.samples:
            raise BadInput(
                f"damping {self.damping!r} times step {self.step!r} is above samples, {self.samples!r}: momentum would be below "
                "0; take a shorter step"
            )

    @property
    def lr(self) -> float:
        """Learning rate of the mean gradient that makes the same updates, (Delta t)^2 / N."""
        return self.step**2 / self.samples

    @property
    def momentum(self) -> float:
        """Momentum that makes the same updates, 1 - lambda Delta t / N."""
        return 1 - self.damping * self.step / self.samples

    def noise_scale(self, batch_size: float) -> float:
        """Return g = N Delta t / (B lambda), which is lr N / (B (1 - m)), for a batch far below N."""
        return self.samples * self.step / (batch_size * self.damping)


def as_langevin(*, lr: float, momentum: float, samples: int) -> Langevin:
    """Read SGD with momentum as a step of Langevin dynamics.

    Args:
        lr: learning rate for the mean gradient.
        momentum: m, from 0 to below 1.
        samples: N.

    Returns:
        Damping (1 - m) sqrt(N / lr) and step sqrt(lr N).

    Raises:
        BadInput: a number is out of range.

    Source:
        Smith & Le 2018, arXiv:1710.06451, appendix C, eqs. 16 to 26.
    """
    check_rate(lr, momentum)
    positive(samples=samples)
    return Langevin((1 - momentum) * math.sqrt(samples / lr), math.sqrt(lr * samples), samples)


def sgd_temperature(rule: HeavyBall, gradient_variance: float) -> float:
    """Return the temperature at which Langevin dynamics spreads as SGD does: lr sigma^2 / (2 B (1 - m)).

    Args:
        rule: learning rate, batch size and momentum.
        gradient_variance: sigma^2, of the gradient of one sample.

    Returns:
        T, in units of the mean loss: SGD's stationary density is near exp(-L / T) for small learning rates.

    Raises:
        BadInput: the variance is not positive.
    """
    positive(gradient_variance=gradient_variance)
    return rule.lr * rule.noise_share * gradient_variance / (2 * (1 - rule.momentum))


def simulate_noisy_descent(
    potential: Potential,
    rule: HeavyBall,
    gradient_variance: float,
    *,
    steps: int,
    start: npt.ArrayLike,
    seed: int = 0,
) -> Floats:
    """Run SGD on a loss of one weight with Gaussian gradient noise, one run for each start.

    Without momentum it is the Euler step of dw = -L' dt + sqrt(2 T) dW with dt = lr and T as in `sgd_temperature`; with
    momentum that of the equation with inertia.

    Args:
        potential: the mean loss L.
        rule: learning rate, batch size, momentum.
        gradient_variance: sigma^2, of the gradient of one sample.
        steps: updates, >= 1.
        start: where each run begins, shape (K,).
        seed: of the noise.

    Returns:
        Where each run ends, shape (K,). Costs steps times K evaluations of the slope.

    Raises:
        BadInput: a number is out of range.
        FloatingPointError: a run left for infinity; lower the learning rate.
    """
    positive(steps=steps, gradient_variance=gradient_variance)
    rng = np.random.default_rng(stream(seed, "noisy descent"))
    spread = math.sqrt(rule.noise_share * gradient_variance)
    w = np.array(start, dtype=np.float64).reshape(-1)
    v = np.zeros_like(w)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            v = rule.momentum * v + potential.slope(w) + spread * rng.standard_normal(len(w))
            w = w - rule.lr * v
    if not np.isfinite(w).all():
        raise FloatingPointError(
            f"{int((~np.isfinite(w)).sum())} of {len(w)} runs left for infinity; lower lr from {rule.lr!r}"
        )
    return w
