# Oracles: dense Hessians by torch.autograd.functional and single backward passes in float64, multiplied by numpy;
# gradients drawn many times from a normal distribution, with a fixed H.
import json
import math

import numpy as np
import pytest
import torch
from noise_networks import case, single_gradients
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

import gengap
from gengap.core.errors import BadInput
from gengap.measures.noise.curvature_scale import curvature_noise_scale
from gengap.measures.noise.noise_scale import noise_scale
from gengap.measures.noise.probes import Forms, random_forms, weighed_data, weighed_sample


def dense(c):
    """The Hessian of the mean loss, (P, P), and the gradients, (N, P)."""
    shapes = [p.shape for p in c.params.values()]
    flat = torch.cat([p.flatten() for p in c.params.values()])

    def loss(v):
        parts = [x.view(s) for x, s in zip(v.split([s.numel() for s in shapes]), shapes, strict=True)]
        return nn.functional.cross_entropy(
            functional_call(c.model, dict(zip(c.params, parts, strict=True)), (c.inputs,)), c.targets
        )

    return hessian(loss, flat).numpy(), single_gradients(c)


def exact(h, g, factors=None):
    """tr(H Sigma) and G.HG, the second without bias for H as it is; with D for D H D."""
    h = h if factors is None else factors[:, None] * h * factors
    trace = np.trace(h @ np.cov(g.T))
    return trace, g.mean(0) @ h @ g.mean(0) - trace / len(g)


def test_every_sample_is_a_probe_where_they_are_few():
    c = case("mlp", n=20)
    trace, along = exact(*dense(c))
    found = curvature_noise_scale(c.problem.loss_function("train", batch_size=6), c.params)
    assert found.probes == 20
    assert found.trace.value == pytest.approx(trace, rel=1e-9)
    assert found.along_gradient.value == pytest.approx(along, rel=1e-8)
    assert found.converged
    json.dumps(found.to_dict(), allow_nan=False)


def test_where_the_data_are_the_population_the_ratio_is_exact():
    c = case("layer norm", n=20)
    h, g = dense(c)
    trace, along = np.trace(h @ np.cov(g.T, bias=True)), g.mean(0) @ h @ g.mean(0)
    found = curvature_noise_scale(c.problem, c.params, population="data")
    assert found.trace.value == pytest.approx(trace, rel=1e-9)
    assert found.along_gradient.value == pytest.approx(along, rel=1e-8)
    assert (found.scale is None) == (along <= 0)
    if found.scale:
        assert found.scale.value == pytest.approx(trace / along, rel=1e-8)
        assert found.scale.interval is None


def test_factors_stand_on_both_sides_of_the_hessian():
    c, rng = case("mlp", n=15), torch.Generator().manual_seed(2)
    metric = {k: torch.rand(p.shape, generator=rng, dtype=torch.float64) + 0.3 for k, p in c.params.items()}
    trace, along = exact(*dense(c), np.concatenate([m.flatten().numpy() for m in metric.values()]))
    found = curvature_noise_scale(c.problem, c.params, metric=metric)
    assert found.trace.value == pytest.approx(trace, rel=1e-9)
    assert found.along_gradient.value == pytest.approx(along, rel=1e-8)


def test_random_probes_are_unbiased_and_stop_at_the_tolerance():
    c = case("mlp", n=40)
    trace, _ = exact(*dense(c))
    loss = c.problem.loss_function("train", batch_size=25)
    few = [curvature_noise_scale(loss, c.params, rel_error=1e-9, max_probes=8, seed=s, check=False) for s in range(12)]
    values = np.array([f.trace.value for f in few])
    stderr = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - trace) < 5 * stderr
    assert not any(f.converged for f in few)
    loose = curvature_noise_scale(loss, c.params, rel_error=0.3, max_probes=50)
    assert loose.converged
    assert loose.probes < 50


class Matrix:
    """J as an array: the gradients of N samples."""

    def __init__(self, rows):
        self.rows, self.samples = torch.from_numpy(rows), len(rows)

    def times(self, v):
        return self.rows @ v

    def transposed(self, weights):
        return self.rows.T @ weights


def draw(seed, n=150, most=10):
    """Estimates for normal gradients of known mean and covariance, and a fixed H."""
    rng = np.random.default_rng(seed)
    g = MEAN + rng.normal(size=(n, len(MEAN))) @ ROOT.T
    product = torch.from_numpy(H).mv
    return random_forms(Matrix(g), product, rel_error=1e-9, most=most, seed=seed, listen=lambda _: None)


MEAN = np.array([0.8, -0.5, 0.4, 0.6, 0.1])
ROOT = np.tril(np.random.default_rng(0).normal(size=(5, 5)))
H = np.diag([4.0, 2.0, 1.0, 0.5, 0.1])


@pytest.fixture(scope="module")
def many():
    return [weighed_sample(draw(s)) for s in range(600)]


@pytest.mark.parametrize("which", [0, 1], ids=["trace", "along"])
def test_population_estimates_are_unbiased_with_errors_that_hold_samples_and_probes(many, which):
    truth = (np.trace(H @ ROOT @ ROOT.T), MEAN @ H @ MEAN)[which]
    values = np.array([(w.trace, w.along)[which] for w in many])
    stderr = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - truth) < 5 * stderr
    assert 50 * stderr < truth  # a bias of 10 % would fail
    said = np.sqrt(np.mean([w.covariance[which, which] for w in many]))
    assert said == pytest.approx(values.std(ddof=1), rel=0.2)


def test_intervals_of_the_ratio_cover_the_truth(many):
    truth = np.trace(H @ ROOT @ ROOT.T) / (MEAN @ H @ MEAN)
    intervals = [e.interval if (e := w.ratio()[0]) else (0.0, math.inf) for w in many]
    assert 0.92 < np.mean([low <= truth <= high for low, high in intervals]) < 0.995


def test_probes_alone_leave_the_error_that_is_said_where_the_data_are_all():
    rng = np.random.default_rng(9)
    g, product = rng.normal(size=(30, 5)) @ ROOT.T, torch.from_numpy(H).mv
    found = [
        weighed_data(random_forms(Matrix(g), product, rel_error=1e-9, most=10, seed=s, listen=lambda _: None))
        for s in range(300)
    ]
    values = np.array([w.trace for w in found])
    truth, stderr = np.trace(H @ np.cov(g.T, bias=True)), values.std(ddof=1) / math.sqrt(300)
    assert abs(values.mean() - truth) < 5 * stderr
    assert 50 * stderr < truth
    assert np.sqrt(np.mean([w.covariance[0, 0] for w in found])) == pytest.approx(values.std(ddof=1), rel=0.1)


def test_no_ratio_without_curvature_along_the_gradient():
    flat = Forms(along=np.linspace(-1, 1, 40), own=np.ones(40))
    assert weighed_sample(flat).ratio()[0] is None
    assert "not told from zero" in weighed_sample(flat).ratio()[1]
    downwards = Forms(along=np.linspace(-2, -1, 40), own=np.ones(40))
    assert "does not curve upwards" in weighed_sample(downwards).ratio()[1]


def test_bad_options_are_refused():
    c = case("mlp")
    for options, text in [
        ({"population": "all"}, "population is 'all'"),
        ({"rel_error": 0}, "rel_error is 0"),
        ({"max_probes": 3}, "max_probes is 3"),
    ]:
        with pytest.raises(BadInput, match=text):
            curvature_noise_scale(c.problem, c.params, **options)
    with pytest.raises(BadInput, match="plain function hides"):
        curvature_noise_scale(lambda p: sum(x.sum() for x in p.values()), c.params)


def test_in_a_quadratic_bowl_it_is_the_ratio_of_moments():
    """Loss |w - c|^2 / 2 over centres c: H = 1, so that both noise scales are one."""
    centres = torch.randn(80, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.w - x

    def half_square(outputs, _):
        return 0.5 * outputs.square().sum(1).mean()

    problem = gengap.Problem(model=Point, loss=half_square, train=(centres, centres), test=(centres, centres))
    params = {"w": torch.full((3,), 2.0, dtype=torch.float64)}
    simple, weighted = noise_scale(problem, params), curvature_noise_scale(problem, params)
    assert weighted.scale.value == pytest.approx(simple.simple.value, rel=1e-9)
    assert weighted.scale.stderr == pytest.approx(simple.simple.stderr, rel=0.1)
