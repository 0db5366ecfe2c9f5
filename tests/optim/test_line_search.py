"""Line searches and what is built on them.

Oracles: the conditions themselves, checked with functions written as formulas; scipy's Rosenbrock function and its gradient;
torch's own L-BFGS.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import rosen, rosen_der
from torch import nn

from gengap.core.errors import BadInput
from gengap.optim.full_batch import FullBatchGradientDescent
from gengap.optim.lbfgs import Lbfgs
from gengap.optim.line_search import Trial, armijo, strong_wolfe

# (function, derivative) on a line, with f'(0) < 0
LINES = {
    "parabola": (lambda t: (t - 1) ** 2, lambda t: 2 * (t - 1)),
    "flat far away": (lambda t: -t / (t**2 + 2), lambda t: (t**2 - 2) / (t**2 + 2) ** 2),
    "quartic": (
        lambda t: (t + 0.05) ** 5 - 2 * (t + 0.05) ** 4,
        lambda t: 5 * (t + 0.05) ** 4 - 8 * (t + 0.05) ** 3,
    ),
    "wavy": (lambda t: 0.05 * t**2 - 2 * t + 0.5 * math.sin(3 * t), lambda t: 0.1 * t - 2 + 1.5 * math.cos(3 * t)),
    "wall": (lambda t: -t if t < 2 else math.inf, lambda t: -1.0 if t < 2 else math.nan),
}


def line_of(name):
    value, slope = LINES[name]
    return lambda t: Trial(t, value(t), slope(t))


@pytest.mark.parametrize("name", LINES)
def test_lines_have_their_derivatives(name):
    value, slope = LINES[name]
    for t in (0.0, 0.3, 1.7):
        assert slope(t) == pytest.approx((value(t + 1e-6) - value(t - 1e-6)) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("step", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("curvature", [0.1, 0.9])
@pytest.mark.parametrize("name", [name for name in LINES if name != "wall"])
def test_strong_wolfe_conditions_hold(name, curvature, step):
    line = line_of(name)
    start, calls = line(0.0), []

    def counted(t):
        calls.append(t)
        return line(t)

    found = strong_wolfe(counted, start, step, decrease=1e-4, curvature=curvature, most=60)
    value, slope = LINES[name]
    t = found.trial.step
    assert found.satisfied
    assert t > 0
    assert value(t) <= value(0) + 1e-4 * t * slope(0)
    assert abs(slope(t)) <= curvature * abs(slope(0))
    assert found.evaluations == len(calls)
    assert len(set(calls)) == len(calls)


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", LINES)
def test_armijo_condition_holds(name, step):
    value, slope = LINES[name]
    found = armijo(line_of(name), line_of(name)(0.0), step)
    assert found.satisfied
    assert 0 < found.trial.step <= step
    assert value(found.trial.step) <= value(0) + 1e-4 * found.trial.step * slope(0)


def test_armijo_goes_to_the_lowest_point_of_a_parabola():
    assert armijo(line_of("parabola"), line_of("parabola")(0.0), 5.0).trial.step == pytest.approx(1.0)


def test_strong_wolfe_before_a_wall_keeps_the_lowest_finite_point():
    found = strong_wolfe(line_of("wall"), line_of("wall")(0.0), 1.0, most=12)
    assert not found.satisfied
    assert 1.9 < found.trial.step < 2
    assert found.evaluations <= 12


@pytest.mark.parametrize("search", [armijo, strong_wolfe])
def test_no_lower_point(search):
    start = Trial(0.0, 0.0, -1e-3)
    found = search(lambda t: Trial(t, t, 1.0), start, 1.0, most=7)
    assert found.trial == start
    assert not found.satisfied
    assert found.evaluations == 7


@pytest.mark.parametrize("search", [armijo, strong_wolfe])
@pytest.mark.parametrize(("slope", "step"), [(0.0, 1.0), (1.0, 1.0), (math.nan, 1.0), (-1.0, 0.0), (-1.0, math.inf)])
def test_lines_that_do_not_go_down_are_refused(search, slope, step):
    with pytest.raises(BadInput):
        search(line_of("parabola"), Trial(0.0, 1.0, slope), step)


@pytest.mark.parametrize("wrong", [{"decrease": 0.95}, {"decrease": 0.0}, {"curvature": 1.0}])
def test_wolfe_constants_out_of_order_are_refused(wrong):
    with pytest.raises(BadInput, match="in order"):
        strong_wolfe(line_of("parabola"), Trial(0.0, 1.0, -2.0), 1.0, **wrong)


class Rosenbrock:
    """scipy's function in several tensors, with its gradient; counts calls."""

    def __init__(self, start=(-1.2, 1.0, 0.8), dtype=torch.float64):
        self.weights = [nn.Parameter(torch.tensor(part, dtype=dtype)) for part in (start[:1], start[1:])]
        self.calls = []

    def flat(self):
        return torch.cat([p.detach() for p in self.weights]).double().numpy()

    def __call__(self):
        x = self.flat()
        self.calls.append(x)
        slope = torch.tensor(rosen_der(x), dtype=self.weights[0].dtype)
        self.weights[0].grad, self.weights[1].grad = slope[:1].clone(), slope[1:].clone()
        return torch.tensor(rosen(x), dtype=self.weights[0].dtype)


@pytest.mark.parametrize("search", ["strong-wolfe", "armijo"])
def test_descent_goes_down_along_the_gradient_in_every_step(search):
    f = Rosenbrock()
    optimizer = FullBatchGradientDescent(f.weights, lr=1e-3, line_search=search)
    for _ in range(40):
        before = f.flat()
        assert float(optimizer.step(f)) == rosen(before)
        after = f.flat()
        assert rosen(after) < rosen(before)
        move, slope = after - before, rosen_der(before)
        assert move @ slope / np.linalg.norm(move) / np.linalg.norm(slope) == pytest.approx(-1, abs=1e-9)
        assert rosen(after) <= rosen(before) + 1e-4 * (move @ slope) * (1 - 1e-9)
        if search == "strong-wolfe":
            assert abs(move @ rosen_der(after)) <= 0.9 * abs(move @ slope) * (1 + 1e-9)
    assert optimizer.state[f.weights[0]]["evaluations"] == len(f.calls)
    assert len(f.calls) < 40 * 4


def test_first_call_is_at_the_start_and_the_last_weights_are_one_of_the_trials():
    f = Rosenbrock()
    start = f.flat()
    FullBatchGradientDescent(f.weights, lr=1e-3).step(f)
    assert np.array_equal(f.calls[0], start)
    assert any(np.array_equal(f.flat(), x) for x in f.calls[1:])


def test_the_first_trial_of_a_step_is_twice_the_last_factor_taken():
    """On a slope without end Armijo takes every first trial: 1, 2, 4, 8 times the rate."""
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = FullBatchGradientDescent([w], lr=0.1, line_search="armijo")

    def closure():
        w.grad = torch.full_like(w, -1.0)
        return -w.detach().sum()

    places = [0.0]
    for _ in range(4):
        optimizer.step(closure)
        places.append(w.item())
    assert [b - a for a, b in pairwise(places)] == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_rates_of_groups_scale_their_directions():
    f = Rosenbrock()
    before, slope = f.flat(), rosen_der(f.flat())
    groups = [{"params": f.weights[:1], "lr": 1e-3}, {"params": f.weights[1:], "lr": 4e-3}]
    FullBatchGradientDescent(groups).step(f)
    ratio = (f.flat() - before) / -slope
    assert ratio[1] / ratio[0] == pytest.approx(4)
    assert ratio[2] / ratio[1] == pytest.approx(1)


@pytest.mark.parametrize("search", ["strong-wolfe", "armijo"])
def test_a_minimum_and_a_loss_that_is_not_finite_leave_the_weights(search):
    minimum = Rosenbrock((1.0, 1.0, 1.0))
    FullBatchGradientDescent(minimum.weights, line_search=search).step(minimum)
    assert (minimum.flat() == 1).all()
    lost = Rosenbrock((math.nan, 1.0, 1.0))
    assert not FullBatchGradientDescent(lost.weights, line_search=search).step(lost).isfinite()
    assert lost.flat()[1] == 1
    assert len(minimum.calls) == len(lost.calls) == 1


def test_a_point_where_the_dtype_resolves_nothing_lower_is_kept():
    f = Rosenbrock((-0.5, 0.3, 0.8), torch.float32)
    optimizer = FullBatchGradientDescent(f.weights, lr=1e-3)
    losses = [float(optimizer.step(f)) for _ in range(40)]
    assert all(b <= a for a, b in pairwise(losses))


def test_lbfgs_is_torchs():
    ours, theirs = Rosenbrock(), Rosenbrock()
    mine = Lbfgs([{"params": [w]} for w in ours.weights], max_iter=4, history_size=5)
    other = torch.optim.LBFGS(theirs.weights, lr=1.0, max_iter=4, history_size=5, line_search_fn="strong_wolfe")
    for _ in range(20):
        assert torch.equal(mine.step(ours), other.step(theirs))
    assert np.array_equal(ours.flat(), theirs.flat())
    assert len(ours.calls) == len(theirs.calls)
    assert rosen(ours.flat()) < 1e-3


def test_lbfgs_state_is_plain_and_small():
    f = Rosenbrock()
    optimizer = Lbfgs(f.weights, max_iter=7, history_size=3)
    assert optimizer.state_dict()["state"] == {}
    optimizer.step(f)
    memory = optimizer.state_dict()["state"][0]
    assert all(isinstance(value, (int, float, torch.Tensor)) for value in memory.values())
    assert memory["old_dirs"].shape == (3, 3)


def test_lbfgs_refuses_what_it_cannot_do():
    f = Rosenbrock()
    optimizer = Lbfgs([{"params": f.weights[:1]}, {"params": f.weights[1:], "lr": 0.5}])
    with pytest.raises(BadInput, match="one learning rate"):
        optimizer.step(f)
    with pytest.raises(BadInput, match="new weights"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
