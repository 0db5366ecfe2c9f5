# Oracles: the corner of the box of a separable convex quadratic, all corners where it is not separable, a closure that
# holds the other weights by hand, and plain scipy on the same scaled objective.
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import Bounds, minimize
from torch.nn.functional import cross_entropy

from gengap.core.errors import BadInput
from gengap.measures.sharpness.box_sharpness import Sharpness, sharpness
from gengap.measures.sharpness.groups import grouped, positions
from gengap.measures.sharpness.surface import Entries, Scaled

RNG = torch.Generator().manual_seed(2)
WEIGHTS = {
    "a.weight": torch.randn(2, 2, dtype=torch.float64, generator=RNG),
    "a.bias": torch.randn(2, dtype=torch.float64, generator=RNG),
    "b.weight": torch.randn(3, dtype=torch.float64, generator=RNG),
}
ROOT = torch.randn(9, 9, dtype=torch.float64, generator=RNG)
MILD = 4 * torch.eye(9, dtype=torch.float64) + ROOT / 3  # so that the highest corner is easy to find


def joined(p):
    return torch.cat([p[name].reshape(-1) for name in sorted(p)])


def coupled(p):
    """A convex quadratic whose minimum is 0.3 away in every weight."""
    return 0.5 * (MILD @ (joined(p) - joined(WEIGHTS) - 0.3)).square().sum()


def highest_corner(loss, w, radius):
    box = radius * (w.abs() + 1)
    base = loss(w).item()
    corners = itertools.product((-1.0, 1.0), repeat=w.numel())
    peak = max(loss(w + box * torch.tensor(s, dtype=w.dtype)).item() for s in corners)
    return 100 * (peak - base) / (1 + base)


def test_radii_share_the_evaluation_of_the_point_and_are_what_each_gives_alone():
    radii, heard = [1e-3, 5e-4, 0.1], []
    profile = sharpness(coupled, WEIGHTS, radius=radii, listen=heard.append)
    alone = [sharpness(coupled, WEIGHTS, radius=r) for r in radii]
    assert [(r.percent, r.starts, r.evaluations) for r in profile] == [
        (r.percent, r.starts, r.evaluations) for r in alone
    ]
    assert [r.radius for r in profile] == radii
    assert profile.evaluations == len(heard) == sum(r.evaluations for r in alone) - 2
    assert profile[0].percent < profile[2].percent
    assert all(r.group is None and r.seconds <= profile.conditions.seconds for r in profile)


def test_a_single_radius_in_a_list_is_a_profile():
    profile = sharpness(coupled, WEIGHTS, radius=(1e-3,))
    assert len(profile) == 1
    assert isinstance(profile[0], Sharpness)


def test_a_group_is_measured_with_the_other_weights_held():
    groups = {"first": "a.*", "biases": ["*.bias"], "ends": ["a.bias", "b.weight"]}
    names = {"first": ("a.bias", "a.weight"), "biases": ("a.bias",), "ends": ("a.bias", "b.weight")}
    profile = sharpness(coupled, WEIGHTS, radius=[1e-3, 1e-2], groups=groups)
    assert [(r.group, r.radius) for r in profile] == list(itertools.product(groups, [1e-3, 1e-2]))
    for record in profile:
        moved = {n: WEIGHTS[n] for n in names[record.group]}

        def held(w, moved=moved):
            parts = dict(zip(moved, w.split([p.numel() for p in moved.values()]), strict=True))
            return coupled({n: parts[n].view(p.shape) if n in parts else p for n, p in WEIGHTS.items()})

        exact = highest_corner(held, joined(moved), record.radius)
        assert record.percent == pytest.approx(exact, rel=1e-10)


def test_layers_are_named_by_what_comes_before_the_last_dot():
    profile = sharpness(coupled, WEIGHTS, groups="layer")
    assert [r.group for r in profile] == ["a", "b"]
    whole = sharpness(coupled, WEIGHTS)
    assert all(r.percent < whole.percent for r in profile)
    assert grouped({"w": WEIGHTS["a.bias"]}, "layer") == {"w": ("w",)}


def test_only_measures_what_it_names_and_groups_are_made_of_that():
    one = sharpness(coupled, WEIGHTS, only="a.*")
    assert one.percent == pytest.approx(sharpness(coupled, WEIGHTS, groups={"a": "a.*"})[0].percent, rel=1e-12)
    assert one.conditions.weights == 6
    assert [r.group for r in sharpness(coupled, WEIGHTS, only="a.*", groups="layer")] == ["a"]


def test_the_json_form_keeps_its_keys():
    single, profile = sharpness(coupled, WEIGHTS), sharpness(coupled, WEIGHTS, groups="layer")
    keys = (
        "percent base peak radius search starts evaluations share_at_bound agreement nonfinite seconds dtype batch_norm"
    )
    assert {
        *keys.split(),
        "data",
        "samples",
        "bound",
        "peak_memory",
        "memory_limit",
        "group",
    } <= single.to_dict().keys()
    written = json.loads(json.dumps(profile.to_dict(), allow_nan=False))
    assert [r["group"] for r in written["records"]] == ["a", "b"]
    assert written["dtype"] == "float64"
    assert str(profile).count("\n") == 2
    assert "b alone" in str(profile)


def test_a_value_is_never_below_plain_scipy_on_the_same_scaled_objective():
    """A small trained-like network in float64, from the point, with the loss divided by its largest gradient entry."""
    rng = torch.Generator().manual_seed(5)
    x, y = torch.randn(60, 5, dtype=torch.float64, generator=rng), torch.randint(0, 3, (60,), generator=rng)
    w = torch.randn(5 * 7 + 7 * 3, dtype=torch.float64, generator=rng)

    def loss(p):
        return cross_entropy(torch.tanh(x @ p[:35].view(5, 7)) @ p[35:].view(7, 3), y)

    def graded(z):
        own = torch.tensor(z, requires_grad=True)
        value = loss(own)
        value.backward()
        return value.item(), own.grad.numpy()

    for radius in (1e-3, 1e-2, 0.3):
        at, half = w.numpy(), radius * (w.abs().numpy() + 1)
        base, slope = graded(at)
        scale = np.abs(slope).max()
        seen = []

        def negative(z, scale=scale, seen=seen):
            value, gradient = graded(z)
            seen.append(value)
            return -value / scale, -gradient / scale

        options = {"maxiter": 10, "maxcor": 10, "ftol": 0.0, "gtol": 0.0}
        minimize(negative, at, jac=True, method="L-BFGS-B", bounds=Bounds(at - half, at + half), options=options)
        found = sharpness(loss, w, radius=radius)
        assert found.percent >= 100 * (max(seen) - base) / (1 + base) - 1e-9 * found.percent
        assert found.starts[0].evaluations == len(seen) - 1


def test_memory_is_limited():
    assert sharpness(coupled, WEIGHTS, memory_limit=10_000).conditions.memory_limit == 10_000
    with pytest.raises(BadInput, match="memory_limit is 1e\\+03 B, but this measure needs at least"):
        sharpness(coupled, WEIGHTS, memory_limit=1000)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"radius": []}, "radius holds no number"),
        ({"radius": [1e-3, -1.0]}, "radius is -1.0; give a positive number"),
        ({"radius": [1e-3, 1e-17]}, "radius is 1e-17, which float64 cannot resolve"),
        ({"groups": "module"}, "groups is 'module'; give 'layer', or a dict"),
        ({"groups": {}}, "groups is {}; give 'layer'"),
        (
            {"groups": {"g": "c.*"}},
            r"group 'g' holds the pattern 'c.\*', which no weight is called; there are a.weight",
        ),
        ({"groups": {"g": []}}, "group 'g' holds the pattern ''"),
        ({"only": "c.*"}, r"only holds 'c.\*', which no weight is called"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        sharpness(coupled, WEIGHTS, **change)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4), st.data())
def test_positions_are_those_in_the_joined_vector(shapes, data):
    tree = {f"w{i}": torch.zeros(shape) for i, shape in enumerate(shapes)}
    names = data.draw(st.sets(st.sampled_from(list(tree))))
    marked = torch.cat([torch.full_like(p, n in names).reshape(-1) for n, p in tree.items()])
    assert positions(tree, sorted(names)).tolist() == marked.nonzero().flatten().tolist()


def test_charts_move_the_weights_they_should():
    centre = np.array([1.0, 2.0, 3.0, 4.0])
    some = Entries(centre, np.array([1, 3]))
    assert some.weights(np.array([7.0, 8.0])).tolist() == [1, 7, 3, 8]
    assert some.gradient(np.array([5.0, 6.0, 7.0, 8.0])).tolist() == [6, 8]
    assert centre.tolist() == [1, 2, 3, 4]
    scaled = Scaled(centre, np.array([0.0, 1.0, 2.0, 3.0]))
    assert scaled.weights(np.ones(4)).tolist() == [1, 3, 5, 7]
    assert scaled.gradient(np.ones(4)).tolist() == [0, 1, 2, 3]
