# Oracles: closed forms on polynomials (the barrier of a double well, the triangle-weighted mean of a quartic's second
# derivative) and numbers counted by hand.
import json

import numpy as np
import pytest
import torch

from gengap.measures.landscape.path_summary import summarised
from gengap.measures.landscape.paths import interpolate

EIGHTHS = [i / 8 for i in range(-8, 17)]


def test_the_barrier_of_a_tilted_double_well():
    """L = 16 t^2 (1-t)^2 + 3 t + 1: the tilt is the line between the ends, the well adds 16/16 = 1 at t = 1/2."""
    found = summarised(EIGHTHS, [16 * t**2 * (1 - t) ** 2 + 3 * t + 1 for t in EIGHTHS])
    assert found.barrier == pytest.approx(1.0, rel=1e-12)
    assert found.barrier_at == 0.5
    assert "barrier 1 nats" in str(found)


def test_a_convex_path_has_no_barrier_and_beyond_the_ends_does_not_count():
    found = summarised(EIGHTHS, [(t - 0.3) ** 2 + 1 for t in EIGHTHS])
    assert found.barrier == 0
    assert found.barrier_at is None


def test_curvature_is_the_triangle_weighted_mean_of_the_second_derivative():
    """For t^4 the second difference at t with step h is 12 t^2 + 2 h^2; integrate 12 s^2 with the triangle instead."""
    step = 1 / 8
    found = summarised(EIGHTHS, [t**4 + 7 for t in EIGHTHS])
    for end, at in ((found.a, 0.0), (found.b, 1.0)):
        s = np.linspace(-step, step, 200_001)
        mean = np.trapezoid((step - np.abs(s)) / step**2 * 12 * (at + s) ** 2, s)
        assert end.step == step
        assert end.curvature == pytest.approx(mean, rel=1e-6)


def test_curvature_of_a_quadratic_loss_is_its_hessian_along_the_path():
    h = torch.diag(torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64))
    a, b = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    path = interpolate(lambda w: 0.5 * w @ h @ w + 1, a=a, b=b)
    for end in (path.summaries[0].a, path.summaries[0].b):
        assert end.curvature == pytest.approx(float((b - a) @ h @ (b - a)), rel=1e-10)


def test_where_the_loss_doubles_is_bracketed():
    """1 + t^2 doubles at distance 1 from 0; from 1, (1 + t^2) = 4 lies at t = sqrt(3) = 1.732 above and never below -1."""
    found = summarised(EIGHTHS, [1 + t**2 for t in EIGHTHS])
    assert found.a.doubles_above == (1.0, 1.125)
    assert found.a.doubles_below is None  # at -1 it is exactly twice, not above
    assert found.b.doubles_above == (0.625, 0.75)
    assert found.b.doubles_below is None
    near = summarised(EIGHTHS, [1e-4 + t**2 for t in EIGHTHS])
    assert near.a.doubles_above == (0.0, 0.125)
    assert near.a.doubles_below == (0.0, 0.125)


def test_what_is_not_defined_is_none():
    assert summarised([0.0, 0.5], [1.0, 2.0]).barrier is None
    gap = summarised([-0.5, 0.0, 0.5, 1.0, 1.5], [None, 1.0, None, 1.0, 3.0])
    assert gap.barrier is None
    assert "barrier unknown" in str(gap)
    assert (gap.a.curvature, gap.a.doubles_below, gap.a.doubles_above) == (None, None, None)
    assert gap.b.doubles_above == (0.0, 0.5)
    uneven = summarised([-1.0, 0.0, 0.5, 1.0], [1.0, 1.0, 1.0, -2.0])
    assert uneven.a.curvature is None
    assert uneven.b.curvature is None
    assert uneven.b.doubles_below is None
    assert summarised([0.0, 1.0], [None, 1.0]).a is None
    json.dumps(uneven.to_dict(), allow_nan=False)


def test_the_order_of_positions_does_not_matter():
    values = [t**3 + 2 for t in EIGHTHS]
    assert summarised(EIGHTHS[::-1], values[::-1]) == summarised(EIGHTHS, values)
