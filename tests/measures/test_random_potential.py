# Oracles: closed forms of the spread of linear and quadratic losses over the sphere; scipy's Kolmogorov-Smirnov test.
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.measures.random_potential import loss_against_distance

P = 12
SLOPE = torch.linspace(-1, 2, P, dtype=torch.float64)
CURVATURE = torch.linspace(-3, 3, P, dtype=torch.float64)  # traceless: no rise that all directions share
START = torch.linspace(2, 3, P, dtype=torch.float64)


def linear(w):
    return 5 + SLOPE @ (w - START)


def quadratic(w):
    return 5 + 0.5 * (CURVATURE * (w - START).square()).sum()


def test_a_linear_loss():
    found = loss_against_distance(linear, START, max_distance=3.0, draws=2000)
    factor = float(SLOPE.norm()) / math.sqrt(P)
    assert found.base == 5
    assert found.fit.stderr < 0.03
    assert abs(found.gamma - 1) < 5 * found.fit.stderr
    assert found.fit.factor == pytest.approx(factor, rel=0.08)
    assert found.fit.interval[0] < found.gamma < found.fit.interval[1]


def test_a_quadratic_loss():
    found = loss_against_distance(quadratic, START, max_distance=2.0, draws=2000)
    # the variance of v'Hv over the sphere is 2 (P tr H^2 - (tr H)^2) / (P^2 (P + 2))
    variance = 2 * float(CURVATURE.square().sum()) / (P * (P + 2))
    assert found.fit.stderr < 0.04
    assert abs(found.gamma - 2) < 5 * found.fit.stderr
    assert found.fit.factor == pytest.approx(0.5 * math.sqrt(variance), rel=0.08)


def test_places_are_uniform_in_distance_and_direction():
    places = []

    def watched(w):
        places.append((w - START).clone())
        return linear(w)

    found = loss_against_distance(watched, START, max_distance=2.0, draws=1000, check=False)
    away = torch.stack(places[1:])
    assert len(away) == 1000
    assert away.norm(dim=1).tolist() == pytest.approx(found.distances, rel=1e-12)
    assert stats.kstest(found.distances, stats.uniform(0, 2).cdf).pvalue > 1e-3
    unit = away / away.norm(dim=1, keepdim=True)
    # one coordinate of a uniform direction: (1 + v) / 2 is Beta((P - 1) / 2, (P - 1) / 2)
    beta = stats.beta((P - 1) / 2, (P - 1) / 2)
    for axis in range(P):
        assert stats.kstest((0.5 * (1 + unit[:, axis])).numpy(), beta.cdf).pvalue > 1e-4
    assert np.abs(np.corrcoef(unit.T) - np.eye(P)).max() < 0.17


def test_the_differences_are_those_of_the_loss():
    found = loss_against_distance(
        lambda w: (w - START).norm() ** 3 + SLOPE @ (w - START), START, max_distance=1.5, draws=60, bins=3
    )
    rest = np.array(found.differences) - np.array(found.distances) ** 3
    assert np.all(np.abs(rest) <= float(SLOPE.norm()) * np.array(found.distances))


def test_the_same_seed_gives_the_same_draws_and_leaves_the_generators():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    one, two = (loss_against_distance(linear, START, max_distance=1.0, draws=50, bins=4, seed=3) for _ in range(2))
    other = loss_against_distance(linear, START, max_distance=1.0, draws=50, bins=4, seed=4)
    assert (one.distances, one.differences, one.fit) == (two.distances, two.differences, two.fit)
    assert set(one.differences).isdisjoint(other.differences)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_a_network_and_a_part_of_its_weights():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=rng)
    data = x, (x.sum(1) > 0).long()
    problem = gengap.Problem(model=lambda: nn.Linear(3, 2), loss="cross_entropy", train=data, test=data, name="line")
    params = {name: p.detach() for name, p in problem.model(0).named_parameters()}
    kept = {name: p.clone() for name, p in params.items()}
    told = []
    found = loss_against_distance(
        problem.loss_function("train"), params, max_distance=0.01, draws=60, bins=3, only="bias", listen=told.append
    )
    assert found.conditions.weights == 2
    assert (found.conditions.data, found.conditions.samples) == ("train", 30)
    with torch.no_grad():
        logits = problem.model(0)(x).softmax(1).mean(0) - torch.stack([data[1] == 0, data[1] == 1]).float().mean(1)
    # so near, the loss is linear: along the steepest of 60 directions in a plane it changes by the gradient
    slopes = np.abs(found.differences) / found.distances
    assert slopes.max() == pytest.approx(float(logits.norm()), rel=0.02)
    assert [event.done for event in told] == list(range(1, 61))
    assert all(torch.equal(params[name], kept[name]) for name in kept)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["fit"]["gamma"], told["distances"]) == (found.gamma, list(found.distances))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_distance": 0.0}, "max_distance is 0.0; give a positive number"),
        ({"max_distance": math.inf}, "max_distance is inf"),
        ({"draws": 14}, "draws is 14; give a whole number of at least 15"),
        ({"draws": 30.0}, "draws is 30.0"),
        ({"about": "median"}, "about is 'median'"),
    ],
)
def test_refuses_with_a_sentence(options, sentence):
    with pytest.raises(BadInput, match=sentence):
        loss_against_distance(linear, START, **{"max_distance": 1.0, **options})


def test_losses_that_cannot_be_used():
    with pytest.raises(BadInput, match="the loss is inf at params"):
        loss_against_distance(lambda w: w.sum() / 0, START, max_distance=1.0)
    with pytest.raises(BadInput, match="are not finite; draw within a smaller distance"):
        loss_against_distance(lambda w: (w[0] - START[0] + 1e-9).log(), START, max_distance=1.0, draws=30)
    with pytest.raises(BadInput, match="the loss does not vary"):
        loss_against_distance(lambda w: 0 * w.sum() + 3, START, max_distance=1.0, draws=30, bins=3)
