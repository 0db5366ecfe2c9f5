# Oracles: gradients of the same batches by one backward pass each; a population whose moments are known.
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from noise_networks import case
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.measures.noise.batches import drawn, two_batch_noise_scale
from gengap.measures.session import measuring


def test_chunks_do_not_matter():
    c = case("batch norm", n=100)
    buffers = dict(c.model.named_buffers())
    first, second = (
        two_batch_noise_scale(
            c.problem.loss_function("train", buffers=buffers, batch_size=size),
            c.params,
            b_small=3,
            b_big=9,
            metric=None,
        )
        for size in (2, 100)
    )
    assert first.trace_covariance.value == pytest.approx(second.trace_covariance.value, rel=1e-9)


def test_a_metric_of_ones_times_four_is_four_times_as_much():
    c = case("mlp", n=100)
    metric = {k: torch.full_like(p, 4.0) for k, p in c.params.items()}
    plain, scaled = (
        two_batch_noise_scale(c.problem.loss_function(), c.params, b_small=2, b_big=8, metric=m) for m in (None, metric)
    )
    assert scaled.trace_covariance.value == pytest.approx(4 * plain.trace_covariance.value, rel=1e-12)
    assert scaled.metric == "weighted"


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_equals_gradients_of_the_same_batches_by_hand(mode):
    """With batch statistics, by a network in training mode."""
    c = case("batch norm", n=130)
    model = c.problem.model(1, dtype=torch.float64).train(mode == "batch")
    params = {k: p.detach() for k, p in model.named_parameters()}
    loss = c.problem.loss_function("train", batch_norm=mode, batch_size=10, buffers=dict(model.named_buffers()))
    found = two_batch_noise_scale(loss, params, b_small=4, b_big=12, seed=1)
    traces, norms, seen = [], [], []
    with measuring(loss, params, passes="gradient") as session:
        for small, big in drawn(session, (4, 12), None, 1):
            squares = []
            for batch in (small, big):
                value = F.cross_entropy(model(batch.inputs), batch.targets)
                squares.append(
                    sum(float(g.square().sum()) for g in torch.autograd.grad(value, list(model.parameters())))
                )
                seen.append(batch.inputs.flatten(1))
            traces.append((squares[0] - squares[1]) / (1 / 4 - 1 / 12))
            norms.append((12 * squares[1] - 4 * squares[0]) / 8)
    assert found.trace_covariance.value == pytest.approx(np.mean(traces), rel=1e-9)
    assert found.squared_gradient_norm.value == pytest.approx(np.mean(norms), rel=1e-9)
    assert found.trace_covariance.stderr == pytest.approx(np.std(traces, ddof=1) / math.sqrt(8), rel=1e-9)
    assert found.conditions.batch_norm == mode
    assert found.trace_covariance.n == 8
    assert found.conditions.samples == 128
    assert len(torch.unique(torch.cat(seen), dim=0)) == 128  # no sample twice


def test_intervals_over_draws_cover_the_population():
    """Linear regression on normal inputs: tr(Sigma) and |G|^2 of the population are moments of a normal distribution."""
    w, noise = torch.tensor([[0.6, -0.4]], dtype=torch.float64), 0.5
    # gradient 2 (w.x - e) x with x ~ N(0, 1)^2, e ~ N(0, noise^2): G = 2 w, E|g|^2 = 4 (E (w.x)^2 |x|^2 + noise^2 E|x|^2)
    norm = 4 * float(w.square().sum())
    trace = 4 * (float(w.square().sum()) * 4 + noise**2 * 2) - norm
    covered = []
    for seed in range(60):
        rng = torch.Generator().manual_seed(seed)
        x = torch.randn(300, 2, generator=rng, dtype=torch.float64)
        y = noise * torch.randn(300, 1, generator=rng, dtype=torch.float64)
        problem = gengap.Problem(
            model=lambda: nn.Linear(2, 1, bias=False), loss="mean_square", train=(x, y), test=(x, y)
        )
        found = two_batch_noise_scale(
            problem.loss_function(), {"weight": w}, b_small=5, b_big=25, seed=seed, check=False
        )
        low, high = found.simple.interval if found.simple else (found.at_least, math.inf)
        covered.append(low <= trace / norm <= high)
    assert 0.85 < np.mean(covered) <= 1


def test_bad_sizes_are_refused():
    c = case("mlp", n=50)
    loss = c.problem.loss_function()
    with pytest.raises(BadInput, match="batch sizes are 8 and 4"):
        two_batch_noise_scale(loss, c.params, b_small=8, b_big=4)
    with pytest.raises(
        BadInput, match=r"needs at least 8 draws of 5 \+ 20 samples each; 50 samples give at most 2: choose smaller"
    ):
        two_batch_noise_scale(loss, c.params, b_small=5, b_big=20)
    with pytest.raises(
        BadInput, match=r"8 draws of 1 \+ 4 samples each, and 20 were asked for; 50 samples give at most 10"
    ):
        two_batch_noise_scale(loss, c.params, b_small=1, b_big=4, draws=20)
    with pytest.raises(BadInput, match="plain function hides"):
        two_batch_noise_scale(lambda p: sum(x.square().sum() for x in p.values()), c.params, b_small=1, b_big=4)
