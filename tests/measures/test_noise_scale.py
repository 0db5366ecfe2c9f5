# Oracles: gradients of single samples by one plain backward pass each in float64, with numpy's covariance and a jackknife
# that really leaves samples out; closed forms for linear and logistic regression; draws from a known normal distribution.
import json
import math
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from noise_networks import KINDS, Case, HiddenAtTimes, case, single_gradients
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.core.events import Message
from gengap.measures.noise.jackknife import pseudo_values
from gengap.measures.noise.metric import adam_factors
from gengap.measures.noise.noise_scale import noise_scale, recipe_noise


def unbiased(g):
    """tr(Sigma) and |G|^2 from numpy's covariance, rows being samples."""
    trace = np.trace(np.atleast_2d(np.cov(g.T)))
    return trace, (g.mean(0) ** 2).sum() - trace / len(g)


def jackknife_error(g):
    """Standard errors of the two by leaving out each row."""
    left = np.array([unbiased(np.delete(g, i, 0)) for i in range(len(g))])
    return np.sqrt((len(g) - 1) / len(g) * ((left - left.mean(0)) ** 2).sum(0))


def loss_of(c, batch_size=4):
    return c.problem.loss_function("train", batch_size=batch_size, buffers=dict(c.model.named_buffers()))


@pytest.mark.parametrize("name", KINDS)
def test_equals_single_backward_passes_for_every_kind_of_network(name):
    """Eleven samples in chunks of four: the last one is ragged."""
    c, said = case(name), []
    g = single_gradients(c)
    found = noise_scale(loss_of(c), c.params, listen=said.append)
    trace, norm = unbiased(g)
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-9)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-8, abs=1e-9 * trace)
    errors = jackknife_error(g)
    assert found.trace_covariance.stderr == pytest.approx(errors[0], rel=1e-7)
    assert found.squared_gradient_norm.stderr == pytest.approx(errors[1], rel=1e-7)
    trained = [n for n, p in c.model.named_parameters() if p.requires_grad]
    written = [n for n in trained if any(fnmatchcase(n, p) for p in KINDS[name].written)]
    assert found.one_by_one == tuple(written)
    warned = [e for e in said if isinstance(e, Message)]
    assert bool(warned) == (name == "hidden use")


@pytest.mark.parametrize("name", KINDS)
def test_a_metric_weighs_the_squares(name):
    c, rng = case(name), torch.Generator().manual_seed(5)
    trained = [n for n, p in c.model.named_parameters() if p.requires_grad]
    metric = {n: torch.rand(c.params[n].shape, generator=rng, dtype=torch.float64) + 0.2 for n in trained}
    root = np.concatenate([metric[n].sqrt().flatten().numpy() for n in trained])
    trace, norm = unbiased(single_gradients(c) * root)
    found = noise_scale(loss_of(c), c.params, metric=metric)
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-9)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-8, abs=1e-9 * trace)
    assert found.metric == "weighted"
    assert set(found.one_by_one) == set(noise_scale(loss_of(c), c.params).one_by_one)


@pytest.mark.parametrize("name", ["mlp", "embedding", "lstm", "conv2d", "batch norm"])
def test_only_restricts_to_weights_by_pattern(name):
    c = case(name)
    pattern = {"lstm": "*_hh_l0"}.get(name, "*weight")
    names = [n for n in c.params if fnmatchcase(n, pattern)]
    trace, norm = unbiased(single_gradients(c, names))
    found = noise_scale(loss_of(c), c.params, only=pattern)
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-9)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-8, abs=1e-9 * trace)
    assert found.conditions.weights == sum(c.params[n].numel() for n in names)


def test_a_shortcut_that_fails_for_some_samples_only_is_noticed_in_the_sum():
    """The samples that are tried first do not show the second use of the weight."""
    rng, said = torch.Generator().manual_seed(6), []
    x, y = torch.randn(20, 4, generator=rng, dtype=torch.float64), torch.arange(20) % 3
    x[7] *= 100 / x[7, 0]
    problem = gengap.Problem(model=HiddenAtTimes, loss="cross_entropy", train=(x, y), test=(x, y))
    model = problem.model(0, dtype=torch.float64)
    c = Case(problem, model, {k: p.detach() for k, p in model.named_parameters()}, x, y)
    trace, norm = unbiased(single_gradients(c))
    found = noise_scale(problem, c.params, listen=said.append)
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-9)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-8, abs=1e-9 * trace)
    assert found.one_by_one == tuple(c.params)
    assert [e.text for e in said if isinstance(e, Message) and e.warning and "do not add up" in e.text]


def test_linear_regression_has_a_closed_form():
    """The gradient of one squared error is 2 (w.x - y) x."""
    rng = torch.Generator().manual_seed(1)
    x, y = (
        torch.randn(50, 7, generator=rng, dtype=torch.float64),
        torch.randn(50, 1, generator=rng, dtype=torch.float64),
    )
    problem = gengap.Problem(model=lambda: nn.Linear(7, 1, bias=False), loss="mean_square", train=(x, y), test=(x, y))
    w = torch.linspace(-1, 1, 7, dtype=torch.float64)[None]
    trace, norm = unbiased((2 * (x @ w.T - y) * x).numpy())
    found = noise_scale(problem, {"weight": w})
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-12)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-11)
    assert found.simple.value == pytest.approx(trace / norm, rel=1e-11)


def test_logistic_regression_has_a_closed_form():
    """The gradient of one sample is (sigmoid(z) - y) (x, 1)."""
    rng = torch.Generator().manual_seed(2)
    x, y = torch.randn(60, 5, generator=rng, dtype=torch.float64), torch.randint(2, (60,), generator=rng)
    problem = gengap.Problem(model=lambda: nn.Linear(5, 1), loss="binary_cross_entropy", train=(x, y), test=(x, y))
    w, b = torch.linspace(-1, 2, 5, dtype=torch.float64)[None], torch.tensor([0.3], dtype=torch.float64)
    miss = torch.sigmoid(x @ w.T + b) - y[:, None]
    trace, norm = unbiased(torch.cat([miss * x, miss], 1).numpy())
    found = noise_scale(problem, {"weight": w, "bias": b})
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-12)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-10)


def test_where_the_data_are_the_population_nothing_is_corrected():
    c = case("mlp")
    g = single_gradients(c)
    trace, norm = ((g - g.mean(0)) ** 2).sum(1).mean(), (g.mean(0) ** 2).sum()
    found = noise_scale(loss_of(c), c.params, population="data")
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-10)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-10)
    assert found.simple.value == pytest.approx(trace / norm, rel=1e-10)
    assert found.simple.interval is found.trace_covariance.interval is None
    assert "exact" in str(found)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(3, 12),
    width=st.integers(1, 5),
    depth=st.integers(1, 7),
    chunk=st.integers(1, 13),
    seed=st.integers(0, 99),
)
def test_any_shape_and_any_chunk(n, width, depth, chunk, seed):
    """Linear layers over any number of positions, samples in chunks of any size."""
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, depth, 3, generator=rng, dtype=torch.float64), torch.randint(2, (n,), generator=rng)

    def make():
        return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Flatten(), nn.Linear(width * depth, 3))

    problem = gengap.Problem(model=make, loss="cross_entropy", train=(x, y), test=(x, y))
    model = problem.model(seed, dtype=torch.float64)
    c = Case(problem, model, {k: p.detach() for k, p in model.named_parameters()}, x, y)
    trace, norm = unbiased(single_gradients(c))
    found = noise_scale(problem.loss_function("train", batch_size=chunk), c.params)
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-9)
    assert found.squared_gradient_norm.value == pytest.approx(norm, rel=1e-8, abs=1e-9 * trace)


def normal_parts(rng, n, mean, root):
    """The estimates for n normal gradients."""
    g = mean + rng.normal(size=(n, len(mean))) @ root.T
    return pseudo_values((g**2).sum(1), g @ g.sum(0))


def test_parts_are_unbiased_and_intervals_cover_for_normal_gradients():
    rng, n, repeats = np.random.default_rng(3), 40, 2000
    mean, root = np.array([1.5, -1.0, 0.8, 0.0]), np.tril(rng.normal(size=(4, 4)))
    truth = {"trace": np.trace(root @ root.T), "norm": (mean**2).sum()}
    drawn = {"trace": [], "norm": []}
    for _ in range(repeats):
        for key, pseudo in zip(drawn, normal_parts(rng, n, mean, root), strict=True):
            drawn[key].append((pseudo.mean(), pseudo.std(ddof=1) / math.sqrt(n)))
    for key, found in drawn.items():
        values, errors = np.array(found).T
        stderr = values.std(ddof=1) / math.sqrt(repeats)
        assert abs(values.mean() - truth[key]) < 5 * stderr
        assert 50 * stderr < truth[key]  # a bias of 10 % would fail
        assert 5 * stderr < truth["trace"] / n  # and so would |mean g|^2 in the place of |G|^2
        covered = (np.abs(values - truth[key]) < 2.02 * errors).mean()
        assert 0.90 < covered < 0.995


def test_errors_are_not_too_small_where_the_mean_gradient_is_zero():
    """Half the variance of the jackknife is missing in truth there: the error is overstated by up to 1.41."""
    rng, n = np.random.default_rng(4), 60
    found = [normal_parts(rng, n, np.zeros(20), np.eye(20))[1] for _ in range(800)]
    spread = np.std([p.mean() for p in found], ddof=1)
    said = np.sqrt(np.mean([p.var(ddof=1) / n for p in found]))
    assert 1.2 < said / spread < 1.6


def test_a_gradient_that_is_lost_in_noise_is_not_resolvable():
    """The mean of x is zero in truth: a ratio would be a number without meaning."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=rng, dtype=torch.float64)
    problem = gengap.Problem(
        model=lambda: nn.Linear(3, 1, bias=False), loss=lambda o, _: o.mean(), train=(x, x), test=(x, x)
    )
    found = noise_scale(problem, {"weight": torch.ones(1, 3, dtype=torch.float64)})
    assert found.simple is None
    assert found.at_least > 0
    assert "not told from zero" in str(found)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["simple"] is None


def test_weights_buffers_and_random_state_are_left_alone():
    c = case("batch norm")
    before, state = {k: p.clone() for k, p in c.params.items()}, torch.random.get_rng_state()
    noise_scale(c.problem, c.params, buffers=dict(c.model.named_buffers()))
    assert all(torch.equal(p, before[k]) and p.grad is None for k, p in c.params.items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_float32_agrees_with_float64():
    c = case("mlp", n=200)
    single = {k: p.float() for k, p in c.params.items()}
    found, exact = noise_scale(loss_of(c, 64), single), noise_scale(loss_of(c, 64), c.params)
    assert found.conditions.dtype == "float32"
    assert found.trace_covariance.value == pytest.approx(exact.trace_covariance.value, rel=1e-5)
    assert found.squared_gradient_norm.value == pytest.approx(exact.squared_gradient_norm.value, rel=1e-4)


def test_little_memory_gives_the_same_number():
    """Nothing is kept from the first pass, and pieces are small."""
    c = case("conv2d", n=40)
    few = noise_scale(loss_of(c, 40), c.params, memory_limit="50 KiB")
    many = noise_scale(loss_of(c, 40), c.params)
    assert few.conditions.chunk_size < 40
    assert few.squared_gradient_norm.value == pytest.approx(many.squared_gradient_norm.value, rel=1e-9)


def test_samples_of_a_problem_can_be_chosen():
    c = case("mlp", n=30)
    chosen = torch.arange(0, 30, 3)
    trace, _ = unbiased(single_gradients(c)[chosen.numpy()])
    found = noise_scale(c.problem, c.params, samples=chosen)
    assert found.trace_covariance.value == pytest.approx(trace, rel=1e-10)
    assert found.conditions.samples == 10


class Centred(nn.Module):
    """Takes the mean over the batch away."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        h = self.out(x)
        return h - h.mean(0)


def class_weighted(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, weight=torch.tensor([5.0, 1.0, 0.2]).to(outputs))


@pytest.mark.parametrize("mixed", ["network", "loss"])
def test_what_mixes_samples_is_refused(mixed):
    c = case("mlp")
    model, loss = (Centred, "cross_entropy") if mixed == "network" else (c.problem.model, class_weighted)
    data = (c.inputs, torch.arange(11) % 3)
    problem = gengap.Problem(model=model, loss=loss, train=data, test=data)
    params = dict(problem.model(0, dtype=torch.float64).named_parameters())
    with pytest.raises(BadInput, match=r"3 samples together .* mixes samples"):
        noise_scale(problem, params)


def test_bad_input_is_refused_in_a_sentence():
    c, normed = case("mlp"), case("batch norm")
    with pytest.raises(BadInput, match="plain function hides"):
        noise_scale(lambda p: sum(x.square().sum() for x in p.values()), c.params)
    with pytest.raises(BadInput, match=r"give buffers=run\.buffers"):
        noise_scale(normed.problem, normed.params)
    with pytest.raises(BadInput, match="'batch' statistics"):
        noise_scale(normed.problem.loss_function(batch_norm="batch"), normed.params)
    with pytest.raises(BadInput, match="population is 'all'"):
        noise_scale(c.problem, c.params, population="all")
    with pytest.raises(BadInput, match="noise needs at least 3"):
        noise_scale(c.problem, c.params, samples=torch.arange(2))
    with pytest.raises(BadInput, match="go with a problem"):
        noise_scale(loss_of(c), c.params, samples=torch.arange(5))
    with pytest.raises(BadInput, match="metric lacks"):
        noise_scale(c.problem, c.params, metric={"0.weight": torch.ones(6, 4)})
    negative = {k: -torch.ones_like(p) for k, p in c.params.items()}
    with pytest.raises(BadInput, match="not a positive number"):
        noise_scale(c.problem, c.params, metric=negative)


def test_adam_factors_are_those_of_its_step():
    """After one step without momentum, Adam has moved each weight by lr times its gradient times the factor."""
    c = case("mlp")
    model = c.problem.model(1, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.0, 0.9), eps=1e-3)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(c.inputs), c.targets).backward()
        before = {k: p.detach().clone() for k, p in model.named_parameters()}
        optimizer.step()
    factors = adam_factors(model, optimizer)
    for name, p in model.named_parameters():
        torch.testing.assert_close(before[name] - p.detach(), 0.01 * factors[name] * p.grad)
    assert noise_scale(c.problem, dict(model.named_parameters()), metric=factors).metric == "weighted"


def test_a_recipe_turns_noise_into_steps():
    c = case("mlp", n=40)
    found = noise_scale(c.problem, c.params)
    recipe = gengap.Recipe(optimizer="sgd", lr=0.1, momentum=0.5, batch_size=8, budget={"epochs": 1})
    said = recipe_noise(recipe, found, 40)
    trace, norm = unbiased(single_gradients(c))
    assert said.sde.value == pytest.approx(0.1 / 0.5 * (40 / 8 - 1))
    assert said.step_by_noise == pytest.approx(0.1 * math.sqrt(trace / 8 * (1 - 8 / 40)), rel=1e-9)
    assert said.step_by_gradient == pytest.approx(0.1 * math.sqrt(max(norm, 0)), rel=1e-8)
    weighted = noise_scale(c.problem, c.params, metric={k: torch.ones_like(p) for k, p in c.params.items()})
    with pytest.raises(BadInput, match="without metric"):
        recipe_noise(recipe, weighted, 40)
