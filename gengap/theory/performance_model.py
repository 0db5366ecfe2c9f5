"""When a large batch pays: time and cost to a target against batch size and number of devices."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.cost_points import exactly, rounded
from gengap.theory.critical_batch import CriticalBatch
from gengap.theory.least_squares import Coefficient, Floats
from gengap.theory.step_time import StepTime

HOUR = 3600.0
METHOD = "95 %: interval of the samples and that of the step time, as independent, in quadrature on logarithms"


@dataclass(frozen=True, slots=True)
class Race(Record):
    """A large batch against a small one on the same processors.

    Attributes:
        break_even: I_l / I_s, the iterations of the large batch over those of the small one, below which the large
            batch is faster.
        iteration_ratio: I_l / I_s as it was measured; None where it was not given.
        speedup: time of the small batch over time of the large one; None likewise.
        verdict: which is faster; "not resolvable" without iterations.
        reason: one sentence with the numbers.
    """

    break_even: float
    iteration_ratio: float | None
    speedup: float | None
    verdict: Literal["large batch", "small batch", "equal", "not resolvable"]
    reason: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def large_batch_race(
    *,
    batch_ratio: float,
    small_efficiency: float,
    large_efficiency: float = 1.0,
    iteration_ratio: float | None = None,
) -> Race:
    r"""Ask when a large batch is faster to the same accuracy on P processors.

    .. math::
        \frac{I_l B_l}{P f_l(P)} < \frac{I_s B_s}{P f_s(P)}
        \quad\Longleftrightarrow\quad
        \frac{I_l}{I_s} < \frac{f_l(P)}{f_s(P)} \frac{B_s}{B_l}.

    Args:
        batch_ratio: B_s / B_l, above 0, at most 1.
        small_efficiency: f_s(P), parallel efficiency of the small batch, above 0, at most 1; `StepTime.efficiency`
            gives it from measured steps.
        large_efficiency: f_l(P); the paper takes 1, for P < B_l.
        iteration_ratio: I_l / I_s, where it is known.

    Returns:
        The break-even ratio of iterations, and who wins.

    Raises:
        BadInput: a ratio is not in its range.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, appendix C.
    """
    ratios = {"batch_ratio": batch_ratio, "small_efficiency": small_efficiency, "large_efficiency": large_efficiency}
    for name, ratio in ratios.items():
        if not 0 < ratio <= 1:
            raise BadInput(f"{name} is {ratio:g}; it lies above 0 and is at most 1")
    break_even = large_efficiency / small_efficiency * batch_ratio
    allowed = f"the large batch is faster with less than {break_even:.3g} times the iterations of the small one"
    if iteration_ratio is None:
        return Race(break_even, None, None, "not resolvable", f"{allowed}; they are not known")
    if not 0 < iteration_ratio < math.inf:
        raise BadInput(f"iteration_ratio is {iteration_ratio:g}; give a finite number above 0")
    speedup = break_even / iteration_ratio
    faster: Literal["large batch", "small batch", "equal"] = "large batch" if speedup > 1 else "small batch"
    if math.isclose(speedup, 1):
        faster = "equal"
    return Race(break_even, iteration_ratio, speedup, faster, f"{allowed}; it needs {iteration_ratio:.3g} times")


@dataclass(frozen=True, slots=True)
class Way(Record):
    """One way to the target.

    Attributes:
        devices: how many.
        batch_size: B, of all devices together.
        steps: to the target.
        seconds: to the target.
        device_hours: to the target, what is paid for.
        steps_interval: 95 %, from the fit of samples-to-target.
        seconds_interval: 95 %, with the error of the step time; None where that is not known.
        device_hours_interval: 95 %, likewise.
        efficiency: device-hours of the cheapest way over those of this one.
        extrapolated: what lies outside of what was measured: "batch", "share of a device", "communication".
    """

    devices: int
    batch_size: float
    steps: float
    seconds: float
    device_hours: float
    steps_interval: tuple[float, float]
    seconds_interval: tuple[float, float] | None
    device_hours_interval: tuple[float, float] | None
    efficiency: float
    extrapolated: tuple[str, ...]

    def __str__(self) -> str:
        known = ""
        if self.seconds_interval is not None:
            known = f" (95 % {rounded(self.seconds_interval[0])} to {rounded(self.seconds_interval[1])})"
        doubt = f"; extrapolated: {', '.join(self.extrapolated)}" if self.extrapolated else ""
        many = "s" if self.devices > 1 else ""
        return (
            f"{self.devices} device{many}, batch {exactly(self.batch_size)}: {rounded(self.steps)} steps, "
            f"{rounded(self.seconds)} s{known}, {self.device_hours:.3g} device-hours{doubt}"
        )


@dataclass(frozen=True, slots=True)
class Plan(Record):
    """Time and cost to the target for each number of devices and batch size.

    Attributes:
        verdict: "planned", or "not resolvable" without a curve of samples-to-target.
        reason: one sentence.
        ways: by devices, then batch size.
        fastest: the way with the least time for each number of devices.
        efficient: the one with the largest batch for each number of devices that costs at most 1 / `least_efficiency` of
            the cheapest way of all; a number of devices without one is left out.
        least_efficiency: the stated efficiency.
        method: how the intervals were made.
    """

    verdict: Literal["planned", "not resolvable"]
    reason: str
    ways: tuple[Way, ...]
    fastest: tuple[Way, ...]
    efficient: tuple[Way, ...]
    least_efficiency: float
    method: str = METHOD

    def __str__(self) -> str:
        return "\n".join([f"{self.verdict}: {self.reason}", *(str(way) for way in self.fastest)])


def plan_training(
    cost: CriticalBatch,
    step: StepTime,
    *,
    devices: Sequence[int],
    batch_sizes: Sequence[float] | None = None,
    least_efficiency: float = 0.8,
) -> Plan:
    r"""Compute time and cost to a target from what was measured.

    .. math::
        \mathrm{seconds}(n, B) = \frac{E(B)}{B} \left( \mathrm{latency} + \frac{B}{n r} + c(n) \right),
        \qquad \mathrm{device\ hours} = \frac{n}{3600}\, \mathrm{seconds}.

    With McCandlish's E(B) the time on n devices is least at B = sqrt(n r (latency + c(n)) B_crit).

    Args:
        cost: samples to target against batch size.
        step: time of a step.
        devices: numbers of devices to consider, >= 1.
        batch_sizes: to consider; where not given, those that were run and the powers of two between them. A number
            of devices above the batch size is left out, since a device needs a sample.
        least_efficiency: share of the lowest cost, above 0, at most 1.

    Returns:
        All ways, and the best for each number of devices.

    Raises:
        BadInput: no devices, or a number is out of its range.
    """
    counts = sorted(set(devices))
    if not counts or counts[0] < 1 or any(n != round(n) for n in counts):
        raise BadInput(f"devices is {list(devices)}; give at least one whole number, none below 1")
    if not 0 < least_efficiency <= 1:
        raise BadInput(f"least_efficiency is {least_efficiency:g}; it lies above 0 and is at most 1")
    if cost.law is None:
        return Plan("not resolvable", f"no curve of samples-to-target: {cost.reason}", (), (), (), least_efficiency)
    sizes = np.unique(np.array(default_sizes(cost) if batch_sizes is None else batch_sizes, dtype=np.float64))
    if not (len(sizes) and np.isfinite(sizes).all()):
        raise BadInput(f"batch_sizes is {sizes.tolist()}; give at least one, all finite, or leave it out")
    ways = all_ways(cost, step, counts, sizes)
    if not ways:
        reason = f"{counts[0]} devices are more than the largest batch, {exactly(sizes[-1])}, has samples"
        return Plan("not resolvable", reason, (), (), (), least_efficiency)
    groups = [[way for way in ways if way.devices == n] for n in counts]
    fastest = tuple(min(group, key=lambda way: way.seconds) for group in groups if group)
    within = [[way for way in group if way.efficiency >= least_efficiency] for group in groups]
    efficient = tuple(max(group, key=lambda way: way.batch_size) for group in within if group)
    reason = f"{len(ways)} ways; {cost.law} on {len([p for p in cost.points if p.used])} batch sizes, {cost.verdict}"
    return Plan("planned", reason, tuple(ways), fastest, efficient, least_efficiency)


def default_sizes(cost: CriticalBatch) -> list[float]:
    """Return the batch sizes that were fitted and the powers of two between them."""
    run = [p.batch_size for p in cost.points if p.used]
    powers = [2.0**k for k in range(math.ceil(math.log2(run[0])), math.floor(math.log2(run[-1])) + 1)]
    return [*run, *powers]


def all_ways(cost: CriticalBatch, step: StepTime, counts: list[int], sizes: Floats) -> list[Way]:
    """Return every number of devices with every batch size, with efficiencies relative to the cheapest."""
    curves = zip(sizes.tolist(), cost.samples(sizes), *cost.band(sizes), strict=True)
    known = {size: (float(middle), float(low), float(high)) for size, middle, low, high in curves}
    run = [p.batch_size for p in cost.points if p.used]
    ways = []
    for n, size in itertools.product(counts, known):
        if n <= size:
            doubts = {
                "batch": not run[0] <= size <= run[-1],
                "share of a device": size / n > step.largest_share,
                "communication": not step.measured(n),
            }
            way = one_way(n, size, known[size], step.seconds(size, n))
            ways.append(replace(way, extrapolated=tuple(name for name, is_so in doubts.items() if is_so)))
    least = min((way.device_hours for way in ways), default=math.nan)
    return [replace(way, efficiency=least / way.device_hours) for way in ways]


def one_way(devices: int, size: float, samples: tuple[float, float, float], step: Coefficient) -> Way:
    """Return steps, time and cost from samples to target, with their band, and the time of a step."""
    steps, low, high = (one / size for one in samples)
    seconds, ends = steps * step.value, None
    if step.interval is not None:
        relative = (step.interval[1] - step.value) / step.value
        down, up = math.hypot(math.log(steps / low), relative), math.hypot(math.log(high / steps), relative)
        ends = (seconds * math.exp(-down), seconds * math.exp(up))
    hours = devices / HOUR
    return Way(
        devices=devices,
        batch_size=size,
        steps=steps,
        seconds=seconds,
        device_hours=hours * seconds,
        steps_interval=(low, high),
        seconds_interval=ends,
        device_hours_interval=None if ends is None else (hours * ends[0], hours * ends[1]),
        efficiency=1.0,
        extrapolated=(),
    )
