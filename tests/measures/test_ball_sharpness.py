# Oracles: the secular equation of the trust-region problem, solved through the eigendecomposition of a quadratic; the
# slope times the radius for a linear loss; and the rescaling of a ReLU network, which does not change its function.
import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from gengap.core.errors import BadInput
from gengap.measures.sharpness.ball_sharpness import ball_sharpness
from gengap.measures.sharpness.perturbations import units


def highest(matrix, slope, radius):
    """Maximise z'Hz/2 + g'z over |z| <= r: (mu - H) z = g with |z| = r and mu >= max(lambda, 0), or inside with mu = 0."""
    values, vectors = np.linalg.eigh(matrix)
    c = vectors.T @ slope
    if values[-1] < 0 and np.linalg.norm(c / -values) <= radius:
        mu = 0.0
    else:
        low = max(values[-1], 0.0)
        top = low + np.linalg.norm(slope) / radius + 1
        mu = brentq(lambda m: np.linalg.norm(c / (m - values)) - radius, low + 1e-13, top, xtol=1e-15, rtol=1e-14)
    z = c / (mu - values)
    return float((0.5 * values * z**2).sum() + c @ z)


def quadratic(seed, sign, pull):
    """A loss around 3 with curvature of one sign or both, and a slope at zero."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((12, 12))
    matrix = {"convex": root @ root.T, "concave": -root @ root.T / 12 - np.eye(12), "saddle": (root + root.T) / 2}[sign]
    slope = pull * rng.standard_normal(12)
    h, g = torch.tensor(matrix), torch.tensor(slope)
    return matrix, slope, lambda w: 3 + 0.5 * w @ h @ w + g @ w


@pytest.mark.parametrize("radius", [0.05, 1.0])
@pytest.mark.parametrize("pull", [0.1, 2.0])
@pytest.mark.parametrize("sign", ["convex", "concave", "saddle"])
def test_solves_the_trust_region_problem(sign, pull, radius):
    for seed in range(2):
        matrix, slope, loss = quadratic(seed, sign, pull)
        found = ball_sharpness(loss, torch.zeros(12, dtype=torch.float64), radius=radius, steps=100, restarts=2)
        exact = highest(matrix, slope, radius)
        assert found.rise <= exact * (1 + 1e-12)
        assert found.rise >= exact * (1 - 1e-4)
        one = radius * slope / np.linalg.norm(slope)
        assert found.one_step == pytest.approx(0.5 * one @ matrix @ one + slope @ one, rel=1e-10)
        assert found.starts[0].name == "gradient"
        assert found.rise >= found.one_step


@pytest.mark.parametrize("restarts", [0, 3])
def test_at_a_critical_point_it_finds_the_steepest_direction(restarts):
    matrix, _, loss = quadratic(4, "saddle", 0.0)
    found = ball_sharpness(loss, torch.zeros(12, dtype=torch.float64), radius=0.3, steps=80, restarts=restarts)
    assert found.rise == pytest.approx(0.5 * 0.3**2 * np.linalg.eigvalsh(matrix)[-1], rel=1e-4)
    assert found.one_step is None
    assert [s.name for s in found.starts] == ["random"] * max(1, restarts)


def test_a_maximum_inside_is_not_left_for_the_sphere():
    found = ball_sharpness(
        lambda w: 1 - (w - 0.1).square().sum(), torch.zeros(4, dtype=torch.float64), radius=3.0, steps=60
    )
    assert found.rise == pytest.approx(0.04, rel=1e-6)
    assert max(found.starts, key=lambda s: s.rise).length == pytest.approx(0.2 / 3, rel=1e-2)


def test_a_maximum_at_the_point_rises_by_nothing():
    found = ball_sharpness(lambda w: 1 - w.square().sum(), torch.zeros(4, dtype=torch.float64))
    assert (found.rise, found.peak, found.agreement) == (0, 1, None)
    assert all(s.rise <= 0 for s in found.starts)


def test_a_linear_loss_rises_by_the_slope_times_the_radius():
    w = torch.tensor([3.0, -4.0, 0.0], dtype=torch.float64)
    slope = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    assert ball_sharpness(lambda p: p @ slope, w, radius=0.1).rise == pytest.approx(0.3, rel=1e-12)
    element = (w.abs() * slope).norm().item()  # the last weight is zero and does not move
    assert ball_sharpness(lambda p: p @ slope, w, radius=0.1, adaptive=True).rise == pytest.approx(
        0.1 * element, rel=1e-12
    )


def test_the_units_of_filters_are_their_norms_and_of_vectors_their_entries():
    tree = {"w": torch.arange(12.0).view(2, 3, 2), "b": torch.tensor([-2.0, 3.0]), "s": torch.tensor(-5.0)}
    found = {name: u.expand_as(tree[name]) for name, u in units(tree, "filter").items()}
    assert found["w"][0].unique().item() == pytest.approx(math.sqrt(sum(i * i for i in range(6))), rel=1e-6)
    assert found["w"][1].unique().item() == pytest.approx(math.sqrt(sum(i * i for i in range(6, 12))), rel=1e-6)
    assert found["b"].tolist() == [2, 3]
    assert found["s"].item() == 5
    assert all(u.eq(1).all() for u in units(tree, "absolute").values())


def relu_network(factor):
    """Two layers, the first times a factor and the second divided by it: the same function for every factor."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, dtype=torch.float64, generator=rng), torch.randint(0, 3, (30,), generator=rng)
    first, second = (
        torch.randn(5, 4, dtype=torch.float64, generator=rng),
        torch.randn(3, 5, dtype=torch.float64, generator=rng),
    )
    bias = torch.randn(5, dtype=torch.float64, generator=rng)
    params = {"first": first * factor, "bias": bias * factor, "second": second / factor}

    def loss(p):
        hidden = torch.relu(x @ p["first"].T + p["bias"])
        return torch.nn.functional.cross_entropy(hidden @ p["second"].T, y)

    return loss, params


@pytest.mark.parametrize("form", ["element", "filter"])
def test_the_adaptive_forms_do_not_see_a_rescaling_of_relu_layers(form):
    plain, scaled = (ball_sharpness(*relu_network(f), radius=0.1, adaptive=form, steps=5, seed=1) for f in (1.0, 4.0))
    assert scaled.rise == pytest.approx(plain.rise, rel=1e-9)
    assert scaled.one_step == pytest.approx(plain.one_step, rel=1e-9)
    assert plain.form == form


def test_the_absolute_form_does_see_it():
    plain, scaled = (ball_sharpness(*relu_network(f), radius=0.1).rise for f in (1.0, 4.0))
    assert not 0.5 < scaled / plain < 2


def test_the_adaptive_form_of_a_quadratic_is_the_ball_of_the_rescaled_one():
    matrix, slope, loss = quadratic(3, "convex", 1.0)
    w = np.linspace(0.5, 2, 12)
    found = ball_sharpness(lambda p: loss(p - torch.tensor(w)), torch.tensor(w), radius=0.2, adaptive=True, steps=100)
    exact = highest(np.outer(w, w) * matrix, w * slope, 0.2)
    assert found.rise == pytest.approx(exact, rel=1e-4)


def test_a_loss_that_is_infinite_beyond_a_wall_gives_the_highest_finite_value():
    def loss(p):
        return torch.where(p.sum() > 0.05, torch.inf, 1 + p.sum())

    found = ball_sharpness(loss, torch.zeros(2, dtype=torch.float64), radius=0.1, restarts=4)
    assert found.nonfinite > 0
    assert 0 <= found.rise <= 0.05
    assert found.starts[0].evaluations == 1
    assert math.isnan(found.starts[0].rise)
    json.dumps(found.to_dict(), allow_nan=False)


def test_counts_and_says_what_it_did():
    _, _, loss = quadratic(0, "convex", 1.0)
    heard = []
    found = ball_sharpness(loss, torch.zeros(12, dtype=torch.float64), steps=7, restarts=2, listen=heard.append)
    assert found.evaluations == len(heard) == 1 + sum(s.evaluations for s in found.starts)
    assert all(s.evaluations <= 8 for s in found.starts)
    assert found.percent == pytest.approx(100 * found.rise / (1 + found.base), rel=1e-12)
    assert f"{found.rise:.4g}" in str(found)
    assert found.to_dict()["bound"] == "lower"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"radius": 0.0}, "radius is 0.0; give a positive number"),
        ({"steps": 0}, "steps is 0; give a whole number of at least 1"),
        ({"restarts": -1}, "restarts is -1; give a whole number of at least 0"),
        ({"adaptive": "layer"}, "adaptive is 'layer'; choose False, True, 'element' or 'filter'"),
        ({"loss": lambda p: p.sum() / 0}, "the loss is inf at params"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    arguments = {"loss": torch.sum, **change}
    with pytest.raises(BadInput, match=sentence):
        ball_sharpness(arguments.pop("loss"), torch.ones(2, dtype=torch.float64), **arguments)
