# Oracles: the definition of each law written out, closed forms of the rise of quadratics along them (held to 5 standard
# errors), and numpy's quantiles.
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gengap.core.errors import BadInput
from gengap.measures.sharpness.perturbations import displacement, length
from gengap.measures.sharpness.random_rise import random_rise

RNG = torch.Generator().manual_seed(0)
TREE = {
    "conv": torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=RNG),
    "bias": torch.randn(4, dtype=torch.float64, generator=RNG),
    "out": torch.randn(2, 5, dtype=torch.float64, generator=RNG),
}
CURVATURE = {name: torch.rand(p.shape, dtype=torch.float64, generator=RNG) * 3 for name, p in TREE.items()}


def quadratic(p):
    return 1 + 0.5 * sum((CURVATURE[n] * (p[n] - TREE[n]) ** 2).sum() for n in TREE)


def entries(tree):
    return torch.cat([p.reshape(-1) for p in tree.values()])


def test_corners_of_the_box_and_points_in_it():
    b = 0.1 * (entries(TREE).abs() + 1)
    for i in range(5):
        assert torch.allclose(entries(displacement(TREE, "corner", 0.1, 0, i)).abs(), b, rtol=1e-12, atol=0)
        inside = entries(displacement(TREE, "box", 0.1, 0, i)) / b
        assert inside.abs().max() <= 1
        assert inside.abs().max() > 0.8
    signs = torch.stack([entries(displacement(TREE, "corner", 0.1, 0, i)).sign() for i in range(400)])
    assert signs.mean(0).abs().max() < 5 / 400**0.5


def test_lengths_of_the_sphere_and_of_filters():
    sphere = displacement(TREE, "sphere", 0.1, 0, 0)
    assert length(sphere) == pytest.approx(0.1 * entries(TREE).norm().item(), rel=1e-12)
    filters = displacement(TREE, "filter", 0.1, 0, 0)
    for name in ("conv", "out"):
        own = TREE[name].flatten(1).norm(dim=1)
        assert torch.allclose(filters[name].flatten(1).norm(dim=1), 0.1 * own, rtol=1e-12)
    assert not filters["bias"].any()


def expected(directions):
    """The mean rise 1/2 sum h_i E d_i^2."""
    h, x = entries(CURVATURE), entries(TREE)
    b = 0.1 * (x.abs() + 1)
    if directions == "corner":
        square = b**2
    elif directions == "box":
        square = b**2 / 3
    elif directions == "sphere":
        square = torch.full_like(x, 0.01 * x.square().sum() / len(x))
    else:
        norms = [
            TREE[n].flatten(1).square().sum(1, keepdim=True).expand_as(TREE[n].flatten(1)) for n in ("conv", "out")
        ]
        conv, out = (0.01 * s / s.shape[1] for s in norms)
        square = torch.cat([conv.reshape(-1), torch.zeros(4), out.reshape(-1)])
    return 0.5 * (h * square).sum().item()


@pytest.mark.parametrize("directions", ["corner", "box", "sphere", "filter"])
def test_the_mean_rise_of_a_quadratic(directions):
    found = random_rise(quadratic, TREE, radius=0.1, directions=directions, samples=400)
    exact = expected(directions)
    if directions == "corner":  # no scatter: every corner of a separable quadratic is as high
        assert found.rise.value == pytest.approx(exact, rel=1e-12)
    else:
        assert abs(found.rise.value - exact) < 5 * found.rise.stderr
    assert found.rise.stderr < 0.02 * exact
    assert found.base == 1


def test_quantiles_are_of_the_rises_and_lengths_are_stated():
    found = random_rise(quadratic, TREE, directions="box", samples=60)
    assert len(found.rises) == found.rise.n == 60
    assert found.quantiles[0.0] == min(found.rises)
    assert found.quantiles[1.0] == max(found.rises)
    assert found.quantiles[0.25] == sorted(found.rises)[14]
    assert found.percent(0.5) == pytest.approx(100 * sorted(found.rises)[29] / 2, rel=1e-12)
    far = np.mean([length(displacement(TREE, "box", 1e-3, 0, i)) for i in range(60)])
    assert found.length == pytest.approx(far, rel=1e-12)
    assert found.relative_length == pytest.approx(far / entries(TREE).norm().item(), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 3), max_size=4), min_size=1, max_size=3),
    st.sampled_from(["corner", "box", "sphere", "filter"]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_displacements_have_the_shapes_and_dtypes_of_the_weights(shapes, directions, dtype):
    tree = {f"w{i}": torch.ones(shape, dtype=dtype) for i, shape in enumerate(shapes)}
    by, again = (displacement(tree, directions, 0.1, 3, 7) for _ in range(2))
    assert {n: (p.shape, p.dtype) for n, p in by.items()} == {n: (p.shape, dtype) for n, p in tree.items()}
    assert all(torch.equal(by[n], again[n]) for n in tree)


def test_an_infinite_loss_is_counted_and_not_hidden():
    w = torch.zeros(3, dtype=torch.float64)
    found = random_rise(lambda p: torch.where(p.sum() > 0, torch.inf, p.square().sum()), w, samples=40)
    assert found.quantiles[0.95] == math.inf
    assert math.isfinite(found.quantiles[0.05])
    assert found.relative_length is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_says_what_it_did():
    heard = []
    found = random_rise(quadratic, TREE, samples=5, listen=heard.append)
    assert [(e.done, e.total) for e in heard] == [(i, 5) for i in range(1, 6)]
    assert "median of 5 directions" in str(found)
    assert found.to_dict()["quantiles"]["0.5"] == found.quantiles[0.5]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"radius": math.inf}, "radius is inf; give a positive number"),
        ({"samples": 1}, "samples is 1; give a whole number of at least 2"),
        ({"directions": "ball"}, "directions is 'ball'; choose one of corner, box, sphere, filter"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        random_rise(quadratic, TREE, **change)
