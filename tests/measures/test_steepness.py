# Oracles: Hessians with a prescribed spectrum, the share of angles in the plane along which a quadratic rises, and
# scipy's Wilson interval. Sampled numbers are held to 5 of their standard errors.
import json
import math

import pytest
import torch
from scipy.stats import binomtest

from gengap.core.errors import BadInput
from gengap.core.estimate import mean
from gengap.measures.sharpness.steepness import binomial, steep_fraction, within_0_and_1

RNG = torch.Generator().manual_seed(0)
VALUES = torch.cat([torch.linspace(4, 10, 200), torch.linspace(-0.5, 0.5, 200)]).double()
BASIS = torch.linalg.qr(torch.randn(400, 400, dtype=torch.float64, generator=RNG))[0]
W = torch.randn(400, dtype=torch.float64, generator=RNG)


def rotated(p):
    """A quadratic with 200 of 400 steep dimensions, in no direction of the axes."""
    z = BASIS.T @ (p - W)
    return 1 + 0.5 * (VALUES * z * z).sum()


def test_counts_the_dimensions_above_the_threshold():
    found = steep_fraction(rotated, W, threshold=0.2, samples=24, steps=25)
    assert found.steepest == pytest.approx(10, rel=1e-3)
    assert abs(found.share.value - 0.5) < 5 * found.share.stderr
    assert found.share.stderr < 0.02 * 0.5
    effective = VALUES.mean().item() / 10
    assert abs(found.effective.value - effective) < 5 * found.effective.stderr
    assert found.effective.stderr < 0.02 * effective
    assert (found.share.n, found.cost, found.weights) == (24, 24 * 25, 400)


def test_a_higher_threshold_counts_fewer():
    share = [steep_fraction(rotated, W, threshold=t, samples=4, steps=30).share.value for t in (0.01, 0.2, 0.7, 1.0)]
    assert share == sorted(share, reverse=True)
    assert share[2] == pytest.approx(0.25, rel=0.2)  # 100 of 400


def test_in_the_plane_it_is_the_share_of_angles():
    """1/2 h r^2 cos^2(angle) >= t max holds for an angle share of (2 / pi) arccos(sqrt(t))."""
    w = torch.tensor([3.0, 4.0], dtype=torch.float64)
    for threshold in (0.2, 0.75):
        found = steep_fraction(
            lambda p: 0.5 * (p[0] - 3) ** 2, w, along="directions", threshold=threshold, samples=1500, radius=0.1
        )
        exact = 2 / math.pi * math.acos(math.sqrt(threshold))
        assert abs(found.share.value - exact) < 5 * found.share.stderr
        assert found.share.stderr < 0.02
        assert found.steepest == pytest.approx(0.5 * 0.5**2, rel=1e-4)
        assert abs(found.effective.value - 0.5) < 5 * found.effective.stderr
        assert found.share.method == "Wilson, 95 %"


def test_random_directions_in_many_dimensions_are_all_alike():
    """The same space that is steep in half of its dimensions is steep along all or none of the random directions."""
    low, high = (
        steep_fraction(rotated, W, along="directions", threshold=t, samples=50, radius=0.1) for t in (0.1, 0.8)
    )
    assert low.share.value == 1
    assert high.share.value == 0
    assert high.share.interval == (0, pytest.approx(0.0714, abs=1e-3))
    assert abs(low.effective.value - VALUES.mean().item() / 10) < 5 * low.effective.stderr


def test_the_interval_of_a_share_stays_a_share():
    """Of 0.1 and 0.3 Student's interval goes from -1.07 to 1.47."""
    found = within_0_and_1(mean([0.1, 0.3]))
    assert (found.value, found.interval) == (pytest.approx(0.2), (0.0, 1.0))
    assert "cut at 0 and 1" in found.method
    inside = mean([0.1, 0.11, 0.12])
    assert within_0_and_1(inside).interval == inside.interval


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 30), (7, 30), (30, 30), (1, 1000)])
def test_the_interval_is_wilsons(successes, n):
    found, theirs = binomial(successes, n), binomtest(successes, n).proportion_ci(method="wilson")
    assert found.interval == (pytest.approx(theirs.low, abs=1e-12), pytest.approx(theirs.high, abs=1e-12))
    assert found.value == successes / n


def test_the_space_may_be_that_of_some_weights():
    tree = {"a": W[:5], "b": W[5:8]}

    def loss(p):
        return ((p["a"] - W[:5]) ** 2).sum() + 0.01 * ((p["b"] - W[5:8]) ** 2).sum()

    assert steep_fraction(loss, tree).share.value == pytest.approx(5 / 8, rel=0.5)
    assert steep_fraction(loss, tree, only="a").share.value == pytest.approx(1, rel=1e-9)
    assert steep_fraction(loss, tree, only="b").weights == 3


@pytest.mark.parametrize("along", ["curvature", "directions"])
def test_says_what_it_did(along):
    heard = []
    found = steep_fraction(rotated, W, along=along, samples=5, steps=4, listen=heard.append)
    assert len(heard) == found.cost
    assert ("dimensions" if along == "curvature" else "random directions") in str(found)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (written["along"], written["threshold"], written["share"]["n"]) == (along, 0.1, 5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"along": "axes"}, "along is 'axes'; choose one of curvature, directions"),
        ({"threshold": 0.0}, "threshold is 0.0; give a positive number"),
        ({"threshold": 1.5}, "threshold is 1.5; it is relative to the steepest"),
        ({"radius": -1.0}, "radius is -1.0; give a positive number"),
        ({"samples": 1}, "samples is 1; give a whole number of at least 2"),
        ({"steps": 1}, "steps is 1; give a whole number of at least 2"),
        ({"loss": lambda p: -p.square().sum()}, "the largest curvature is -.*the loss rises nowhere"),
        ({"params": W * 0, "along": "directions"}, "all weights are zero, and radius is relative to their norm"),
        ({"loss": lambda p: 0 * p.sum() + 1, "along": "directions"}, "no point of the ball is higher than its centre"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    arguments = {"loss": rotated, "params": W, **change}
    with pytest.raises(BadInput, match=sentence):
        steep_fraction(arguments.pop("loss"), arguments.pop("params"), **arguments)
