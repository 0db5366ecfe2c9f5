"""Whether one Gaussian prior on all weights is a fair one: derivatives of the outputs at random initialisations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean, paired_ratio
from gengap.core.events import Listener, Progress, silent
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.measures.output_derivatives import OutputMoments, output_moments
from gengap.measures.protocols import LossFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, measuring
from gengap.measures.trees import dot, ravel
from gengap.problem.evaluate import BatchNormMode
from gengap.problem.problem import Problem

Verdict = Literal["plausible", "not plausible", "not resolvable"]

WHAT = "the plausibility of a prior"
MEAN = 0.1  # share of the mean squares that the mean derivative may make up
SCALE = 2.0  # ratio that the mean squares of two weight tensors may have
NOTHING = 1e-20  # of the largest mean square: rounding, as of a bias before batch norm
CHEAPER = 4  # how many times as many probes go to mean squares, which need one product and not three
OFF = 0.1  # share of the squared second moments that may lie off the diagonal
UNEQUAL = 0.1  # of single weights: what half of them with twice the mean square of the others make


@dataclass(frozen=True, slots=True)
class Derivatives(Record):
    """The derivatives of the outputs by some weights, M = <g g'> being their second moments over samples and outputs.

    Attributes:
        weights: how many, P.
        mean_square: <g_i^2>, averaged over the weights; 1 for white features, and any one number will do, which the prior's
            precision takes up.
        mean_share: |<g>|^2 / tr M; 0 if the derivatives average to zero, 1 if they are the same everywhere.
        unequal: variance of <g_i^2> over the weights, over its squared mean; 0 if no weight has more to say than another.
        off_diagonal: share of the squared entries of the rows of M that lie off the diagonal; 0 if no weight acts like
            another, near 1 if many do.
    """

    weights: int
    mean_square: Estimate
    mean_share: Estimate
    unequal: Estimate
    off_diagonal: Estimate


@dataclass(frozen=True, slots=True)
class PriorPlausibility(Record):
    """How near a network at initialisation is to <dy/dw_i> = 0 and <dy/dw_i dy/dw_j> = delta_ij.

    All estimates are means over initialisations, with t intervals.

    Attributes:
        verdict: "plausible" where all conditions are met by their whole intervals, "not plausible" where one is missed
            by its whole interval, else "not resolvable".
        reason: one sentence with the numbers.
        whole: over all weights.
        layers: the same for each weight tensor, by name.
        scale_ratio: largest mean square of a weight tensor over the smallest, geometric mean; those without a say left out.
        directions: (tr M)^2 / |M|^2, how many independent directions the derivatives fill; P where the conditions are met.
        seeds: number of initialisations.
        probes: random vectors for each.
        conditions: on what it was measured, and what it cost; of the last initialisation.
    """

    verdict: Verdict
    reason: str
    whole: Derivatives
    layers: dict[str, Derivatives]
    scale_ratio: Estimate
    directions: Estimate
    seeds: int
    probes: int
    conditions: Conditions

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}; {self.conditions}"


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the weights of one tensor, or of all: tr M, |<g>|^2, |M|^2 over its rows, and the part on the diagonal."""

    trace: float
    squared_mean: float
    squared: float
    diagonal: float


def prior_plausibility(
    problem: Problem,
    *,
    seeds: int = 5,
    samples: int | None = None,
    probes: int = 32,
    batch_norm: BatchNormMode = "batch",
    seed: int = 0,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> PriorPlausibility:
    r"""Check on fresh networks whether one Gaussian prior for all weights is plausible.

    With g the derivatives of an output by the weights, the conditions are :math:`\langle g_i \rangle = 0` and
    :math:`\langle g_i g_j \rangle = \delta_{ij}` over samples and outputs: no weight has more to say than another, and no two
    say the same. Nothing but products with J, the derivatives of all n outputs, is needed: random signs z over the weights
    give :math:`|M|^2 = E |M z|^2` with :math:`M z = J^\top J z / n`, and random signs u over the outputs give
    :math:`M_{ii} = E (J^\top u)_i^2 / n`.

    The samples are cut into halves, and what is squared is a product of one half with the other, so that few samples or
    probes make the estimates noisy and not wrong.

    Costs for each initialisation and each probe some fourteen backward passes, and memory for three
    copies of the weights.

    Args:
        problem: its network is made afresh for each seed; the samples are of its training set.
        seeds: initialisations, >= 2.
        samples: drawn anew for each, >= 4; by default 256, or all where there are fewer.
        probes: random vectors of signs for each, >= 2.
        batch_norm: statistics used, where there is batch norm; those of a fresh network are no statistics of anything.
        seed: of everything.
        memory_limit: bytes for graphs and vectors.
        listen: is told after every initialisation.

    Returns:
        The estimates, by weight tensor and for all, with a verdict.

    Raises:
        BadInput: a number is out of range, or outputs do not depend on the weights.

    Source:
        Smith & Le 2018, arXiv:1710.06451, appendix A.
    """
    available = len(problem.samples("train"))
    count = min(256, available) if samples is None else samples
    if seeds < 2 or probes < 2 or not 4 <= count <= available:
        raise BadInput(
            f"seeds is {seeds!r}, probes {probes!r} and samples {count!r}; give at least 2, 2, and from 4 to the {available:,} "
            "of the training set"
        )
    found: list[dict[str, Moments]] = []
    sizes: dict[str, int] = {}
    for k in range(seeds):
        model = problem.model(stream(seed, "prior", k), dtype=torch.float64)
        params = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        rng = torch.Generator().manual_seed(stream(seed, "samples", k))
        halves = torch.randperm(available, generator=rng)[: 2 * (count // 2)].chunk(2)
        losses = [problem.loss_function("train", batch_norm=batch_norm, samples=half) for half in halves]
        sizes = {name: p.numel() for name, p in params.items()}
        parts, conditions = measured(losses, params, probes, stream(seed, "probe", k), memory_limit)
        found.append(parts)
        listen(Progress(WHAT, k + 1, seeds, "seeds"))
    return summary(found, sizes, probes, conditions)


def measured(
    losses: Sequence[LossFunction], params: dict[str, Tensor], probes: int, seed: int, memory_limit: str | int
) -> tuple[dict[str, Moments], Conditions]:
    """Measure one initialisation: moments by the name of a weight tensor, and "" for all of them."""
    halves = []
    directions = list(signs(params, probes, seed))
    for h, loss in enumerate(losses):
        with measuring(loss, params, passes="product", vectors=3 * probes + 6, memory_limit=memory_limit) as session:
            drawn = stream(seed, "outputs", h)
            halves.append(output_moments(session, WHAT, directions=directions, probes=CHEAPER * probes, seed=drawn))
            conditions = session.conditions()
    ends = list(accumulate(p.numel() for p in params.values()))
    places = [slice(a, b) for a, b in pairwise([0, *ends])]
    a, b = halves
    found = {name: moments(a, b, part) for name, part in zip(params, places, strict=True)}
    return found | {"": moments(a, b, slice(None))}, conditions


def signs(params: dict[str, Tensor], probes: int, seed: int) -> Iterator[Tensor]:
    """Yield random vectors of signs, shape (P,), always the same for a seed."""
    vector = ravel(params)
    for v in range(probes):
        rng = torch.Generator().manual_seed(stream(seed, "signs", v))
        yield (2.0 * torch.randint(2, vector.shape, generator=rng) - 1).to(vector)


def moments(a: OutputMoments, b: OutputMoments, part: slice) -> Moments:
    """Estimate the sums of one part of the weights: what is squared is a product of both halves."""
    products = [dot(x[part], y[part]) for x, y in zip(a.images, b.images, strict=True)]
    return Moments(
        trace=float(a.squares[part].sum() + b.squares[part].sum()) / 2,
        squared_mean=dot(a.mean[part], b.mean[part]),
        squared=sum(products) / len(products),
        diagonal=dot(a.squares[part], b.squares[part]),
    )


def summary(
    found: list[dict[str, Moments]], sizes: dict[str, int], probes: int, conditions: Conditions
) -> PriorPlausibility:
    """Average over initialisations and judge.

    Args:
        found: moments of each initialisation.
        sizes: weights by the name of their tensor.
        probes: of each initialisation.
        conditions: of the last one.

    Returns:
        The record.

    Raises:
        BadInput: no output changes with any weight.
    """
    loudest = max(one[name].trace / n for one in found for name, n in sizes.items())
    silent_ones = [name for name, n in sizes.items() if any(one[name].trace / n <= NOTHING * loudest for one in found)]
    heard = {name: n for name, n in sizes.items() if name not in silent_ones}
    if not heard:
        raise BadInput("no output of the fresh network changes with any weight; give it another initialisation")
    squares = {name: [one[name].trace / n for one in found] for name, n in heard.items()}
    low, *_, high = sorted([*squares.values(), *squares.values()], key=sum)
    whole = derivatives([one[""] for one in found], sum(sizes.values()))
    scale = paired_ratio(low, high)
    assert scale is not None  # positive, or it would be silent
    verdict, reason = judge(whole, scale, silent_ones)
    return PriorPlausibility(
        verdict=verdict,
        reason=reason,
        whole=whole,
        layers={name: derivatives([one[name] for one in found], n) for name, n in sizes.items()},
        scale_ratio=scale,
        directions=mean([one[""].trace ** 2 / one[""].squared for one in found]),
        seeds=len(found),
        probes=probes,
        conditions=conditions,
    )


def derivatives(found: list[Moments], weights: int) -> Derivatives:
    """Average the moments of some weights over initialisations."""
    return Derivatives(
        weights=weights,
        mean_square=mean([m.trace / weights for m in found]),
        mean_share=mean([m.squared_mean / m.trace if m.trace else 0.0 for m in found]),
        unequal=mean([weights * m.diagonal / m.trace**2 - 1 if m.trace else 0.0 for m in found]),
        off_diagonal=mean([1 - m.diagonal / m.squared if m.squared > 0 else 0.0 for m in found]),
    )


def judge(whole: Derivatives, scale: Estimate, silent_ones: list[str]) -> tuple[Verdict, str]:
    """Compare the conditions with their limits; weights that have no say at all miss the second."""
    conditions = [
        (whole.mean_share, MEAN, "the mean derivative makes up {:.2g} of the mean squares"),
        (scale, SCALE, "mean squares differ between weight tensors by a factor of {:.3g}"),
        (whole.unequal, UNEQUAL, "those of single weights have a relative variance of {:.2g}"),
        (whole.off_diagonal, OFF, "{:.2g} of the squared second moments lie off the diagonal"),
    ]
    words = [f"the outputs do not change with {', '.join(silent_ones)}"] if silent_ones else []
    missed, unclear = bool(silent_ones), False
    for estimate, limit, sentence in conditions:
        assert estimate.interval is not None
        low, high = estimate.interval
        missed, unclear = missed or low > limit, unclear or low <= limit < high
        words.append(f"{sentence.format(estimate.value)} (95 % {low:.2g} to {high:.2g}, limit {limit:g})")
    verdict: Verdict = "not plausible" if missed else ("not resolvable" if unclear else "plausible")
    more = "; more samples, probes or seeds would tell" if verdict == "not resolvable" else ""
    return verdict, ", ".join(words) + more
