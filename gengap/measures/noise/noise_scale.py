"""The gradient noise scale at one point, from the gradients of all single samples or of batches of two sizes."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate
from gengap.core.events import Listener, silent
from gengap.core.recipe import Recipe
from gengap.core.records import Record
from gengap.measures.noise.jackknife import Floats, estimate, pseudo_values
from gengap.measures.noise.metric import checked_metric
from gengap.measures.noise.per_sample import Gathered, gather
from gengap.measures.protocols import LossFunction, Params
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, measuring
from gengap.problem.problem import Problem
from gengap.theory.intervals import UNBOUNDED, Ratio, ratio_interval
from gengap.theory.noise_scale import SdeNoise, recipe_noise_scale

Population = Literal["sampled", "data"]
EXACT = "exact: the data are the population"
FEWEST = 3  # samples: the jackknife leaves one out and still needs a pair


@dataclass(frozen=True, slots=True)
class NoiseScale(Record):
    r"""The noise of the gradient at one point.

    Attributes:
        simple: tr(Sigma) / |G|^2, in samples; None where it is not resolvable.
        reason: why `simple` is None, or "".
        at_least: low end of the 95 % interval of the noise scale, given also where it has no high end; None where the data
            are the population.
        trace_covariance: tr(Sigma), of the gradient of one sample.
        squared_gradient_norm: |G|^2, of the mean gradient.
        population: "sampled" where the samples were drawn from what G and Sigma belong to, "data" where they are all of it.
        method: "per sample", or "two batches".
        metric: "euclidean", or "weighted" where squared entries were multiplied by given factors.
        one_by_one: names of weights whose per-sample gradients had to be written out.
        conditions: what it was measured on and what it cost.
    """

    simple: Estimate | None
    reason: str
    at_least: float | None
    trace_covariance: Estimate
    squared_gradient_norm: Estimate
    population: Population
    method: str
    metric: Literal["euclidean", "weighted"]
    one_by_one: tuple[str, ...]
    conditions: Conditions

    def __str__(self) -> str:
        if self.simple is None:
            said = f"noise scale not resolvable: {self.reason}"
        elif self.simple.interval is None:
            said = f"noise scale {self.simple.value:.4g} samples ({self.simple.method})"
        else:
            low, high = self.simple.interval
            said = f"noise scale {self.simple.value:.4g} samples (95 % {low:.4g} to {high:.4g})"
        parts = f"tr(Sigma) {self.trace_covariance.value:.4g}, |G|^2 {self.squared_gradient_norm.value:.4g}"
        return f"{said}; {parts}, {self.method}, {self.metric}; {self.conditions}"


def noise_scale(  # noqa: PLR0913 - options, by keyword only
    loss: Problem | LossFunction,
    params: Params | Tensor,
    *,
    buffers: Params | None = None,
    samples: Tensor | None = None,
    population: Population = "sampled",
    metric: Params | None = None,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> NoiseScale:
    r"""Measure the gradient noise scale at one point, exactly over the samples of a loss.

    .. math::
        B_{simple} = \frac{\mathrm{tr}(\Sigma)}{|G|^2}

    with G the mean and Sigma the covariance of the gradient of one sample: batches much smaller than that are mostly
    noise, much larger ones waste samples. Both parts are unbiased where the samples are drawn from a population:
    tr(Sigma) has N - 1 in its denominator, and tr(Sigma)/N is taken from the square of the mean. Intervals are over
    samples, that of the ratio is Fieller's; where |G|^2 is not told from zero there is no ratio, only the low end.

    Costs about two gradients of the loss where layers are linear, convolutional, embeddings or
    normalisations (batch norm with running statistics); gradients of single samples are written out, in blocks, for
    all other weights and for those that are used twice. Memory does not grow with samples times weights.

    Args:
        loss: a problem, of which the training set is taken, or a loss that knows its samples.
        params: the weights by name; not modified.
        buffers: of the trained network (`run.buffers`), for a problem; needed where it has batch norm.
        samples: indices of the samples to use, for a problem; by default all.
        population: "sampled": the samples are drawn from a population that G and Sigma belong to; "data": they are all
            there is, so that the numbers are exact and have no interval.
        metric: factors of the squared entries of a gradient, by weight name, for example `adam_factors(...)`; by default 1.
        only: patterns of names; gradients are by the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for chunks, blocks and what is kept from one pass to the next.
        listen: is told how far it is, and of layers that are not what they seem.

    Returns:
        The noise scale with its parts.

    Raises:
        BadInput: an argument cannot be used, the loss has no samples or fewer than three, or it mixes samples, as batch
            norm with batch statistics does.
        FloatingPointError: a gradient is not finite.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, eq. 2.9 and appendix A.1.
    """
    if population not in get_args(Population):
        raise BadInput(f"population is {population!r}; choose one of {', '.join(get_args(Population))}")
    function = loss_of(loss, buffers, samples)
    check_apart_in_batch_norm(function)
    with measuring(
        function, params, passes="gradient", vectors=4, only=only, check=check, memory_limit=memory_limit
    ) as session:
        factors = checked_metric(metric, session.params)
        found = gather(session, factors, listen)
        squares, along = finite_pair(found)
        parts = exact_parts(squares, along) if population == "data" else sampled_parts(squares, along)
        return NoiseScale(
            **parts,
            population=population,
            method="per sample",
            metric="euclidean" if metric is None else "weighted",
            one_by_one=found.one_by_one,
            conditions=session.conditions(),
        )


def loss_of(loss: Problem | LossFunction, buffers: Params | None, samples: Tensor | None) -> LossFunction:
    """Take a problem or a loss.

    Args:
        loss: either.
        buffers: for a problem.
        samples: for a problem.

    Returns:
        The loss, over the training set for a problem.

    Raises:
        BadInput: buffers are missing, or are given with a loss that has its own.
    """
    if isinstance(loss, Problem):
        if buffers is None and loss.has_batch_norm:
            raise BadInput(
                f"{loss.name} has batch norm; give buffers=run.buffers, whose running statistics it was trained with"
            )
        return loss.loss_function("train", buffers=buffers, samples=samples)
    if buffers is not None or samples is not None:
        raise BadInput("buffers and samples go with a problem; give them to problem.loss_function() when making a loss")
    return loss


def check_apart_in_batch_norm(loss: LossFunction) -> None:
    """Refuse statistics that couple samples.

    Args:
        loss: says which it uses.

    Raises:
        BadInput: batch norm uses those of the batch.
    """
    mode = loss.describe().get("batch_norm") if isinstance(loss, LossFunction) else None
    if mode in {"batch", "recompute"}:
        raise BadInput(
            f"batch norm uses {mode!r} statistics, through which every sample moves the gradient of the others; use "
            f"batch_norm='running', or two_batch_noise_scale, which needs no single samples"
        )


def finite_pair(found: Gathered) -> tuple[Floats, Floats]:
    """Give squares and inner products as arrays.

    Args:
        found: of all samples.

    Returns:
        |g_i|^2 and g_i . S, shape (N,) each.

    Raises:
        BadInput: there are fewer than three samples.
        FloatingPointError: one is not finite.
    """
    squares, along = found.squares.numpy(), found.along.numpy()
    if len(squares) < FEWEST:
        raise BadInput(f"there are {len(squares)} samples; noise needs at least {FEWEST}")
    if not (np.isfinite(squares).all() and np.isfinite(along).all()):
        bad = int(np.argmin(np.isfinite(squares) & np.isfinite(along)))
        raise FloatingPointError(f"the gradient of sample {bad} is not finite, or its square overflows; use float64")
    return squares, along


def sampled_parts(squares: Floats, along: Floats) -> dict[str, Any]:
    """Estimate the parts for the population behind the samples."""
    traces, norms = pseudo_values(squares, along)
    return {
        "trace_covariance": estimate(traces),
        "squared_gradient_norm": estimate(norms),
        **resolved(ratio_interval(traces, norms, nonnegative=True)),
    }


def exact_parts(squares: Floats, along: Floats) -> dict[str, Any]:
    """Compute the parts for a population that is the samples."""
    n = len(squares)
    norm = float(along.mean()) / n
    trace = float(squares.mean()) - norm
    simple = Estimate(trace / norm, None, n, None, EXACT) if norm > 0 else None
    return {
        "trace_covariance": Estimate(trace, None, n, None, EXACT),
        "squared_gradient_norm": Estimate(norm, None, n, None, EXACT),
        "simple": simple,
        "reason": "" if simple else "the mean gradient is zero to the last digit",
        "at_least": None,
    }


def resolved(ratio: Ratio, what: str = "the squared gradient norm") -> dict[str, Any]:
    """Turn a ratio into an estimate, or into the reason why it is none."""
    low = 0.0 if ratio.interval is None else ratio.interval[0]
    if ratio.outcome == UNBOUNDED:
        least = f"; the noise scale is at least {low:.4g} samples (95 %)" if low > 0 else ""
        reason = f"{what} is not told from zero with n = {ratio.n:,}{least}"
        return {"simple": None, "reason": reason, "at_least": low}
    stdev = None if ratio.stderr is None else ratio.stderr * math.sqrt(ratio.n)
    simple = Estimate(ratio.value, stdev, ratio.n, ratio.interval, ratio.method)
    return {"simple": simple, "reason": "", "at_least": low}


@dataclass(frozen=True, slots=True)
class RecipeNoise(Record):
    r"""What noise at a point means for a recipe of SGD.

    Attributes:
        sde: the noise scale g of the stochastic differential equation, with its learning rate, batch and momentum.
        step_by_gradient: length of one update along the mean gradient, without momentum, in units of the weights: lr |G|.
        step_by_noise: root of the mean square of its random part: lr sqrt(tr(Sigma) (1/B - 1/N)).
        batch_over_noise_scale: B / B_simple: below 1 an update is mostly noise; None where the scale is not resolvable.
    """

    sde: SdeNoise
    step_by_gradient: float
    step_by_noise: float
    batch_over_noise_scale: float | None

    def __str__(self) -> str:
        share = (
            ""
            if self.batch_over_noise_scale is None
            else f", batch {self.batch_over_noise_scale:.3g} of the noise scale"
        )
        return (
            f"g = {self.sde.value:.4g}: an update moves {self.step_by_gradient:.3g} along the gradient and "
            f"{self.step_by_noise:.3g} at random{share}"
        )


def recipe_noise(recipe: Recipe, noise: NoiseScale, samples: int, *, lr: float | None = None) -> RecipeNoise:
    r"""Say how noisy a recipe's updates are where the noise was measured.

    Batches are taken without replacement from N samples, so that the random part of the mean gradient of B samples has the
    trace :math:`\mathrm{tr}(\Sigma) (1/B - 1/N)`.

    Args:
        recipe: of optimizer "sgd".
        noise: measured in the plain metric.
        samples: N, size of the training set.
        lr: learning rate at that moment, where a schedule changes it; by default the recipe's.

    Returns:
        g, and the sizes of the two parts of an update.

    Raises:
        BadInput: the recipe is not of sgd, its batch is larger than the set, or the metric was another.

    Source:
        Smith & Le 2018, arXiv:1710.06451, eqs. 13 to 15; McCandlish et al. 2018, arXiv:1812.06162, section 2.2.
    """
    if noise.metric != "euclidean":
        raise BadInput(f"noise was measured in a {noise.metric} metric; measure it without metric for a recipe of sgd")
    sde = recipe_noise_scale(recipe, samples, lr=lr)
    trace, norm = noise.trace_covariance.value, noise.squared_gradient_norm.value
    return RecipeNoise(
        sde=sde,
        step_by_gradient=sde.lr * math.sqrt(max(norm, 0.0)),
        step_by_noise=sde.lr * math.sqrt(trace * (1 / sde.batch_size - 1 / samples)),
        batch_over_noise_scale=None if noise.simple is None else sde.batch_size / noise.simple.value,
    )
