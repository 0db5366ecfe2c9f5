"""How long a step takes: latency, throughput and communication, fitted to measured steps."""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.cost_points import rounded
from gengap.theory.least_squares import Coefficient, Floats

METHOD = "least squares of relative errors, Student t, 95 %"
NO_REST = "as many coefficients as measurements, no interval"
AT_ZERO = "held at zero, where the fit would be below"


@dataclass(frozen=True, slots=True)
class Communication(Record):
    """What a step on several devices takes longer than one device takes for its share.

    Attributes:
        devices: how many.
        seconds: the time, s per step.
    """

    devices: int
    seconds: Coefficient


@dataclass(frozen=True, slots=True)
class StepTime(Record):
    """The time of a step of n devices with B samples: latency + B / (n throughput) + communication(n).

    Attributes:
        latency: of a step whatever its size, s.
        sample_seconds: time of one device for one sample, s; its inverse is the throughput.
        communication: for each number of devices above one that was measured, ascending.
        residual_percent: root mean square of what the measured steps miss the curve by.
        largest_share: most samples per device that were measured.
        covariance: of latency, sample_seconds and the communications, in this order, shape (k, k); None where no
            measurement is left over to estimate it from.
        n: number of measurements.
    """

    latency: Coefficient
    sample_seconds: Coefficient
    communication: tuple[Communication, ...]
    residual_percent: float
    largest_share: float
    covariance: tuple[tuple[float, ...], ...] | None
    n: int

    def __str__(self) -> str:
        if not self.sample_seconds.value:
            return f"{self.latency.value:.3g} s a step at any size (n={self.n})"
        return (
            f"{self.latency.value:.3g} s a step + 1 s for {rounded(self.throughput)} samples on a device (n={self.n})"
        )

    @property
    def throughput(self) -> float:
        """Samples per second of one device with large batches; infinite where size does not show in the time."""
        return 1 / self.sample_seconds.value if self.sample_seconds.value else math.inf

    def seconds(self, batch_size: float, devices: int = 1) -> Coefficient:
        """Return the time of one step.

        Args:
            batch_size: B, samples of all devices together.
            devices: n >= 1. For a number that was not measured, communication is interpolated in ln n, and above the
                largest one it is that of the largest, which is too short: see `measured`.

        Returns:
            Seconds, with the interval of the curve, not that of a single step.

        Raises:
            BadInput: a number is out of range.
        """
        if not (batch_size > 0 and devices >= 1):
            raise BadInput(
                f"batch_size is {batch_size!r} and devices {devices!r}; give more than 0 samples, and at least 1"
            )
        terms = self._terms(batch_size, devices)
        values = np.array([c.value for c in self._coefficients()])
        seconds, free = float(terms @ values), int((values > 0).sum())
        if self.covariance is None:
            return Coefficient(seconds, None, None, self.n, NO_REST)
        stderr = math.sqrt(float(terms @ np.array(self.covariance) @ terms))
        return Coefficient.student(seconds, stderr, self.n - free, n=self.n, method=METHOD)

    def efficiency(self, batch_size: float, devices: int) -> float:
        """Return the parallel efficiency f(n): the time of one device for the batch over n times that of n devices."""
        return self.seconds(batch_size).value / (devices * self.seconds(batch_size, devices).value)

    def measured(self, devices: int) -> bool:
        """Tell whether communication of so many devices is known, or lies between two that are."""
        return devices <= max((c.devices for c in self.communication), default=1)

    def _coefficients(self) -> tuple[Coefficient, ...]:
        """Return all coefficients in the order of the covariance."""
        return (self.latency, self.sample_seconds, *(c.seconds for c in self.communication))

    def _terms(self, batch_size: float, devices: int) -> Floats:
        """Return what each coefficient is multiplied by."""
        known = np.log([1, *(c.devices for c in self.communication)])
        shares = [float(np.interp(math.log(devices), known, row)) for row in np.eye(len(known))[1:]]
        return np.array([1.0, batch_size / devices, *shares])


def fit_step_time(batch_sizes: npt.ArrayLike, seconds: npt.ArrayLike, devices: npt.ArrayLike | None = None) -> StepTime:
    """Fit the time of a step to measured ones.

    Squares of relative errors are summed: clocks err by a share of what they time. No coefficient may be negative; one
    that would be is held at zero, and has no interval.

    Args:
        batch_sizes: samples of all devices together, > 0, shape (n,).
        seconds: time of one step, > 0, shape (n,).
        devices: how many devices, >= 1, shape (n,); one where not given. Each number above one that occurs gets a
            communication term of its own.

    Returns:
        The coefficients with their intervals.

    Raises:
        BadInput: shapes do not fit, a number is out of range, or fewer than two sizes of a device's share occur.
    """
    sizes, times, counts = measurements(batch_sizes, seconds, devices)
    several = np.unique(counts[counts > 1])
    columns = [np.ones_like(sizes), sizes / counts, *((counts == n).astype(np.float64) for n in several)]
    jacobian = np.stack(columns, axis=1) / times[:, None]
    values, covariance = nonnegative(jacobian, np.ones_like(times))
    found = [coefficient(v, covariance, i, len(times), values) for i, v in enumerate(values)]
    return StepTime(
        latency=found[0],
        sample_seconds=found[1],
        communication=tuple(Communication(int(n), c) for n, c in zip(several, found[2:], strict=True)),
        residual_percent=100 * math.sqrt(float(np.mean((1 - jacobian @ values) ** 2))),
        largest_share=float((sizes / counts).max()),
        covariance=None if covariance is None else tuple(tuple(row) for row in covariance.tolist()),
        n=len(times),
    )


def nonnegative(jacobian: Floats, target: Floats) -> tuple[Floats, Floats | None]:
    """Return the nonnegative coefficients with the least squares, and the covariance of those that are not held at zero."""
    from scipy.optimize import nnls

    size = np.linalg.norm(jacobian, axis=0)
    values = cast("Floats", nnls(jacobian / size, target)[0]) / size
    free = values > 0
    degrees = len(target) - int(free.sum())
    if degrees <= 0:
        return values, None
    inverse = np.linalg.pinv(jacobian[:, free] / size[free]) / size[free, None]
    left = target - jacobian @ values
    covariance = np.zeros((len(values), len(values)))
    covariance[np.ix_(free, free)] = inverse @ inverse.T * float(left @ left) / degrees
    return values, covariance


def coefficient(value: float, covariance: Floats | None, index: int, n: int, values: Floats) -> Coefficient:
    """Give one coefficient its t interval."""
    if value == 0:
        return Coefficient(0.0, None, None, n, AT_ZERO)
    if covariance is None:
        return Coefficient(float(value), None, None, n, NO_REST)
    stderr = math.sqrt(covariance[index, index])
    return Coefficient.student(value, stderr, n - int((values > 0).sum()), n=n, method=METHOD)


def measurements(
    batch_sizes: npt.ArrayLike, seconds: npt.ArrayLike, devices: npt.ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Take measured steps.

    Args:
        batch_sizes: samples of a step, shape (n,).
        seconds: its time, shape (n,).
        devices: how many devices shared it, shape (n,).

    Returns:
        All three in float64.

    Raises:
        BadInput: shapes do not fit, a number is out of range, or fewer than two sizes of a device's share occur.
    """
    sizes, times = np.asarray(batch_sizes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    counts = np.ones_like(sizes) if devices is None else np.asarray(devices, dtype=np.float64)
    if sizes.ndim != 1 or not sizes.shape == times.shape == counts.shape:
        raise BadInput(
            f"batch_sizes, seconds and devices have shapes {sizes.shape}, {times.shape} and {counts.shape}; "
            "give one of each for each measurement"
        )
    for name, numbers in {"batch_sizes": sizes, "seconds": times, "devices": counts}.items():
        if not (np.isfinite(numbers) & (numbers > 0)).all():
            raise BadInput(f"{name} holds a number that is not positive and finite; leave that measurement out")
    if (counts != np.round(counts)).any():
        raise BadInput(f"devices holds {counts[counts != np.round(counts)][0]:g}; give whole numbers")
    shares = np.unique(sizes / counts)
    if len(shares) < 2:
        raise BadInput(f"all devices had {shares.tolist()} samples a step; latency and throughput need two sizes")
    return sizes, times, counts
