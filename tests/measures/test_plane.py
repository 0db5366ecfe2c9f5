# Oracles: a quadratic in closed form at points that are built from the corners by hand; numpy's QR for the axes.
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gengap.core.errors import BadInput
from gengap.measures.landscape.plane import plane

RNG = torch.Generator().manual_seed(3)
A, B, C = (torch.randn(6, dtype=torch.float64, generator=RNG) for _ in range(3))
H = torch.randn(6, 6, dtype=torch.float64, generator=RNG)


def quadratic(w):
    return w @ H @ w + w.sum()


def test_the_grid_is_the_quadratic_on_the_plane():
    x, y = [-1.0, 0.0, 2.5], [-0.5, 3.0]
    found = plane(quadratic, a=A, b=B, c=C, x=x, y=y)
    axes, _ = np.linalg.qr(torch.stack([B - A, C - A], 1).numpy())
    signs = np.sign(np.einsum("pk,pk->k", axes, torch.stack([B - A, C - A], 1).numpy()))
    u, v = torch.from_numpy((axes * signs).T.copy())
    exact = [[float(quadratic(A + i * u + j * v)) for i in x] for j in y]
    assert np.array(found.grid.losses[0]) == pytest.approx(np.array(exact), rel=1e-11)
    assert found.grid.accuracies == (None,)
    assert found.x_direction["params"].numpy() == pytest.approx(u.numpy(), abs=1e-13)
    assert found.y_direction["params"].numpy() == pytest.approx(v.numpy(), abs=1e-13)


def test_the_corners_keep_their_distances_and_their_bits():
    seen = []

    def loss(w):
        seen.append(w.clone())
        return quadratic(w)

    found = plane(loss, a=A, b=B, c=C, x=[0.0], y=[0.0], check=False)
    at = [np.array([corner.x, corner.y]) for corner in found.corners]
    for (p, one), (q, other) in [((0, A), (1, B)), ((0, A), (2, C)), ((1, B), (2, C))]:
        assert np.linalg.norm(at[p] - at[q]) == pytest.approx(float((one - other).norm()), rel=1e-12)
    assert [torch.equal(x, y) for x, y in zip(seen[:3], (A, B, C), strict=True)] == [True] * 3
    assert [c.losses[0] for c in found.corners] == [float(quadratic(w)) for w in (A, B, C)]
    assert found.conditions.points == 4


def test_the_default_grid_covers_the_three():
    found = plane(quadratic, a=A, b=B, c=C, points=4)
    assert (len(found.grid.x), len(found.grid.y)) == (4, 4)
    for corner in found.corners:
        assert min(found.grid.x) < corner.x < max(found.grid.x)
        assert min(found.grid.y) < corner.y < max(found.grid.y)
    x, y, loss = found.grid.lowest()
    i, j = found.grid.x.index(x), found.grid.y.index(y)
    assert loss == found.grid.losses[0][j][i] == np.array(found.grid.losses[0]).min()
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert said["grid"]["losses"] == [[list(row) for row in found.grid.losses[0]]]
    assert said["descriptions"][0]["data"] == "unknown"
    assert "x_direction" not in said
    assert "plane through three checkpoints" in str(found)


@settings(max_examples=20, deadline=None)
@given(scale=st.sampled_from([1e-3, 1.0, 1e3]), thin=st.sampled_from([1.0, 1e-2, 1e-3]), seed=st.integers(0, 9))
def test_float32_axes_are_orthonormal(scale, thin, seed):
    rng = torch.Generator().manual_seed(seed)
    a, d, e = (torch.randn(2000, generator=rng) for _ in range(3))
    names = ("w", "v")
    a, b, c = (
        dict(zip(names, p.split([1500, 500]), strict=True))
        for p in (a, a + scale * d, a + scale * (0.5 * d + thin * e))
    )
    found = plane(lambda p: p["w"].sum(), a=a, b=b, c=c, x=[0.0], y=[0.0])
    u, v = (torch.cat(list(t.values())).double() for t in (found.x_direction, found.y_direction))
    assert float(u @ u) == pytest.approx(1, abs=1e-6)
    assert float(v @ v) == pytest.approx(1, abs=1e-6)
    assert abs(float(u @ v)) < 1e-6


def test_values_that_are_not_finite_are_none():
    found = plane(lambda w: torch.log(w[0]), a=ONE, b=ONE * 2, c=torch.tensor([1.0, 2.0]), x=[0, -9], y=[0])
    assert found.grid.losses[0][0][1] is None
    assert "1 points not finite" in str(found)


ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"b": ONE}, "a and b are the same weights"),
        ({"c": ONE}, "a and c are the same weights"),
        ({"c": 3 * ONE}, "a, b and c lie on a line: c is .* away"),
        ({"c": torch.ones(3)}, r"a\['params'\] has shape \(2,\) and c\['params'\] has \(3,\)"),
        ({"points": 1}, "points is 1; give a whole number of at least 2"),
        ({"x": [math.nan]}, "x holds nan"),
        ({"y": []}, "y is empty"),
        ({"buffers": [{}]}, "buffers holds 1 sets, but there are 3 checkpoints"),
        ({"buffers": [{}, {}, {}]}, "a loss has no method with_buffers"),
        ({"memory_limit": 10}, "memory_limit is 10 B"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    arguments = {"a": ONE, "b": 2 * ONE, "c": torch.tensor([0.0, 1.0]), **change}
    with pytest.raises(BadInput, match=sentence):
        plane(lambda w: w.sum(), **arguments)
