# Oracles: formulas of the box and of single ascent steps worked out by hand; linear functions, whose highest point in a box
# is the corner along their slope; convex quadratics of few weights, all of whose corners are counted through.
import itertools

import numpy as np
import pytest
import torch

from gengap.core.events import silent
from gengap.measures.protocols import Plain
from gengap.measures.sharpness.box_search import Box, Negative, Trail, quasi_newton, search_box, sign_ascent, tie_broken
from gengap.measures.sharpness.surface import Surface
from gengap.measures.trees import fill, flatten

ZERO = np.zeros(3)


def surface(function, size=3, dtype=torch.float64):
    return Surface(Plain(lambda p: function(p["w"])), {"w": torch.zeros(size, dtype=dtype)}, silent)


def test_the_box_is_relative_to_the_weight_plus_one():
    box = Box.around(np.array([0.0, 3.0, -1.0]), 0.1)
    assert box.upper == pytest.approx([0.1, 3.4, -0.8], abs=1e-15)
    assert box.lower == pytest.approx([-0.1, 2.6, -1.2], abs=1e-15)
    assert box.corner(np.array([1.0, -1.0, 1.0])) == pytest.approx([0.1, 2.6, -0.8], abs=1e-15)


def test_share_at_bound_counts_both_faces():
    box = Box.around(np.zeros(4), 0.1)
    assert box.share_at_bound(np.array([0.1, -0.1, 0.05, 0.0])) == 0.5
    assert box.share_at_bound(box.centre) == 0


def test_ties_are_broken_at_random_and_nothing_else_is():
    gradient = np.concatenate([[3.0, -1e-300, np.inf, -np.inf], np.zeros(500), [np.nan] * 500])
    signs = tie_broken(gradient, np.random.default_rng(0))
    assert signs[:4].tolist() == [1, -1, 1, -1]
    assert set(signs[4:]) == {-1.0, 1.0}
    assert abs(signs[4:504].mean()) < 5 / 500**0.5
    assert abs(signs[504:].mean()) < 5 / 500**0.5


def test_ascent_steps_by_half_the_box_and_stops_in_the_corner():
    seen = []

    def slope(w):
        seen.append(w.detach().tolist())
        return w @ torch.tensor([1.0, -2.0, 4.0], dtype=w.dtype)

    on, box = surface(slope), Box.around(ZERO, 0.1)
    found = sign_ascent(Trail(on, box, "a"), box, ZERO, on.at(ZERO), np.random.default_rng(0), steps=10)
    assert seen == [[0, 0, 0], [0.05, -0.05, 0.05], [0.1, -0.1, 0.1]]
    assert (found.iterations, found.evaluations, found.share_at_bound) == (2, 2, 1.0)
    assert found.peak == pytest.approx(0.7, rel=1e-15)


def test_ascent_steps_back_from_a_cliff():
    on, box = surface(lambda w: torch.where(w.sum() > 0.2, torch.nan, w.sum())), Box.around(ZERO, 0.1)
    found = sign_ascent(Trail(on, box, "a"), box, ZERO, on.at(ZERO), np.random.default_rng(0), steps=10)
    assert on.nonfinite > 0
    assert 0.18 < found.peak <= 0.2


def test_quasi_newton_does_not_ask_again_for_its_start():
    seen = []
    on, box = surface(lambda w: (seen.append(w.detach().tolist()), w.sum())[1]), Box.around(ZERO, 0.1)
    first = on.at(ZERO)
    found = quasi_newton(Trail(on, box, "q"), box, ZERO, first, scale=1.0, iterations=10)
    assert on.evaluations == 1 + found.evaluations == len(seen)
    assert seen.count([0, 0, 0]) == 1
    assert found.peak == pytest.approx(0.3, rel=1e-15)
    assert found.share_at_bound == 1


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_decides_how_far_a_steep_or_flat_slope_moves(scale):
    """A slope of 1e-30 divided by itself crosses the box; left alone it moves by 1e-30."""
    on, box = surface(lambda w: w.square().sum() + 1e-30 * w.sum()), Box.around(ZERO, 0.1)
    found = quasi_newton(Trail(on, box, "q"), box, ZERO, on.at(ZERO), scale=scale, iterations=1)
    assert (found.peak > 0.02) == (scale == 1e-30)


@pytest.mark.parametrize("scale", [0.5, 1.0, 20.0])
def test_what_is_minimised_is_consistent_with_its_gradient(scale):
    """Central differences of the scaled negative loss."""
    on, box, at = surface(lambda w: (w**3 + torch.sin(w)).sum()), Box.around(ZERO, 1.0), np.array([0.1, -0.4, 0.7])
    negative = Negative(Trail(on, box, "n"), box, scale, on.at(ZERO))
    negative(ZERO)
    value, gradient = negative(at)
    assert value == pytest.approx(-(at**3 + np.sin(at)).sum() / scale, rel=1e-14)
    for i, h in enumerate(np.eye(3) * 1e-5):
        assert gradient[i] == pytest.approx((negative(at + h)[0] - negative(at - h)[0]) / 2e-5, rel=1e-7)


def test_a_wall_stands_as_high_as_the_last_slope_could_drop_across_the_box():
    on, box = surface(lambda w: torch.where(w[0] > 0.5, torch.inf, (w**2).sum())), Box.around(ZERO, 1.0)
    negative = Negative(Trail(on, box, "n"), box, 4.0, on.at(ZERO))
    negative(ZERO)
    assert negative(np.array([0.1, -0.4, 0.2]))[0] == pytest.approx(-0.21 / 4, rel=1e-14)
    value, gradient = negative(np.array([0.6, 0.0, 0.0]))
    assert value == pytest.approx((2 * (0.2 + 0.8 + 0.4) - 0.21) / 4, rel=1e-14)
    assert not gradient.any()


def test_iterations_are_bounded_and_all_points_lie_in_the_box():
    seen = []

    def wavy(w):
        seen.append(w.detach().numpy().copy())
        return torch.sin(20 * w).sum() + (w[0] * w[1] * 30)

    on, box = surface(wavy), Box.around(np.array([0.4, -0.3, 0.0]), 0.5)
    first = on.at(box.centre)
    found = quasi_newton(Trail(on, box, "q"), box, box.centre, first, scale=1.0, iterations=3)
    sign_ascent(Trail(on, box, "a"), box, box.centre, first, np.random.default_rng(0), steps=4)
    assert found.iterations <= 3
    assert all(np.all((box.lower <= x) & (x <= box.upper)) for x in seen)


def quadratic(size, slope, seed):
    """A convex quadratic with curvatures over three decades at a random angle, and its box of uneven widths."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0]
    curved = turn * 10.0 ** rng.uniform(-3, 0, size) @ turn.T
    tilted, half = slope * rng.normal(size=size), 0.1 * (1 + rng.exponential(size=size))
    matrix, along = torch.from_numpy(curved), torch.from_numpy(tilted)
    on = surface(lambda w: 0.5 * w @ matrix @ w + along @ w, size)
    return on, Box.within(np.zeros(size), half), lambda z: 0.5 * z @ curved @ z + tilted @ z


@pytest.mark.parametrize("slope", [0.0, 1e-3, 3e-2], ids=["at a minimum", "near one", "on a slope"])
def test_the_highest_corner_of_few_weights_is_found(slope):
    """The maximum of a convex function is in a corner. Searches that follow the slope alone miss it by up to three quarters."""
    missed = []
    for seed in range(45):
        size = 2 + seed % 9
        on, box, climb = quadratic(size, slope, seed)
        highest = max(climb(box.upper * signs) for signs in itertools.product((-1, 1), repeat=size))
        found = search_box(on, box, on.at(box.centre), "robust", iterations=10, seed=seed)
        by_name = {one.name: one for one in found}
        assert by_name["curvature"].peak == pytest.approx(highest, rel=1e-9)
        assert by_name["curvature"].evaluations <= size + 3
        missed.append(1 - max(one.peak for one in found if one.name != "curvature") / highest)
    assert max(missed) > 0.3  # what it is for


def test_many_weights_begin_where_the_curvature_is_largest():
    """One eigenvalue stands out, and its vector's corner is the highest; without a slope to follow the others miss it."""
    size, rng = 200, np.random.default_rng(0)
    vector = rng.normal(size=size)
    line = torch.from_numpy(vector)
    on, box = surface(lambda w: (line @ w).square() + 1e-3 * w.square().sum(), size), Box.around(np.zeros(size), 0.1)
    found = search_box(on, box, on.at(box.centre), "robust", iterations=10, seed=0)
    one = next(f for f in found if f.name == "curvature")
    assert one.peak == pytest.approx((0.1 * np.abs(vector).sum()) ** 2 + 1e-3 * size * 0.01, rel=1e-12)
    assert one.evaluations <= 12


def test_large_boxes_follow_the_slope_alone():
    on, box = surface(lambda w: w.square().sum() + w.sum(), 1001), Box.around(np.zeros(1001), 0.1)
    found = search_box(on, box, on.at(box.centre), "robust", iterations=2, seed=0)
    assert [f.name for f in found] == ["point", "corner", "sign ascent"]


def test_the_curvature_is_left_alone_where_the_loss_is_not_finite_on_the_way():
    for size in (3, 40):
        on = surface(lambda w: torch.where(w.abs().max() > 0.09, torch.inf, w.sum()), size)
        box = Box.around(np.zeros(size), 0.1)
        found = search_box(on, box, on.at(box.centre), "robust", iterations=3, seed=0)
        one = next(f for f in found if f.name == "curvature")
        assert (one.peak, one.iterations, one.evaluations) == (0.0, 0, 1)


def test_a_scale_exists_only_where_the_loss_can_be_divided_by_it():
    assert surface(lambda w: w @ torch.tensor([1.0, -7.0, 2.0], dtype=w.dtype)).at(ZERO).scale == 7
    assert surface(lambda w: 1e-200 * w.sum()).at(ZERO).scale is None
    assert surface(lambda w: (0 * w).sum()).at(ZERO).scale is None
    assert surface(lambda w: w.sum() * torch.inf).at(np.ones(3)).scale is None


def test_a_vector_goes_into_the_tensors_and_back():
    tree = {
        "b": torch.zeros(2, 3, dtype=torch.float32),
        "a": torch.zeros((), dtype=torch.float64),
        "none": torch.zeros(0),
    }
    vector = np.arange(7.0) / 3
    fill(tree, vector)
    assert tree["b"][1, 0].item() == np.float32(1.0)
    assert tree["a"].item() == 2.0
    assert flatten(tree) == pytest.approx(np.append(vector[:6].astype(np.float32), 2.0), abs=0)
