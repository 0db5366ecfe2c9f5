# Oracles: the closed form of the box maximum of a separable convex quadratic (its corner farthest from the centre), and
# a list of all 2^P corners where the quadratic is not separable (a convex function is highest in a corner).
import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn.functional import cross_entropy

from gengap.core.errors import BadInput
from gengap.measures.sharpness.box_sharpness import sharpness

CURVATURE = torch.tensor([0.0, 1.0, 50.0, 3.0], dtype=torch.float64)
CENTRE = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)


def quadratic(curvature, centre):
    return lambda w: 0.5 * (curvature * (w - centre) ** 2).sum()


def exact_percent(curvature, centre, w, radius):
    box, away = radius * (w.abs() + 1), (w - centre).abs()
    base, peak = 0.5 * (curvature * away**2).sum(), 0.5 * (curvature * (away + box) ** 2).sum()
    return (100 * (peak - base) / (1 + base)).item()


def highest_corner(loss, w, radius):
    box = radius * (w.abs() + 1)
    base = loss(w).item()
    corners = itertools.product((-1.0, 1.0), repeat=w.numel())
    peak = max(loss(w + box * torch.tensor(s, dtype=w.dtype)).item() for s in corners)
    return 100 * (peak - base) / (1 + base)


@pytest.mark.parametrize("radius", [5e-4, 1e-3, 1e-1])
@pytest.mark.parametrize("offset", [0.0, 1e-4, 0.3], ids=["at minimum", "near", "far"])
def test_equals_the_corner_of_the_box(radius, offset):
    w = CENTRE + offset
    found = sharpness(quadratic(CURVATURE, CENTRE), w, radius=radius)
    assert found.percent == pytest.approx(exact_percent(CURVATURE, CENTRE, w, radius), rel=1e-11)
    assert found.agreement == pytest.approx(1, abs=1e-9)


def test_climbs_where_only_some_gradient_entries_are_zero():
    w = CENTRE + torch.tensor([0.0, 0.3, 0.0, 0.0], dtype=torch.float64)
    found = sharpness(quadratic(CURVATURE, CENTRE), w)
    assert found.percent == pytest.approx(exact_percent(CURVATURE, CENTRE, w, 1e-3), rel=1e-11)


def test_the_paper_search_is_exact_where_the_gradient_is_large_and_blind_where_it_is_zero():
    far, still = CENTRE + 30.0, CENTRE
    found = sharpness(quadratic(CURVATURE, CENTRE), far, search="paper")
    assert found.percent == pytest.approx(exact_percent(CURVATURE, CENTRE, far, 1e-3), rel=1e-11)
    assert [s.name for s in found.starts] == ["point"]
    assert found.agreement is None
    assert sharpness(quadratic(CURVATURE, CENTRE), still, search="paper").percent == 0


def test_the_paper_search_sees_only_where_the_gradient_points():
    """One entry of 1e-9: L-BFGS-B finds the way along that axis, and never leaves it for the steep one."""
    w = CENTRE + torch.tensor([0.0, 1e-9, 0.0, 0.0], dtype=torch.float64)
    paper, robust = (sharpness(quadratic(CURVATURE, CENTRE), w, search=s) for s in ("paper", "robust"))
    assert robust.percent == pytest.approx(exact_percent(CURVATURE, CENTRE, w, 1e-3), rel=1e-9)
    along = exact_percent(CURVATURE[1:2], CENTRE[1:2], w[1:2], 1e-3)
    assert paper.percent <= along * (1 + 1e-12) < 0.2 * robust.percent


@pytest.mark.parametrize("seed", range(6))
def test_coupled_weights_reach_the_highest_corner_and_never_pass_it(seed):
    rng = torch.Generator().manual_seed(seed)
    root = torch.randn(7, 7, dtype=torch.float64, generator=rng)
    w, slope = torch.randn(2, 7, dtype=torch.float64, generator=rng)
    start = w + 0.05 * slope

    def loss(p):
        return 0.5 * (root @ (p - w)).square().sum()

    found, exact = sharpness(loss, start, radius=1e-2), highest_corner(loss, start, 1e-2)
    assert found.percent <= exact * (1 + 1e-12)
    assert found.percent >= 0.97 * exact


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.floats(1e-6, 2.0),
    st.sampled_from(["robust", "paper"]),
    st.integers(1, 4),
)
def test_never_negative_and_never_above_what_the_box_allows(numbers, radius, search, iterations):
    """|cos| <= 1 bounds the climb of a function with many maxima and minima."""
    w = torch.tensor(numbers, dtype=torch.float64)
    found = sharpness(lambda p: torch.cos(3 * p).sum() + 3, w, radius=radius, search=search, iterations=iterations)
    assert 0 <= found.percent <= 100 * (6 - found.base) / (1 + found.base) + 1e-9
    assert found.peak >= found.base
    assert found.bound == "lower"


def test_grows_with_the_radius():
    loss = quadratic(CURVATURE, CENTRE)
    found = [sharpness(loss, CENTRE + 0.01, radius=r).percent for r in (1e-5, 1e-4, 5e-4, 1e-3, 1e-2, 1.0)]
    assert found == sorted(found)
    assert found[0] > 0


def saturated(scale):
    """Two classes told apart by one feature, in float32: the larger the scale, the smaller the gradient."""
    x = torch.tensor([[1.0, 0.5], [1.2, -0.3], [-1.0, 0.1], [-0.9, -0.2]])
    y = torch.tensor([0, 0, 1, 1])
    params = {"in": torch.eye(2) * scale, "out": torch.tensor([[1.0, 0.0], [-1.0, 0.0]]) * scale}
    return lambda p: cross_entropy(x @ p["in"].T @ p["out"].T, y), params


@pytest.mark.parametrize(("scale", "largest"), [(2.7, 1e-5), (2.9, 1e-6), (12.0, 0.0)], ids=["small", "tiny", "zero"])
def test_a_saturated_network_is_not_called_flat(scale, largest):
    loss, params = saturated(scale)
    own = {name: p.clone().requires_grad_() for name, p in params.items()}
    loss(own).backward()
    assert max(p.grad.abs().max().item() for p in own.values()) <= largest
    paper, robust = (sharpness(loss, params, search=s, radius=1.2) for s in ("paper", "robust"))
    assert paper.percent < 1e-2
    assert robust.percent > 100
    assert robust.dtype == "float32"
    assert min(s.percent for s in robust.starts) > 90


def test_the_best_is_kept_over_all_points_and_not_only_the_last():
    """A narrow peak half way to the corner is met by sign ascent and lost again by the end."""
    w = torch.zeros(1, dtype=torch.float64)

    def loss(p):
        return (p + torch.exp(-(((p - 0.05) / 0.003) ** 2))).sum()

    found = sharpness(loss, w, radius=0.1, iterations=2)
    assert found.peak == pytest.approx(1.05, abs=1e-3)
    assert found.share_at_bound == 0


def test_a_loss_that_is_infinite_beyond_a_wall_gives_the_highest_finite_value():
    w = torch.zeros(2, dtype=torch.float64)

    def loss(p):
        return torch.where(p.sum() > 0.05, torch.inf, 1 + p.sum())

    for search in ("robust", "paper"):
        found = sharpness(loss, w, radius=0.1, search=search)
        assert found.nonfinite > 0
        assert 1.01 < found.peak <= 1.05
        assert math.isfinite(found.percent)
    json.dumps(sharpness(loss, w, radius=0.1).to_dict(), allow_nan=False)


def test_a_gradient_that_is_nan_at_the_point_falls_back_to_a_random_corner():
    w = torch.zeros(2, dtype=torch.float64)
    found = sharpness(lambda p: p.square().sum().sqrt(), w, radius=0.1)
    assert found.starts[0].name == "random corner"
    assert found.percent == pytest.approx(100 * 0.1 * 2**0.5, rel=1e-9)
    assert found.nonfinite == 1


def test_an_infinite_corner_is_skipped():
    w = torch.zeros(2, dtype=torch.float64)
    found = sharpness(lambda p: torch.where(p.min() > 0.09, torch.inf, 1 + p.sum()), w, radius=0.1)
    corner = next(s for s in found.starts if s.name == "corner")
    assert (corner.evaluations, corner.iterations) == (1, 0)
    assert math.isnan(corner.percent)
    assert found.to_dict()["starts"][found.starts.index(corner)]["percent"] is None


def test_agreement_is_zero_where_only_one_search_stayed_finite():
    w = torch.zeros(2, dtype=torch.float64)
    found = sharpness(lambda p: torch.where(p.abs().max() > 0.09, torch.inf, 1 + p.square().sum()), w, radius=0.1)
    assert [s.name for s in found.starts] == ["random corner", "sign ascent", "curvature"]
    assert found.percent > 0
    assert found.agreement == 0


def test_agreement_is_the_ratio_of_the_two_best_climbs():
    """A peak that only half steps meet: the other searches end in the corner, at 1.1 and 1.5 from a base of 1."""
    w = torch.zeros(1, dtype=torch.float64)
    found = sharpness(lambda p: (1 + p + 0.5 * torch.exp(-(((p - 0.05) / 0.003) ** 2))).sum(), w, radius=0.1)
    best, second, *_ = sorted((s.percent for s in found.starts), reverse=True)
    assert found.percent == best
    assert found.agreement == pytest.approx(second / best, rel=1e-12)
    assert found.agreement < 0.9


def test_a_random_corner_is_where_a_search_begins_and_not_where_it_ends():
    rng = torch.Generator().manual_seed(1)
    root = torch.randn(40, 40, dtype=torch.float64, generator=rng)
    found = sharpness(lambda p: (root @ p).square().sum(), torch.zeros(40, dtype=torch.float64))
    assert found.starts[0].name == "random corner"
    assert found.starts[0].iterations > 0
    assert found.starts[0].evaluations > 1


def test_tolerances_are_open():
    """A slope below scipy's gtol of 1e-5, and gains below its ftol of 2e-9, do not stop the published search."""
    w = torch.full((7,), 0.3, dtype=torch.float64)
    slope = sharpness(lambda p: 1e-6 * p.sum() + 0.1, w, search="paper")
    assert slope.percent == pytest.approx(100 * 1e-6 * 7 * 1.3e-3 / (1.1 + 2.1e-6), rel=1e-9)
    root = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    waves = sharpness(lambda p: 1e-10 * (torch.cos(root @ p * 3).sum() + 10), w, radius=1.0, search="paper")
    assert waves.starts[0].iterations == 10


def test_leaves_tensors_gradients_and_random_state_alone():
    w = {"a": torch.tensor([0.3, -0.7], requires_grad=True), "b": torch.nn.Parameter(torch.ones(2, 2))}
    w["a"].grad = torch.tensor([5.0, 6.0])
    before = {name: p.detach().clone() for name, p in w.items()}
    state = torch.get_rng_state()
    found = sharpness(lambda p: (p["a"] @ p["b"]).square().sum(), w)
    assert found.percent > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert w["a"].grad.tolist() == [5.0, 6.0]
    assert w["b"].grad is None
    assert all(torch.equal(p.detach(), before[name]) and p.requires_grad for name, p in w.items())


def test_the_seed_decides_the_result():
    rng = torch.Generator().manual_seed(3)
    root = torch.randn(40, 40, dtype=torch.float64, generator=rng)
    found = [
        sharpness(lambda p: (root @ p).square().sum(), torch.zeros(40, dtype=torch.float64), seed=s, iterations=1)
        for s in (0, 0, 1, 2)
    ]
    assert found[0].percent == found[1].percent
    assert len({f.percent for f in found}) > 1


def test_tells_of_every_evaluation_and_counts_them():
    heard = []
    found = sharpness(quadratic(CURVATURE, CENTRE), CENTRE + 0.3, listen=heard.append)
    assert [e.done for e in heard] == list(range(1, found.evaluations + 1))
    assert {(e.what, e.unit, e.total) for e in heard} == {("sharpness", "evaluations", None)}
    assert found.evaluations == 1 + sum(s.evaluations for s in found.starts)


class Measured:
    """A loss with the methods of the protocol; its gradient is known in closed form."""

    def __init__(self):
        self.calls = []

    def __call__(self, params):
        raise AssertionError("the methods must be used where they exist")

    def value(self, params):
        self.calls.append("value")
        return params["w"].square().sum().item()

    def value_and_grad(self, params):
        self.calls.append("value_and_grad")
        return params["w"].square().sum().item(), {"w": 2 * params["w"]}

    def score(self, params):
        raise AssertionError("accuracy is not asked for")

    def describe(self):
        return {"data": "train", "samples": 7, "batch_norm": "batch", "batch_size": 5}


def test_uses_the_methods_of_a_loss_function_and_names_what_it_measured():
    loss, w = Measured(), torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = sharpness(loss, {"w": w})
    assert loss.calls.count("value") == 2
    assert loss.calls.count("value_and_grad") == found.evaluations
    assert (found.data, found.samples, found.batch_norm, found.dtype) == ("train", 7, "batch", "float64")
    peak = (1 + 1e-3 * 2) ** 2 + (2 + 1e-3 * 3) ** 2
    assert found.percent == pytest.approx(100 * (peak - 5) / 6, rel=1e-12)
    sharpness(loss, {"w": w}, check=False)
    assert loss.calls.count("value") == 2


def test_weights_that_the_loss_does_not_use_have_no_gradient():
    w = {"used": torch.ones(2, dtype=torch.float64), "spare": torch.ones(3, dtype=torch.float64)}
    assert sharpness(lambda p: p["used"].sum(), w).peak == pytest.approx(2 * 1.002, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"radius": 0.0}, "radius is 0.0; give a positive number"),
        ({"radius": -1e-3}, "radius is -0.001; give a positive number"),
        ({"radius": math.nan}, "radius is nan; give a positive number"),
        ({"radius": 1e-16}, "radius is 1e-16, which float64 cannot resolve"),
        ({"iterations": 0}, "iterations is 0; give a whole number of at least 1"),
        ({"iterations": 2.5}, "iterations is 2.5; give a whole number"),
        ({"search": "quick"}, "search is 'quick'; choose one of robust, paper"),
        ({"params": {}}, "params holds no numbers"),
        ({"params": [1.0]}, "params is a list; give a dict"),
        ({"params": {"w": 1.0}}, r"params\['w'\] is a float; give tensors"),
        ({"params": torch.ones(2, dtype=torch.int64)}, r"params\['params'\] is torch.int64"),
        ({"params": torch.ones(2, dtype=torch.bfloat16)}, "which bfloat16 cannot resolve"),
        ({"params": torch.tensor([1.0, math.nan])}, "a weight that is not finite"),
        ({"loss": 3.0}, "loss is a float; give a function"),
        ({"loss": lambda p: p}, r"the loss returned torch.float64 of shape \(2,\)"),
        ({"loss": lambda p: 1.0}, "the loss returned float; it must return a floating scalar"),
        ({"loss": lambda p: p.detach().sum()}, "does not depend on params in a way torch can differentiate"),
        ({"loss": lambda p: p.sum() / 0}, "the loss is inf at params"),
        ({"loss": lambda p: p.sum() * math.nan}, "the loss is nan at params"),
        ({"loss": lambda p: p.sum() - 4}, "the loss is -2.0 at params; sharpness is relative to 1"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    arguments = {"loss": torch.sum, "params": torch.ones(2, dtype=torch.float64), **change}
    with pytest.raises(BadInput, match=sentence):
        sharpness(arguments.pop("loss"), arguments.pop("params"), **arguments)


def test_refuses_a_loss_that_is_not_deterministic():
    rng = torch.Generator().manual_seed(0)

    def noisy(p):
        return p.sum() * (1 + 1e-9 * torch.rand((), generator=rng, dtype=p.dtype))

    w = torch.ones(2, dtype=torch.float64)
    with pytest.raises(BadInput, match=r"agree but for rounding.*check=False"):
        sharpness(noisy, w)
    assert sharpness(noisy, w, check=False).percent > 0


def test_prints_small_numbers_and_says_what_a_zero_means():
    w = torch.tensor([1.0, 2.0], dtype=torch.float64)
    small = sharpness(lambda p: 1e-9 * p.square().sum(), w)
    assert f"{small.percent:.4g}" in str(small)
    assert "e-" in str(small).split("%", maxsplit=1)[0]
    flat = sharpness(lambda p: (p * 0).sum(), w)
    assert (flat.percent, flat.agreement, flat.share_at_bound) == (0, None, 0)
    assert "may not resolve the climb" in str(flat)
    assert json.loads(json.dumps(small.to_dict(), allow_nan=False))["starts"][0]["name"] == "point"
