"""The noise scale that says how the best step shrinks: noise and gradient weighed by the curvature they meet."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.curvature.operators import hessian
from gengap.measures.noise.jacobian import Jacobian
from gengap.measures.noise.metric import checked_metric
from gengap.measures.noise.noise_scale import FEWEST, Population, check_apart_in_batch_norm, loss_of
from gengap.measures.noise.per_sample import check_few_apart
from gengap.measures.noise.probes import LEAST, Product, all_forms, random_forms, weighed_data, weighed_sample
from gengap.measures.protocols import LossFunction, Params
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.trees import ravel
from gengap.problem.problem import Problem

WHAT = "the curvature-weighted noise scale"


@dataclass(frozen=True, slots=True)
class CurvatureNoiseScale(Record):
    r"""The curvature-weighted noise of the gradient at one point.

    Attributes:
        scale: tr(H Sigma) / (G^T H G), in samples; None where it is not resolvable.
        reason: why `scale` is None, or "".
        trace: tr(H Sigma), H being the Hessian of the mean loss.
        along_gradient: G^T H G.
        probes: random combinations of gradients that were multiplied by H; with as many as samples, each sample was.
        converged: the error that the probes leave in `trace` is within rel_error, or there is none.
        rel_error: the tolerance, relative to `trace`.
        population: "sampled" or "data", as in `noise_scale`.
        metric: "euclidean", or "weighted": then H is multiplied by the factors from both sides.
        conditions: what it was measured on and what it cost.
    """

    scale: Estimate | None
    reason: str
    trace: Estimate
    along_gradient: Estimate
    probes: int
    converged: bool
    rel_error: float
    population: Population
    metric: Literal["euclidean", "weighted"]
    conditions: Conditions

    def __str__(self) -> str:
        said = f"curvature-weighted noise scale not resolvable: {self.reason}"
        if self.scale is not None:
            interval = self.scale.interval
            spread = "exact" if interval is None else f"95 % {interval[0]:.4g} to {interval[1]:.4g}"
            said = f"curvature-weighted noise scale {self.scale.value:.4g} samples ({spread})"
        ended = "" if self.converged else f" (not converged to {self.rel_error:g})"
        parts = f"tr(H Sigma) {self.trace.value:.4g}{ended}, G.HG {self.along_gradient.value:.4g}, {self.probes} probes"
        return f"{said}; {parts}, {self.metric}; {self.conditions}"


def curvature_noise_scale(  # noqa: PLR0913 - options, by keyword only
    loss: Problem | LossFunction,
    params: Params | Tensor,
    *,
    buffers: Params | None = None,
    population: Population = "sampled",
    metric: Params | None = None,
    rel_error: float = 0.05,
    max_probes: int = 100,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> CurvatureNoiseScale:
    r"""Measure the curvature-weighted noise scale at one point.

    .. math::
        B_{noise} = \frac{\mathrm{tr}(H \Sigma)}{G^T H G}

    With the best learning rate, a step of batch size B gains 1 / (1 + B_noise / B) of what the full gradient gains, to
    second order. tr(H Sigma) is the mean of u^T H u over random combinations u of the centred gradients whose covariance is
    Sigma (signs drawn for every sample), until its error is within rel_error; with no more samples than max_probes each
    sample is a probe and nothing is random. Intervals include both the samples and the probes. H is taken as known, and
    tr(H Sigma)/N is taken from G^T H G, which leaves a relative bias of order 1/N where H varies from sample to sample.

    Costs about five gradients a probe.

    Args:
        loss: a problem, of which the training set is taken, or a loss that knows its samples.
        params: the weights by name; not modified.
        buffers: of the trained network, for a problem.
        population: "sampled": samples are drawn from the population of G and Sigma; "data": they are all of it.
        metric: factors D of the squared entries of a gradient, by name, for example `adam_factors(...)`: then G and Sigma
            are those of the step D g, and the ratio is tr(D H D Sigma) / (G^T D H D G).
        rel_error: error that the probes may leave, relative to tr(H Sigma), > 0.
        max_probes: the most probes to spend, >= 6.
        seed: of the signs.
        only: patterns of names; everything is restricted to the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for graphs, chunks and vectors.
        listen: is told after every probe.

    Returns:
        The noise scale with its parts.

    Raises:
        BadInput: an argument is out of range, or the loss has no single samples.
        FloatingPointError: a product with H is not finite.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, eqs. 2.6 to 2.8.
    """
    check_probing(population, rel_error, max_probes)
    function = loss_of(loss, buffers, None)
    check_apart_in_batch_norm(function)
    with measuring(
        function, params, passes="product", vectors=10, only=only, check=check, memory_limit=memory_limit
    ) as session:
        factors = checked_metric(metric, session.params)
        check_few_apart(session, WHAT)
        jacobian, product = operators(session, None if factors is None else ravel(factors))
        if jacobian.samples < FEWEST:
            raise BadInput(f"there are {jacobian.samples} samples; noise needs at least {FEWEST}")
        if jacobian.samples <= max_probes:
            forms = all_forms(jacobian, product, listen)
        else:
            forms = random_forms(jacobian, product, rel_error=rel_error, most=max_probes, seed=seed, listen=listen)
        weighed = weighed_data(forms) if population == "data" else weighed_sample(forms)
        (trace, along), (scale, reason) = weighed.estimates(), weighed.ratio()
        return CurvatureNoiseScale(
            scale=scale,
            reason=reason,
            trace=trace,
            along_gradient=along,
            probes=len(forms.probes) or jacobian.samples,
            converged=forms.within(rel_error),
            rel_error=rel_error,
            population=population,
            metric="euclidean" if metric is None else "weighted",
            conditions=session.conditions(),
        )


def operators(session: Session, factors: Tensor | None) -> tuple[Jacobian, Product]:
    """Make the Jacobian of the losses and products with H, which share the memory for graphs.

    Args:
        session: loss and weights.
        factors: D, shape (P,), or None.

    Returns:
        J, and the product with H, or with D H D.
    """
    half = session.memory.free // 2
    matrix = hessian(replace(session, memory=replace(session.memory, free=half)))
    jacobian = Jacobian(session, WHAT, half)
    if factors is None:
        return jacobian, matrix
    return jacobian, lambda v: factors * matrix(factors * v)


def check_probing(population: str, rel_error: float, max_probes: int) -> None:
    """Refuse options that cannot be.

    Args:
        population: its name.
        rel_error: tolerance.
        max_probes: the most probes.

    Raises:
        BadInput: one is out of range.
    """
    if population not in get_args(Population):
        raise BadInput(f"population is {population!r}; choose one of {', '.join(get_args(Population))}")
    if not (math.isfinite(rel_error) and rel_error > 0):
        raise BadInput(f"rel_error is {rel_error!r}; give a positive number, for example 0.05")
    if max_probes < LEAST:
        raise BadInput(f"max_probes is {max_probes!r}; give at least {LEAST}, fewer have no spread to be believed")
