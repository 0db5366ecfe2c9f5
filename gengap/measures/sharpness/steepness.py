"""Which share of the space is steep: of the dimensions by the Hessian, or of random directions by the rise of the loss."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.curvature.operators import hessian
from gengap.measures.curvature.quadrature import lanczos_quadrature
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.sharpness.ball_sharpness import Ball, summed_up
from gengap.measures.sharpness.climb import check_count, check_positive
from gengap.measures.sharpness.random_rise import rises_along
from gengap.measures.sharpness.surface import Scaled, Surface, View, check_finite, doubles
from gengap.measures.trees import as_tree, flatten

Along = Literal["curvature", "directions"]
Z = 1.959963984540054  # two-sided 95 % quantile of N(0, 1)
VECTORS = 5  # as long as the weights and in their dtype, beside those of the searches
BALL_VECTORS = 14  # float64 vectors of a search in the ball
ASCENT = 20  # steps of the search for the steepest direction


@dataclass(frozen=True, slots=True)
class SteepFraction(Record):
    """Which share of the space is steep.

    Attributes:
        share: of the space in which the loss rises at least `threshold` times as fast as where it rises fastest, 0 to 1.
        effective: mean rise over the steepest, 0 to 1 where no direction falls: the share of dimensions that would be steep
            if all steep ones were equally so and all others flat.
        threshold: relative to the steepest.
        steepest: largest eigenvalue of the Hessian, or highest rise found at that length in nats.
        along: "curvature" or "directions".
        radius: with "directions": length over the norm of the weights; else None.
        weights: P; share times P is the number of dimensions.
        cost: products with the Hessian, or evaluations of loss (and gradient).
        conditions: on what it was measured, and what it cost.
    """

    share: Estimate
    effective: Estimate
    threshold: float
    steepest: float
    along: Along
    radius: float | None
    weights: int
    cost: int
    conditions: Conditions

    def __str__(self) -> str:
        interval = self.share.interval
        shown = "" if interval is None else f" (95 % {100 * interval[0]:.3g} to {100 * interval[1]:.3g} %)"
        what = "dimensions" if self.along == "curvature" else "random directions"
        return (
            f"{100 * self.share.value:.3g} %{shown} of {what} are at least {self.threshold:g} times as steep as the steepest "
            f"({self.steepest:.4g}); effective share {100 * self.effective.value:.3g} %; {self.conditions}"
        )


def steep_fraction(  # noqa: PLR0913 - what is measured, how, and the arguments of every measure
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    along: Along = "curvature",
    threshold: float = 0.1,
    radius: float = 1e-2,
    samples: int | None = None,
    steps: int = 60,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> SteepFraction:
    r"""Measure the fraction of the space along which the loss rises steeply.

    - "curvature": the share of eigenvalues of the Hessian that are at least threshold times the largest one. To second
      order a step of one length along an eigenvector rises by half its eigenvalue, so this is the share of dimensions
      along which the loss rises at least threshold times as steeply as along the steepest, and does not depend on a basis.
      By stochastic Lanczos quadrature; the interval is Student's over random starts, each of which sees k dimensions
      out of P with a relative error of :math:`\sqrt{2/k}`.
    - "directions": the share of uniformly random directions along which a step of radius times the norm of the weights
      rises at least threshold times as high as the highest point found in the ball of that radius, with
      Wilson's interval for a binomial share.

    The two answer different questions. A random direction has a bit of every eigenvector, so with many weights all random
    directions rise about equally, by `effective` times the highest rise: the second share is then 0 or 1 and tells
    nothing about the number of steep dimensions. `effective` does, in both: it is the mean rise over the highest, for
    curvature :math:`\mathrm{tr} H / (P \lambda_{max})`.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic, and
            differentiable twice for "curvature".
        params: the weights x, P in all, by name or as one tensor; not modified.
        along: "curvature" or "directions".
        threshold: relative to the steepest, between 0 and 1.
        radius: with "directions": length of the steps over the norm of x, > 0.
        samples: random starts, by default 4, or random directions, by default 200; >= 2.
        steps: with "curvature": products from each start, >= 2.
        seed: of the random vectors.
        only: patterns of names; the space of the weights they match is measured.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for graphs, vectors and chunks.
        listen: is told of the progress.

    Returns:
        The share with its interval. Costs samples times steps Hessian products, or samples forward passes and about 40
        gradients.

    Raises:
        BadInput: an argument is out of range, the loss is not deterministic or not finite at the point, or it rises
            nowhere.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, says that at minima of large batches the loss rises steeply only along a small
        subspace, for example 5 % of the space, and does not define it.
    """
    tree = as_tree(params)
    check_steep(along, threshold, radius, steps)
    count = (4 if along == "curvature" else 200) if samples is None else samples
    check_count("samples", count, least=2)
    with measuring(
        loss,
        params,
        passes="product" if along == "curvature" else "gradient",
        vectors=VECTORS + (0 if along == "curvature" else doubles(tree, BALL_VECTORS)),
        moves=along == "directions",
        only=only,
        check=check,
        memory_limit=memory_limit,
    ) as session:
        if along == "curvature":
            return of_curvature(session, threshold, steps, starts=count, seed=seed, listen=listen)
        return of_directions(session, threshold, radius, samples=count, seed=seed, listen=listen)


def of_curvature(
    session: Session, threshold: float, steps: int, *, starts: int, seed: int, listen: Listener
) -> SteepFraction:
    """Find the share of large eigenvalues.

    Args:
        session: loss and weights.
        threshold: relative to the largest.
        steps: products from each start.
        starts: random ones.
        seed: of theirs.
        listen: told after every product.

    Returns:
        The record.

    Raises:
        BadInput: no eigenvalue is positive.
    """
    operator = hessian(session)
    rules = lanczos_quadrature(operator, steps=steps, starts=starts, seed=seed, what="steep fraction", listen=listen)
    largest = max(float(rule.nodes[-1]) for rule in rules)
    if not largest > 0:
        raise BadInput(f"the largest curvature is {largest!r}: the loss rises nowhere; measure a minimum")
    return SteepFraction(
        share=within_0_and_1(mean([rule.mean(lambda x: (x >= threshold * largest).astype(float)) for rule in rules])),
        effective=mean([rule.mean(lambda nodes: nodes / largest) for rule in rules]),
        threshold=threshold,
        steepest=largest,
        along="curvature",
        radius=None,
        weights=session.weights,
        cost=operator.products,
        conditions=session.conditions(),
    )


def of_directions(
    session: Session, threshold: float, radius: float, *, samples: int, seed: int, listen: Listener
) -> SteepFraction:
    """Find the share of random directions that rise high.

    Args:
        session: loss and weights.
        threshold: relative to the highest rise.
        radius: length of the steps over the norm of the weights.
        samples: directions.
        seed: of theirs.
        listen: told of every evaluation.

    Returns:
        The record.

    Raises:
        BadInput: no point of the ball is higher than its centre.
    """
    surface, centre = Surface(session.loss, session.params, listen, "steep fraction"), flatten(session.params)
    first = surface.at(centre)
    check_finite(first.value)
    reach = radius * float(np.linalg.norm(centre))
    if not reach > 0:
        raise BadInput("all weights are zero, and radius is relative to their norm; measure along='curvature'")
    ball = Ball(View(surface, Scaled(centre, np.ones_like(centre))), first, reach, ASCENT)
    highest = summed_up(ball.searched(1, seed)[0], first.value)["rise"]
    rises, _ = rises_along(session, first.value, "sphere", radius, samples=samples, seed=seed, listen=listen)
    highest = max(highest, *rises)
    if not highest > 0:
        raise BadInput("no point of the ball is higher than its centre: the loss rises nowhere; give a larger radius")
    return SteepFraction(
        share=binomial(sum(rise >= threshold * highest for rise in rises), samples),
        effective=mean([rise / highest for rise in rises]),
        threshold=threshold,
        steepest=highest,
        along="directions",
        radius=radius,
        weights=session.weights,
        cost=surface.evaluations + samples,
        conditions=session.conditions(),
    )


def within_0_and_1(share: Estimate) -> Estimate:
    """Cut the interval of a share at 0 and 1: few starts give a symmetric one that goes beyond."""
    if share.interval is None:
        return share
    low, high = share.interval
    return replace(share, interval=(max(0.0, low), min(1.0, high)), method=f"{share.method}, cut at 0 and 1")


def binomial(successes: int, n: int) -> Estimate:
    """Estimate a share with Wilson's 95 % interval, which is right for 0 and n too (Wilson 1927)."""
    share = successes / n
    middle, width = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + (Z / (2 * n)) ** 2)
    low = (middle - width) / (1 + Z**2 / n) if successes else 0.0
    high = (middle + width) / (1 + Z**2 / n) if successes < n else 1.0
    stdev = math.sqrt(share * (1 - share) * n / (n - 1)) if n > 1 else None
    return Estimate(share, stdev, n, (low, high), "Wilson, 95 %")


def check_steep(along: str, threshold: float, radius: float, steps: int) -> None:
    """Refuse what has no share.

    Args:
        along: what is counted.
        threshold: relative to the steepest.
        radius: of the ball.
        steps: of Lanczos.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    if along not in get_args(Along):
        raise BadInput(f"along is {along!r}; choose one of {', '.join(get_args(Along))}")
    check_positive("threshold", threshold, "0.1")
    if threshold > 1:
        raise BadInput(f"threshold is {threshold!r}; it is relative to the steepest, so give a number between 0 and 1")
    check_positive("radius", radius, "1e-2")
    check_count("steps", steps, least=2)
