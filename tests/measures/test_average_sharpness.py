# Oracles: sigma^2 tr(T H T) / 2 on quadratics, its variance by Isserlis' theorem, E cos of a normal number, and the
# rescaling of a ReLU network. Sampled numbers are held to 5 of their standard errors, small enough to see a bias of 10 %.
import json
import math

import numpy as np
import pytest
import torch

from gengap.core.errors import BadInput
from gengap.measures.sharpness.average_sharpness import average_sharpness

RNG = torch.Generator().manual_seed(0)
ROOT = torch.randn(40, 40, dtype=torch.float64, generator=RNG)
MATRIX = ROOT @ ROOT.T / 40
W = torch.randn(40, dtype=torch.float64, generator=RNG)
SLOPE = 5 * torch.randn(40, dtype=torch.float64, generator=RNG)
TREE = {"a": W[:30].view(5, 3, 2), "b": W[30:]}


def quadratic(p):
    """With a slope at W that a single displacement would see and a pair does not."""
    z = p - W
    return 2 + SLOPE @ z + 0.5 * z @ MATRIX @ z


def on_tree(p):
    return quadratic(torch.cat([p["a"].reshape(-1), p["b"]]))


def units(unit):
    if unit == "absolute":
        return torch.ones(40, dtype=torch.float64)
    own = W.abs()
    if unit == "filter":
        own = torch.cat([W[:30].view(5, 6).norm(dim=1).repeat_interleave(6), W[30:].abs()])
    return own


@pytest.mark.parametrize("unit", ["absolute", "element", "filter"])
def test_is_half_the_trace_on_a_quadratic(unit):
    t = units(unit)
    matrix = t[:, None] * MATRIX * t
    found = average_sharpness(on_tree, TREE, sigma=0.3, unit=unit, rel_error=1e-9, max_pairs=800)
    exact = 0.5 * 0.3**2 * matrix.trace().item()
    assert found.rise.n == 800
    assert abs(found.rise.value - exact) < 5 * found.rise.stderr
    assert found.rise.stderr < 0.02 * exact
    spread = 0.3**2 * math.sqrt(matrix.square().sum().item() / 2)  # of z'Hz/2: its variance is tr(H H) / 2
    assert found.rise.stdev == pytest.approx(spread, rel=0.15)
    assert (found.base, found.converged, found.evaluations) == (2, False, 1601)


def test_higher_orders_are_in_it():
    """E cos(s xi) = exp(-s^2 / 2)."""
    w = torch.zeros(50, dtype=torch.float64)
    found = average_sharpness(lambda p: -p.cos().mean(), w, sigma=1.5, rel_error=0.01, max_pairs=1000)
    exact = 1 - math.exp(-(1.5**2) / 2)
    assert found.converged
    assert abs(found.rise.value - exact) < 5 * found.rise.stderr
    assert found.rise.stderr < 0.02 * exact


def test_a_slope_alone_gives_nothing():
    found = average_sharpness(lambda p: p @ SLOPE + 1, W, max_pairs=8)
    assert abs(found.rise.value) < 1e-12
    assert found.rise.stdev < 1e-12


@pytest.mark.parametrize("rel_error", [0.2, 0.05])
def test_stops_at_the_tolerance(rel_error):
    found = average_sharpness(quadratic, W, rel_error=rel_error, max_pairs=10_000)
    assert found.converged
    assert found.rise.n % 8 == 0
    assert found.rise.stderr <= rel_error * found.rise.value
    assert found.rise.n <= 3 * (0.33 / rel_error) ** 2 + 8  # a pair scatters by 0.33 of the mean: sqrt(2 tr HH) / tr H


def test_the_seed_decides_the_displacements():
    rises = [average_sharpness(quadratic, W, seed=s, max_pairs=8).rise.value for s in (0, 0, 1)]
    assert rises[0] == rises[1] != rises[2]


def test_single_precision_draws_and_adds_up_the_same_way():
    single = average_sharpness(lambda p: quadratic(p.double()), W.float(), sigma=0.3, rel_error=1e-9, max_pairs=400)
    exact = 0.5 * 0.3**2 * MATRIX.trace().item()
    assert abs(single.rise.value - exact) < 5 * single.rise.stderr
    assert single.rise.stderr < 0.02 * exact


@pytest.mark.parametrize("unit", ["element", "filter"])
def test_units_of_the_weights_do_not_see_a_rescaling_of_relu_layers(unit):
    x = torch.randn(20, 4, dtype=torch.float64, generator=RNG)
    first, second = TREE["a"].reshape(-1)[:20].view(5, 4), TREE["b"][:10].view(2, 5)

    def loss(p):
        return (torch.relu(x @ p["first"].T) @ p["second"].T).square().mean()

    plain, scaled = (
        average_sharpness(loss, {"first": first * f, "second": second / f}, unit=unit, max_pairs=8).rise.value
        for f in (1.0, 4.0)
    )
    assert scaled == pytest.approx(plain, rel=1e-9)


def test_an_infinite_loss_ends_it():
    found = average_sharpness(lambda p: torch.where(p.max() > 0.015, torch.inf, p.sum()), torch.zeros(30))
    assert not found.converged
    assert found.rise.value == math.inf
    assert found.rise.n < 256
    json.dumps(found.to_dict(), allow_nan=False)


def test_says_what_it_did():
    heard = []
    found = average_sharpness(quadratic, W, max_pairs=9, rel_error=1e-9, listen=heard.append)
    assert [e.done for e in heard] == list(range(1, 10))
    assert "not converged to 1e-09" in str(found)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (written["rise"]["n"], written["unit"], written["sigma"]) == (9, "absolute", 0.01)
    assert np.isfinite(written["rise"]["interval"]).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sigma": 0.0}, "sigma is 0.0; give a positive number"),
        ({"rel_error": -0.1}, "rel_error is -0.1; give a positive number"),
        ({"max_pairs": 1}, "max_pairs is 1; give a whole number of at least 2"),
        ({"unit": "layer"}, "unit is 'layer'; choose one of absolute, element, filter"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        average_sharpness(quadratic, W, **change)
