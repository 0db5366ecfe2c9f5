# Oracles: all corners of the box with A written out and numpy's pseudo-inverse, the moments of the laws of A, and a
# separate sharpness of z -> L(x + A z) where A^+ x is known.
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.measures.sharpness import columns as module
from gengap.measures.sharpness.columns import Columns
from gengap.measures.sharpness.subspace_sharpness import Span, subspace_sharpness

LAWS = ["normal", "unit columns", "uniform"]
PLENTY = 1 << 30


def written_out(columns, dim):
    return np.stack([columns.times(e) for e in np.eye(dim)], axis=1)


def quadratic(size, seed):
    rng = torch.Generator().manual_seed(seed)
    root = 2 * torch.eye(size, dtype=torch.float64) + torch.randn(size, size, dtype=torch.float64, generator=rng) / 4
    w = torch.randn(size, dtype=torch.float64, generator=rng)
    centre = w - 0.5 * torch.randn(size, dtype=torch.float64, generator=rng)
    return lambda p: 0.5 * (root @ (p - centre)).square().sum(), w


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(3))
def test_finds_the_highest_corner_of_the_box_in_each_subspace(law, seed):
    """A convex function on a box is highest in a corner; dimension 6 has 64."""
    loss, w = quadratic(11, seed)
    found = subspace_sharpness(loss, w, radius=1e-3, dim=6, repeats=3, entries=law, seed=seed)
    base = loss(w).item()
    for i, draw in enumerate(found.draws):
        a = written_out(Columns(11, 6, law=law, seed=stream(seed, "subspace", i), room=PLENTY), 6)
        half = 1e-3 * (np.abs(np.linalg.pinv(a) @ w.numpy()) + 1)
        corners = (torch.from_numpy(a @ (half * s)) for s in itertools.product((-1.0, 1.0), repeat=6))
        exact = 100 * (max(loss(w + c).item() for c in corners) - base) / (1 + base)
        assert draw.percent == pytest.approx(exact, rel=1e-10)
        assert draw.share_at_bound == 1
    assert found.values == tuple(draw.percent for draw in found.draws)
    assert len(set(found.values)) == 3
    assert found.percent.value == pytest.approx(np.mean(found.values), rel=1e-12)
    assert found.percent.stdev == pytest.approx(np.std(found.values, ddof=1), rel=1e-12)
    assert found.evaluations == 1 + sum(draw.evaluations for draw in found.draws)


def test_the_paper_search_begins_at_zero_with_the_loss_as_it_is():
    loss, w = quadratic(11, 0)
    found = subspace_sharpness(loss, w, radius=1e-2, dim=6, repeats=2, search="paper")
    assert [[s.name for s in draw.starts] for draw in found.draws] == [["point"], ["point"]]
    assert all(draw.agreement is None and draw.percent > 0 for draw in found.draws)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (5, 5), (7, 3), (40, 11)])
def test_products_are_those_of_the_matrix_written_out(law, rows, dim, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 6)
    columns = Columns(rows, dim, law=law, seed=3, room=PLENTY)
    a, rng = written_out(columns, dim), np.random.default_rng(0)
    z, v = rng.standard_normal(dim), rng.standard_normal(rows)
    assert columns.times(z) == pytest.approx(a @ z, rel=1e-12, abs=1e-12)
    assert columns.transposed(v) == pytest.approx(a.T @ v, rel=1e-12, abs=1e-12)
    assert columns.gram == pytest.approx(a.T @ a, rel=1e-12)
    residual = v - a @ columns.pseudo_inverse(v)
    assert a.T @ residual == pytest.approx(np.zeros(dim), abs=1e-7 * np.linalg.norm(v))
    if law == "unit columns":
        assert np.linalg.norm(a, axis=0) == pytest.approx(np.ones(dim), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.sampled_from(LAWS), st.integers(0, 5))
def test_what_is_drawn_again_is_what_is_stored(rows, dim, law, seed):
    dim = min(dim, rows)
    kept, again = (Columns(rows, dim, law=law, seed=seed, room=room) for room in (PLENTY, 0))
    assert kept.stored
    assert not again.stored
    z, v = np.arange(1.0, dim + 1), np.arange(1.0, rows + 1)
    assert np.array_equal(kept.times(z), again.times(z))
    assert np.array_equal(kept.transposed(v), again.transposed(v))


def test_the_entries_have_their_law():
    """Means and variances of 200,000 entries within 5 standard errors, and blocks that are not copies."""
    normal = written_out(Columns(20_000, 10, law="normal", seed=0, room=PLENTY), 10)
    uniform = written_out(Columns(20_000, 10, law="uniform", seed=0, room=PLENTY), 10)
    n = normal.size
    assert abs(normal.mean()) < 5 / n**0.5
    assert abs(normal.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs(uniform.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert abs(uniform.var() - 1 / 12) < 5 * (1 / 180 / n) ** 0.5
    assert uniform.min() >= 0
    assert abs(np.corrcoef(normal[:4096, 0], normal[4096:8192, 0])[0, 1]) < 5 / 4096**0.5
    assert abs(np.corrcoef(normal.T)[0, 1:]).max() < 5 / 20_000**0.5


def test_the_gradient_by_z_is_that_of_the_loss_along_the_columns():
    """Central differences."""
    columns = Columns(9, 4, law="normal", seed=1, room=PLENTY)
    span, z = Span(np.linspace(-1, 1, 9), columns), np.array([0.1, -0.2, 0.3, 0.4])

    def height(at):
        return np.sin(span.weights(at)).sum()

    slope = span.gradient(np.cos(span.weights(z)))
    for i, h in enumerate(np.eye(4) * 1e-5):
        assert slope[i] == pytest.approx((height(z + h) - height(z - h)) / 2e-5, rel=1e-8)
    assert np.array_equal(span.weights(np.zeros(4)), span.centre)


def test_a_small_limit_draws_again_and_finds_the_same():
    loss, w = quadratic(1000, 1)
    kept = subspace_sharpness(loss, w, dim=60, repeats=1, iterations=2)
    again = subspace_sharpness(loss, w, dim=60, repeats=1, iterations=2, memory_limit=25 * 8 * 1000)
    assert kept.stored
    assert not again.stored
    assert again.values == kept.values


def test_the_same_seed_gives_the_same_subspaces_for_every_dtype_of_the_weights():
    loss, w = quadratic(30, 2)
    double = subspace_sharpness(loss, w, radius=0.1, dim=4, repeats=2)
    single = subspace_sharpness(lambda p: loss(p.double()), w.float(), radius=0.1, dim=4, repeats=2)
    assert single.values == pytest.approx(double.values, rel=1e-5)
    assert subspace_sharpness(loss, w, radius=0.1, dim=4, repeats=1, seed=1).values[0] not in double.values


def test_says_what_it_did():
    loss, w = quadratic(11, 0)
    heard = []
    found = subspace_sharpness(loss, w, dim=3, repeats=2, listen=heard.append)
    assert len(heard) == found.evaluations
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["percent"]["n"] == len(written["draws"]) == 2
    assert (written["dim"], written["entries"], written["bound"]) == (3, "normal", "lower")
    assert "dimension 3" in str(found)
    assert str(2) in str(found.percent)


def test_an_infinite_corner_is_stepped_back_from():
    def loss(p):
        return torch.where(p.norm() > 1.005, torch.inf, p.sum() + 1)

    found = subspace_sharpness(loss, torch.full((16,), 0.25, dtype=torch.float64), dim=4, repeats=1, radius=0.05)
    assert found.draws[0].nonfinite > 0
    assert 0 < found.percent.value < np.inf


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dim": 12}, "dim is 12, but there are only 11 weights"),
        ({"dim": 0}, "dim is 0; give a whole number of at least 1"),
        ({"repeats": 0}, "repeats is 0; give a whole number of at least 1"),
        ({"repeats": 1.5}, "repeats is 1.5; give a whole number"),
        ({"radius": -1.0}, "radius is -1.0; give a positive number"),
        ({"radius": "1"}, "radius is '1'; give a positive number"),
        ({"entries": "gauss"}, "entries is 'gauss'; choose one of normal, unit columns, uniform"),
        ({"search": "quick"}, "search is 'quick'; choose one of robust, paper"),
        ({"iterations": 0}, "iterations is 0; give a whole number"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    loss, w = quadratic(11, 0)
    with pytest.raises(BadInput, match=sentence):
        subspace_sharpness(loss, w, **{"dim": 3, **change})
