"""The gradient noise scale at one point from batches of two sizes, which needs no gradients of single samples."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, Progress, silent
from gengap.core.seeds import stream
from gengap.measures.noise.arithmetic import check_sizes, squared_gradient_norm, trace_covariance
from gengap.measures.noise.metric import checked_metric
from gengap.measures.noise.noise_scale import NoiseScale, resolved
from gengap.measures.noise.per_sample import Metric
from gengap.measures.protocols import LossFunction, Params, SamplePiece, sample_pieces
from gengap.measures.sample_rows import cut, taken
from gengap.measures.session import DEFAULT_LIMIT, Names, Session, measuring
from gengap.measures.trees import dot
from gengap.theory.intervals import ratio_interval

WHAT = "the noise scale from two batch sizes"
LEAST_DRAWS = 8


def two_batch_noise_scale(  # noqa: PLR0913 - options, by keyword only
    loss: LossFunction,
    params: Params | Tensor,
    *,
    b_small: int,
    b_big: int,
    draws: int | None = None,
    metric: Params | None = None,
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> NoiseScale:
    r"""Estimate the gradient noise scale at one point from batches of two sizes.

    Every draw takes a small and a big batch, and no sample is in two batches of any draw, so that draws are independent.
    From the squared norms of the two mean gradients come unbiased estimates of :math:`|G|^2` and
    :math:`\mathrm{tr}(\Sigma)`, whose means over draws are divided. Intervals are over draws.

    Works with any loss over samples. With batch statistics each batch is normalised by its own, so that G is the gradient of
    that loss; a small batch then has another G than a big one, which the estimates take for noise: choose b_small as large
    as the batches (or ghost batches) of training. Costs draws (b_small + b_big) per-sample gradients: less than
    `noise_scale` where few draws do, with wider intervals.

    Args:
        loss: that knows its samples, for example `problem.loss_function("train", batch_norm="batch")`.
        params: the weights by name; not modified.
        b_small: samples of a small batch, >= 1.
        b_big: samples of a big batch, more than b_small.
        draws: how many, >= 8; by default as many as the samples give.
        metric: factors of the squared entries of a gradient, by name; by default 1.
        seed: of the batches.
        only: patterns of names; gradients are by the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes.
        listen: is told after every draw.

    Returns:
        The noise scale with its parts; their n counts draws.

    Raises:
        BadInput: sizes or draws are out of range or need more samples than there are, a batch of one sample would have to be
            normalised by itself, or the loss is a plain function.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """
    check_sizes(b_small, b_big)
    with measuring(
        loss, params, passes="gradient", vectors=3, only=only, check=check, memory_limit=memory_limit
    ) as session:
        factors = checked_metric(metric, session.params)
        if b_small == 1 and session.loss.describe().get("batch_norm") == "batch":
            raise BadInput(
                "b_small is 1, and batch norm cannot normalise one sample by its own statistics; give 2 or more"
            )
        found = []
        for batches in drawn(session, (b_small, b_big), draws, seed):
            small, big = (squared_norm(session, batch, factors) for batch in batches)
            sizes = (small, big, b_small, b_big)
            found.append((trace_covariance(*sizes), squared_gradient_norm(*sizes)))
            listen(Progress("gradient noise", len(found), draws, "draws"))
        traces, norms = (list(column) for column in zip(*found, strict=True))
        used = replace(session.conditions(), samples=len(found) * (b_small + b_big))
        return NoiseScale(
            **resolved(ratio_interval(traces, norms, nonnegative=True)),
            trace_covariance=over_draws(traces),
            squared_gradient_norm=over_draws(norms),
            population="sampled",
            method=f"two batches of {b_small:,} and {b_big:,}, {len(found):,} draws",
            metric="euclidean" if metric is None else "weighted",
            one_by_one=(),
            conditions=used,
        )


def drawn(
    session: Session, sizes: tuple[int, int], draws: int | None, seed: int
) -> Iterator[tuple[SamplePiece, SamplePiece]]:
    """Deal the samples out in random order.

    Args:
        session: loss and weights.
        sizes: of a small and a big batch.
        draws: how many pairs, or None for as many as there are samples for.
        seed: of the order.

    Yields:
        Pairs of batches; no sample twice.

    Raises:
        BadInput: there are too few samples, or too few draws are wanted.
    """
    pieces = list(sample_pieces(session.loss, session.params, WHAT))
    total, each = sum(p.size for p in pieces), sum(sizes)
    most = total // each
    count = most if draws is None else draws
    if not LEAST_DRAWS <= count <= most:
        asked = "" if draws is None else f", and {draws} were asked for"
        raise BadInput(
            f"{WHAT} needs at least {LEAST_DRAWS} draws of {sizes[0]} + {sizes[1]} samples each{asked}; {total:,} samples "
            f"give at most {most}: choose smaller batches{'' if draws is None else ', other draws'} or more samples"
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(stream(seed, "noise batches")))
    for deal in order[: count * each].split(each):
        yield taken(pieces, deal[: sizes[0]]), taken(pieces, deal[sizes[0] :])


def squared_norm(session: Session, batch: SamplePiece, metric: Metric) -> float:
    """Return the squared norm of the mean gradient of a batch, in pieces that fit memory unless statistics forbid it."""
    coupled = session.loss.describe().get("batch_norm") == "batch"
    own = {name: p.detach().requires_grad_() for name, p in session.params.items()}
    total = {name: torch.zeros_like(p) for name, p in session.params.items()}
    chunk = getattr(session.loss, "chunk_size", batch.size)
    for part in cut(batch, batch.size if coupled else chunk):
        with torch.enable_grad():
            mean_loss = part(own)
        found = torch.autograd.grad(mean_loss, list(own.values()), allow_unused=True, materialize_grads=True)
        for slot, g in zip(total.values(), found, strict=True):
            slot.add_(g, alpha=part.size / batch.size)
    return sum(dot(g, g if metric is None else g * metric[name]) for name, g in total.items())


def over_draws(values: list[float]) -> Estimate:
    """Average over independent draws."""
    return replace(mean(np.asarray(values).tolist()), method="mean over disjoint draws, Student t, 95 %")
