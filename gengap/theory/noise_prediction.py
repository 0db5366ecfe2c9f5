"""What the noise of the gradient says, before any sweep, about the cost of a batch size."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.least_squares import Floats


@dataclass(frozen=True, slots=True)
class NoisePrediction(Record):
    """The curves of one noise scale B_noise.

    All of them are shares of a limit, so that they can be laid over measured curves whose limit is fitted.

    Attributes:
        noise_scale: B_noise, in samples; the predicted critical batch size.
        interval: of it, where it is known; the high end may be infinite.
        lr_max: best learning rate for the full gradient; None where it was not given.
        gain_max: fall of the loss by one step of it, nats per sample; None likewise.
    """

    noise_scale: float
    interval: tuple[float, float] | None
    lr_max: float | None
    gain_max: float | None

    def __str__(self) -> str:
        known = "" if self.interval is None else f" (95 % {self.interval[0]:.4g} to {self.interval[1]:.4g})"
        return f"critical batch {self.noise_scale:.4g}{known} from the noise of the gradient"

    def share(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Return 1 / (1 + B_noise / B): the best learning rate and the gain of a step, as shares of their limits.

        Args:
            batch_sizes: B > 0, any shape.

        Returns:
            Shares between 0 and 1, in the same shape. Far below B_noise they grow as B: the linear scaling rule.

        Raises:
            BadInput: a batch size is not positive.
        """
        return 1 / (1 + self.noise_scale / positive(batch_sizes))

    def lr(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Return the best learning rates eps_opt(B) = eps_max / (1 + B_noise / B).

        Args:
            batch_sizes: B > 0, any shape.

        Returns:
            Learning rates in the same shape.

        Raises:
            BadInput: a batch size is not positive, or `lr_max` was not given.
        """
        if self.lr_max is None:
            raise BadInput("lr_max is None; give the best learning rate for the full gradient, or ask for `share`")
        return self.lr_max * self.share(batch_sizes)

    def gain(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Return the fall of the loss by one step at the best learning rate, dL_max / (1 + B_noise / B).

        Args:
            batch_sizes: B > 0, any shape.

        Returns:
            Nats per sample in the same shape.

        Raises:
            BadInput: a batch size is not positive, or `gain_max` was not given.
        """
        if self.gain_max is None:
            raise BadInput("gain_max is None; give the gain of one step of the full gradient, or ask for `share`")
        return self.gain_max * self.share(batch_sizes)

    def samples(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Return samples to a target over those of the smallest batches, E / E_min = 1 + B / B_noise."""
        return 1 + positive(batch_sizes) / self.noise_scale

    def steps(self, batch_sizes: npt.ArrayLike) -> Floats:
        """Return steps to a target over those of the largest batches, S / S_min = 1 + B_noise / B."""
        return 1 / self.share(batch_sizes)


def predict_cost(
    noise_scale: float,
    *,
    interval: tuple[float, float] | None = None,
    lr_max: float | None = None,
    gain_max: float | None = None,
) -> NoisePrediction:
    r"""Predict how learning rate, gain and cost depend on the batch size.

    A step of length eps along the mean gradient of B samples changes the loss, to second order and on average, by

    .. math::
        -\varepsilon |G|^2 + \frac{\varepsilon^2}{2} \left( G^T H G + \frac{\mathrm{tr}(H \Sigma)}{B} \right),

    which is least at eps_max / (1 + B_noise / B). With B_noise the same all along training, that many more steps are
    needed: the law that `fit_critical_batch` fits, with B_crit = B_noise.

    Args:
        noise_scale: B_noise = tr(H Sigma) / G^T H G, or the simple noise scale in its place, > 0.
        interval: of the noise scale.
        lr_max: |G|^2 / G^T H G.
        gain_max: |G|^4 / (2 G^T H G).

    Returns:
        The curves.

    Raises:
        BadInput: the noise scale, or what else was given of `lr_max` and `gain_max`, is not positive and finite.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, section 2.
    """
    if not (math.isfinite(noise_scale) and noise_scale > 0):
        raise BadInput(f"noise_scale is {noise_scale:g}; a prediction needs a positive number")
    for name, limit in {"lr_max": lr_max, "gain_max": gain_max}.items():
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise BadInput(f"{name} is {limit:g}; give a positive number, or leave it out")
    return NoisePrediction(float(noise_scale), interval, lr_max, gain_max)


def predict_from_parts(*, squared_norm: float, curvature: float, noise: float) -> NoisePrediction:
    """Predict from gradient and curvature at one point.

    Args:
        squared_norm: |G|^2, of the gradient of the mean loss.
        curvature: G^T H G.
        noise: tr(H Sigma), Sigma the covariance of the gradient of one sample.

    Returns:
        The curves, with learning rate and gain.

    Raises:
        BadInput: a part is not positive: there, no step length is the best one.
    """
    parts = {"squared_norm": squared_norm, "curvature": curvature, "noise": noise}
    for name, part in parts.items():
        if not (math.isfinite(part) and part > 0):
            raise BadInput(f"{name} is {part:g}; where it is not positive, no step length is the best one")
    lr_max = squared_norm / curvature
    return predict_cost(noise / curvature, lr_max=lr_max, gain_max=lr_max * squared_norm / 2)


def predict_along(steps: npt.ArrayLike, noise_scales: npt.ArrayLike, *, batch_size: float) -> NoisePrediction:
    r"""Predict from noise scales that were watched during one run.

    The noise scale grows while the loss falls, so a target has the mean of those on the way to it. A step of batch B
    goes as far as 1 / (1 + B_noise / B) steps of the full gradient; the mean counts those:

    .. math::
        B_{crit} = \frac{\int B_{noise}\, ds}{\int ds}, \qquad ds = \frac{dt}{1 + B_{noise}(t) / B}.

    Args:
        steps: update counts t of the readings, ascending, shape (n,), n >= 2; the last is where the target was met.
        noise_scales: B_noise there, > 0, shape (n,).
        batch_size: B of the run, at its best learning rate.

    Returns:
        The curves with that mean; integrals by the trapezoidal rule.

    Raises:
        BadInput: shapes do not fit, steps do not ascend, or a number is not positive and finite.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix D.
    """
    t, noise = np.asarray(steps, dtype=np.float64), positive(noise_scales)
    if t.ndim != 1 or t.shape != noise.shape or len(t) < 2:
        raise BadInput(f"steps has shape {t.shape} and noise_scales {noise.shape}; give two vectors of at least two")
    if not (np.diff(t) > 0).all():
        raise BadInput("steps do not ascend; give the readings in the order of time, each once")
    if not np.isfinite(noise).all():
        raise BadInput("noise_scales holds a number that is not finite; leave that reading out")
    pace = 1 / (1 + noise / positive(batch_size))
    return predict_cost(float(trapezoid(noise * pace, t) / trapezoid(pace, t)))


def steps_for_samples(samples: npt.ArrayLike) -> Floats:
    """Return S / S_min that the trade-off (S / S_min - 1) (E / E_min - 1) = 1 asks for.

    Args:
        samples: E / E_min > 1, any shape.

    Returns:
        S / S_min in the same shape. The trade-off is symmetric: the same function gives samples from steps.

    Raises:
        BadInput: a ratio is not above 1; no number of steps reaches the target with E_min samples or fewer.
    """
    ratio = np.asarray(samples, dtype=np.float64)
    if not (ratio > 1).all():
        raise BadInput(
            f"samples holds {ratio.min():g} times E_min; no number of steps reaches the target with 1 or less"
        )
    return np.asarray(1 + 1 / (ratio - 1))


def positive(values: npt.ArrayLike) -> Floats:
    """Take numbers above zero.

    Args:
        values: any shape.

    Returns:
        The same in float64.

    Raises:
        BadInput: one is not above zero.
    """
    found = np.asarray(values, dtype=np.float64)
    if not (found > 0).all():
        raise BadInput(f"{found.min():g} is not above zero; batch sizes and noise scales are")
    return found
