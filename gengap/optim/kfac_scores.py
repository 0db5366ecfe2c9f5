"""Gradients at a network's outputs whose outer products make the Fisher matrix of what it predicts."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gengap.core.errors import BadInput

Likelihood = Literal["softmax", "bernoulli", "gaussian"]
LIKELIHOODS = ("softmax", "bernoulli", "gaussian")


def sampled_scores(likelihood: Likelihood, outputs: Tensor, source: torch.Generator) -> Tensor:
    """Draw labels from what the network predicts, and give the gradient of their negative log-likelihood.

    Args:
        likelihood: "softmax" (logits, classes last), "bernoulli" (one logit for every output) or "gaussian" (outputs are
            means of unit variance: the loss is half the squared error).
        outputs: of the network, shape (..., C).
        source: of the draws, on the device of the outputs.

    Returns:
        Gradients of every sample's loss with respect to its outputs, of the shape of `outputs`.

    Raises:
        BadInput: the likelihood is unknown.
    """
    if likelihood == "softmax":
        p = outputs.softmax(-1)
        rows = p.reshape(-1, p.shape[-1])
        # A network that has diverged predicts nothing that could be drawn from.
        drawn = torch.multinomial(rows.nan_to_num(1.0).clamp_min(1e-30), 1, generator=source).view(p.shape[:-1])
        return p - F.one_hot(drawn, p.shape[-1]).to(p.dtype)
    if likelihood == "bernoulli":
        p = outputs.sigmoid()
        return p - (torch.rand(p.shape, generator=source, device=p.device, dtype=p.dtype) < p).to(p.dtype)
    if likelihood == "gaussian":
        return torch.randn(outputs.shape, generator=source, device=outputs.device, dtype=outputs.dtype)
    raise BadInput(f"likelihood is {likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")


def exact_scores(likelihood: Likelihood, outputs: Tensor) -> list[Tensor]:
    """Give gradients whose outer products add up to the Fisher matrix of each sample's outputs.

    Args:
        likelihood: as in `sampled_scores`.
        outputs: of the network, shape (..., C).

    Returns:
        C tensors of the shape of `outputs`: for softmax the gradients for all labels times the root of their probability.

    Raises:
        BadInput: the likelihood is unknown.
    """
    one_hot = torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
    if likelihood == "softmax":
        p = outputs.softmax(-1)
        return [p[..., c, None].sqrt() * (p - one_hot[c]) for c in range(p.shape[-1])]
    if likelihood == "bernoulli":
        p = outputs.sigmoid()
        return list((p * (1 - p)).sqrt() * one_hot[:, *[None] * (outputs.dim() - 1)])
    if likelihood == "gaussian":
        return [row.expand_as(outputs).contiguous() for row in one_hot]
    raise BadInput(f"likelihood is {likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")


def scores(likelihood: Likelihood, outputs: Tensor, samples: int | None, source: torch.Generator) -> list[Tensor]:
    """Give the gradients that the factors of one pass are made of.

    Args:
        likelihood: as in `sampled_scores`.
        outputs: of the network, shape (..., C).
        samples: labels drawn for every sample; None for the exact matrix.
        source: of the draws.

    Returns:
        Tensors whose outer products add up to the Fisher matrix, or to an unbiased estimate of it.
    """
    if samples is None:
        return exact_scores(likelihood, outputs)
    share = 1 / math.sqrt(samples)
    return [share * sampled_scores(likelihood, outputs, source) for _ in range(samples)]
