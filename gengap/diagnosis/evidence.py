"""All runs of one loop, and what its gradients should have been."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gengap.diagnosis.trace import Pass, Trace, Update, Vector

TOLERANCE = 1e-3  # relative difference that rounding in float32 may make
NOISE = 0.05  # relative difference between two gradients of the same samples above which nothing can be said


@dataclass(frozen=True, slots=True)
class Reduction:
    """How the samples of a batch enter the gradient of its loss.

    Attributes:
        kind: "mean", "weighted" (a mean in which samples weigh differently, such as a mean over tokens), "sum", or "other".
        weights: of each sample; those of a batch are divided by their sum, except for "sum".
        total: sum of the weights in the gradient of the whole batch; 1 for a mean.
        residual: relative length of what no weights explain.
        told: whether gradients of samples are independent enough to tell their weights.
    """

    kind: str
    weights: Vector
    total: float
    residual: float
    told: bool = True


@dataclass(slots=True)
class Evidence:
    """Runs of one loop, all at the same weights.

    Attributes:
        samples: N.
        singles: batch 1: the gradient of every sample.
        everything: batch N.
        accumulated: k passes of b samples per update; a sentence where that was not possible.
        whole: batch k b.
        paired: batch b times the number of processes, in one process.
        ranks: batch b on every process; a sentence where that was not possible.
        accumulated_ranks: k passes of b samples per update on every process, where both are possible.
    """

    samples: int
    singles: Trace
    everything: Trace
    accumulated: Trace | str
    whole: Trace | str
    paired: Trace | str
    ranks: list[Trace] | str
    accumulated_ranks: list[Trace] | None = None
    gradients: dict[int, Vector] = field(init=False)
    noise: float = field(init=False)
    reduction: Reduction = field(init=False)

    def __post_init__(self) -> None:
        passes = [p for update in self.singles.updates for p in update.passes] + self.singles.discarded
        self.gradients = {
            p.samples[0]: p.gradient for p in passes if p.samples and len(p.samples) == 1 and p.gradient is not None
        }
        first, *later = self.everything.updates
        self.noise = 0.0
        if later and not later[0].carried and first.samples and sorted(first.samples) == sorted(later[0].samples or ()):
            self.noise = relative(later[0].gradient, first.gradient)
        self.reduction = reduction_of(self.gradients, first)

    @property
    def tolerance(self) -> float:
        """Relative difference of gradients that is taken for rounding."""
        return max(TOLERANCE, 10 * self.noise)

    @property
    def trouble(self) -> str:
        """Why gradients cannot be compared; empty if they can."""
        if not self.gradients:
            return (
                "the samples of a batch could not be told; read data[i] one by one (a DataLoader does) and give the model "
                "tensors whose first axis is the batch"
            )
        if self.noise > NOISE:
            return (
                f"two gradients of the same {self.samples} samples at the same weights differ by {self.noise:.0%}; "
                f"read data[i] once for every use of a sample, and take random numbers out of the loop, into the data set or "
                f"nn.Dropout"
            )
        if self.reduction.kind == "other":
            return "the loss is no mean or sum over the samples of a batch, see loss reduction"
        return ""

    def expected(self, passes: Iterable[Pass]) -> Vector | None:
        """Give the gradient of the loss over all samples of some passes; None if they are not known."""
        chosen = [p.samples for p in passes]
        indices = [i for own in chosen for i in own or ()]
        if None in chosen or not indices or any(i not in self.gradients for i in indices):
            return None
        weights = self.reduction.weights[indices]
        if not np.isfinite(weights).all():
            return None
        if self.reduction.kind != "sum":
            weights = weights / weights.sum()
        return np.asarray(weights @ np.stack([self.gradients[i] for i in indices]))


def relative(found: Vector, expected: Vector) -> float:
    """Length of a difference over the length of what was expected."""
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-30)


def scale_of(found: Vector, expected: Vector) -> float:
    """The factor by which a gradient is too long, along the expected one."""
    return float(found @ expected / max(float(expected @ expected), 1e-60))


def reduction_of(gradients: dict[int, Vector], whole: Update) -> Reduction:
    """Find with which weights samples enter the gradient of a batch that holds them all.

    Args:
        gradients: of each sample, by its number.
        whole: an update on all samples.

    Returns:
        The weights: equal ones if they explain the gradient, else the least-squares solution.
    """
    indices = list(whole.samples or ())
    equal = np.ones(max([*gradients, *indices, 0]) + 1)
    if not indices or any(i not in gradients for i in indices):
        return Reduction("other", equal, float("nan"), float("nan"))
    basis = np.stack([gradients[i] for i in indices])
    mean = basis.mean(0)
    scale = scale_of(whole.gradient, mean)
    if relative(whole.gradient, scale * mean) < TOLERANCE:
        for kind, total in (("mean", 1.0), ("sum", float(len(indices)))):
            if abs(scale / total - 1) < TOLERANCE:
                return Reduction(kind, equal, scale, relative(whole.gradient, scale * mean))
        return Reduction("other", equal, scale, relative(whole.gradient, scale * mean))
    once = sorted(set(indices))
    basis = np.stack([gradients[i] for i in once])
    solved, _, rank, _ = np.linalg.lstsq(basis.T, whole.gradient, rcond=1e-5)
    residual, total = relative(solved @ basis, whole.gradient), float(solved.sum())
    weights = np.full_like(equal, np.nan)  # of samples that the batch does not have
    weights[once] = solved / np.array([indices.count(i) for i in once], dtype=np.float64)
    told = int(rank) == len(once) < basis.shape[1]
    weighted = told and residual < TOLERANCE and abs(total - 1) < 10 * TOLERANCE and bool((solved > 0).all())
    return Reduction("weighted" if weighted else "other", weights, total, residual, told)
