"""Whether runs of equal noise match: learning rate over batch size against either of them alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.least_squares import Floats, sum_of_squares
from gengap.theory.regimes import LEAST, Transition, find_transition

Factor = Literal["noise", "learning rate", "batch size"]
Verdict = Literal["noise", "learning rate", "batch size", "not resolvable"]
FACTORS: tuple[Factor, ...] = ("noise", "learning rate", "batch size")
CLEAR = 0.2  # by which the share of one factor must exceed those of the others
MOST = 0.5  # share of the variance that a factor must explain at least
ALIKE = 0.1  # in log2: grids written with few digits have ratios that are equal but for rounding


@dataclass(frozen=True, slots=True)
class EqualNoise(Record):
    """Settings of one ratio of learning rate to batch size.

    Attributes:
        temperature: lr / (B (1 - m)), their geometric mean.
        batch_sizes: ascending.
        transition: up to which batch size their values match, the smallest one's being the measure.
    """

    temperature: float
    batch_sizes: tuple[int, ...]
    transition: Transition


@dataclass(frozen=True, slots=True)
class ThreeFactors(Record):
    """What decides how settings do: their noise, or one of its parts.

    Attributes:
        verdict: the factor that explains clearly more than the others, or "not resolvable".
        reason: one sentence with the shares.
        shares: of the variance between settings that each factor explains alone, adjusted for its number of values; below 0
            where it explains less than chance. Empty where nothing is left over to judge by.
        classes: ratios with enough batch sizes to say up to where they match, those with the most sizes first.
        n: number of settings.
    """

    verdict: Verdict
    reason: str
    shares: Mapping[str, float]
    classes: tuple[EqualNoise, ...]
    n: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def compare_factors(
    batch_sizes: npt.ArrayLike,
    effective_lrs: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    seeds: npt.ArrayLike | None = None,
    tolerance: float = 0.0,
    higher_is_better: bool = True,
) -> ThreeFactors:
    """Ask whether settings with the same lr / (B (1 - m)) do the same, as the three-factor theory says.

    Near a minimum the theory has the noise of SGD, and with it where SGD goes, depend on the learning rate, the batch size
    and the gradient's covariance through lr / B times the covariance alone. So settings of equal ratio should match, until
    the learning rate reaches the limit of stability. For each factor the share of the variance between settings that its
    values explain is computed as in an analysis of variance with one factor.

    Args:
        batch_sizes: B of each run, shape (n,).
        effective_lrs: lr / (1 - m) of each run, shape (n,).
        values: test accuracy in percent, or a loss, shape (n,); of runs that ended well.
        seeds: of the runs, shape (n,); None: not paired.
        tolerance: a difference that does not matter, in the unit of the values.
        higher_is_better: False for a loss.

    Returns:
        The verdict with its shares. Costs milliseconds.

    Raises:
        BadInput: the vectors do not fit each other, or a batch size or a rate is not positive.

    Source:
        Jastrzebski et al. 2017, arXiv:1711.04623; with momentum Smith & Le 2018, arXiv:1710.06451, appendix C.
    """
    sizes, rates, found = (np.asarray(part, dtype=np.float64) for part in (batch_sizes, effective_lrs, values))
    if not sizes.ndim == 1 or not sizes.shape == rates.shape == found.shape:
        raise BadInput(f"batch_sizes, effective_lrs and values have shapes {sizes.shape}, {rates.shape}, {found.shape}")
    if not ((sizes > 0).all() and (rates > 0).all() and np.isfinite(found).all()):
        raise BadInput("batch sizes and rates must be positive and values finite; leave runs that diverged out")
    labels: dict[str, npt.NDArray[np.int64]] = {
        "noise": classes_of(rates / sizes),
        "learning rate": classes_of(rates),
        "batch size": classes_of(sizes),
    }
    settings, at = np.unique(np.stack([labels["learning rate"], labels["batch size"]]), axis=1, return_inverse=True)
    means = np.bincount(at, found) / np.bincount(at)
    first = np.array([int((at == i).argmax()) for i in range(settings.shape[1])], dtype=np.int64)
    shares: dict[str, float] = {
        name: share for name in FACTORS if (share := explained(labels[name][first], means)) is not None
    }
    order = None if seeds is None else np.asarray(seeds)
    matched = matches(labels["noise"], sizes, rates, found, seeds=order, how=(tolerance, higher_is_better))
    verdict, reason = judged(shares, matched, len(means))
    return ThreeFactors(verdict, reason, shares, matched, len(means))


def classes_of(values: Floats) -> npt.NDArray[np.int64]:
    """Number values so that those equal but for rounding have the same number."""
    logs = np.log2(values)
    order = np.argsort(logs, kind="stable")
    steps = np.diff(logs[order], prepend=logs[order][:1]) > ALIKE
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.cumsum(steps)
    return found


def explained(labels: npt.NDArray[np.int64], means: Floats) -> float | None:
    """Give the adjusted share of the variance that a factor explains; None where no degrees of freedom are left."""
    kinds = len(np.unique(labels))
    total = sum_of_squares(means - means.mean()) if len(means) else 0.0
    if len(means) - kinds < 2 or not total:
        return None
    inner = np.bincount(labels, means) / np.maximum(np.bincount(labels), 1)
    within = sum_of_squares(means - inner[labels])
    return float(1 - (within / (len(means) - kinds)) / (total / (len(means) - 1)))


def matches(
    labels: npt.NDArray[np.int64],
    sizes: Floats,
    rates: Floats,
    values: Floats,
    *,
    seeds: npt.NDArray[np.generic] | None,
    how: tuple[float, bool],
) -> tuple[EqualNoise, ...]:
    """Say for each ratio up to which batch size its settings match."""
    found = []
    for label in np.unique(labels):
        own = labels == label
        if len(np.unique(sizes[own])) < LEAST or crowded(sizes[own], None if seeds is None else seeds[own]):
            continue
        transition = find_transition(
            sizes[own],
            values[own],
            seeds=None if seeds is None else seeds[own],
            tolerance=how[0],
            higher_is_better=how[1],
        )
        temperature = float(np.exp(np.log(rates[own] / sizes[own]).mean()))
        found.append(EqualNoise(temperature, tuple(sorted({int(size) for size in sizes[own]})), transition))
    return tuple(sorted(found, key=lambda one: -len(one.batch_sizes)))


def crowded(sizes: Floats, seeds: npt.NDArray[np.generic] | None) -> bool:
    """Tell whether a seed occurs twice at a batch size, as where two momenta give one ratio."""
    if seeds is None:
        return False
    return len({*zip(sizes.tolist(), seeds.tolist(), strict=True)}) < len(sizes)


def judged(shares: Mapping[str, float], classes: tuple[EqualNoise, ...], n: int) -> tuple[Verdict, str]:
    """Say which factor decides."""
    if len(shares) < len(FACTORS):
        return "not resolvable", f"{n} settings are too few to part noise, learning rate and batch size"
    best = max(FACTORS, key=lambda name: shares[name])
    others = max(shares[name] for name in FACTORS if name != best)
    words = {"noise": "lr / B", "learning rate": "the learning rate alone", "batch size": "the batch size alone"}
    told = ", ".join(f"{words[name]} explains {max(0.0, shares[name]):.0%}" for name in FACTORS)
    said = f"{told} of what differs between {n} settings"
    if classes:
        said += f"; at lr / B = {classes[0].temperature:.3g} (batch {classes[0].batch_sizes[0]:,} to "
        said += f"{classes[0].batch_sizes[-1]:,}): {classes[0].transition.reason}"
    if shares[best] < MOST or shares[best] - others < CLEAR:
        return "not resolvable", said
    return best, said
