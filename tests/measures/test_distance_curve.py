# Oracles: trajectories whose distance is known by construction; numpy's polyfit; runs of gengap.train against numpy.
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.measures.diffusion import DistanceFollower, distance_curve
from gengap.measures.distance import distance
from gengap.training.snapshots import Probe, SnapshotFolder

STEPS = np.unique(np.round(np.geomspace(1, 3000, 40))).astype(int).tolist()


def moment(step, way, start=(3.0, 0.0, 0.0)):
    """Weights in two tensors, at a place relative to the start."""
    begin = torch.tensor(start, dtype=torch.float64)
    end = begin + torch.tensor(way, dtype=torch.float64)
    return SimpleNamespace(
        step=step,
        params={"a": end[:1].clone(), "b": end[1:].clone()},
        initial_params={"a": begin[:1], "b": begin[1:]},
    )


def walk(law, scatter=0.0, seed=0):
    """Moments along the second axis at the distances of a law."""
    rng = np.random.default_rng(seed)
    return [moment(t, (0.0, law(t) + scatter * rng.standard_normal(), 0.0)) for t in STEPS]


def test_every_column_of_a_known_way():
    ways = [(0, 0, 0), (0, 4, 0), (0, 4, 3), (0, 8, 6), (0, 4, 3), (-3, 0, 0)]
    curve = distance_curve([moment(t, way) for t, way in enumerate(ways)])
    assert curve.steps == (0, 1, 2, 3, 4, 5)
    assert curve.distances == (0, 4, 5, 10, 5, 3)
    assert curve.norms == pytest.approx([3, 5, math.sqrt(34), math.sqrt(109), math.sqrt(34), 0])
    fall = math.degrees(math.acos(3 / math.sqrt(34)))
    expected = [0, math.degrees(math.atan2(4, 3)), fall, math.degrees(math.acos(3 / math.sqrt(109))), fall]
    assert curve.angles[:-1] == pytest.approx(expected)
    assert curve.angles[-1] is None
    assert curve.turns[:2] == (None, None)
    back = math.degrees(math.acos(-25 / (5 * math.sqrt(34))))
    assert curve.turns[2:] == pytest.approx([90, 0, 180, back])
    assert curve.per_layer == {"a": (0, 0, 0, 0, 0, 3), "b": (0, 4, 5, 10, 5, 0)}


@pytest.mark.parametrize(
    ("law", "verdict"),
    [
        (lambda t: 2 * math.log(t) + 1, "log law"),
        (lambda t: 0.5 * t**0.3, "power law"),
        (lambda t: 2 + 3 * math.sqrt(t), "neither"),
    ],
)
def test_names_the_law(law, verdict):
    curve = distance_curve(walk(law, scatter=0.03))
    assert curve.laws.verdict == verdict
    slope, intercept = np.polyfit(np.log(curve.steps), curve.distances, 1)
    assert curve.log_fit.slope.value == pytest.approx(slope, rel=1e-10)
    assert curve.log_fit.intercept.value == pytest.approx(intercept, rel=1e-8)
    assert curve.log_fit.bootstrap_interval[0] < slope < curve.log_fit.bootstrap_interval[1]


def test_fits_a_part_of_the_run():
    moments = walk(lambda t: 2 * math.log(t) if t <= 400 else 2 * math.log(400) + 0.01 * (t - 400))
    curve = distance_curve(moments, fit_from=3, fit_until=400)
    assert curve.log_fit.slope.value == pytest.approx(2, rel=1e-12)
    assert curve.fitted == (3, max(t for t in STEPS if t <= 400))
    assert curve.log_fit.n == sum(3 <= t <= 400 for t in STEPS)
    assert distance_curve(moments).log_fit.slope.value > 2.5


def test_few_moments_are_an_answer():
    curve = distance_curve([moment(0, (0, 0, 0)), moment(1, (0, 1, 0))])
    assert curve.log_fit is None
    assert curve.laws.verdict == "too few points"
    assert json.loads(json.dumps(curve.to_dict(), allow_nan=False))["distances"] == [0, 1]
    assert "too few points" in str(curve)


def test_only_some_weights():
    curve = distance_curve([moment(1, (3, 4, 0)), moment(2, (3, 0, 0))], only="b")
    assert curve.distances == (4, 0)
    assert list(curve.per_layer) == ["b"]


@pytest.fixture(scope="module")
def task():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=rng)
    data = x, (x.sum(1) > 0).long()
    problem = gengap.Problem(model=lambda: nn.Linear(3, 2), loss="cross_entropy", train=data, test=data, name="line")
    return problem, gengap.Recipe(lr=0.5, batch_size=16, budget={"steps": 200})


def test_following_a_run_equals_reading_its_snapshots(task, tmp_path):
    folder, follower, seen = SnapshotFolder(tmp_path), DistanceFollower(), []

    def all_three(shot):
        folder(shot)
        follower(shot)
        seen.append(shot)

    run = gengap.train(*task, probe=Probe(all_three, count=12))
    curve = distance_curve(folder)
    assert curve == follower.curve() == distance_curve(seen)
    assert curve.distances[-1] == distance(run).from_init
    flat = [np.concatenate([p.double().numpy().ravel() for p in shot.params.values()]) for shot in seen]
    assert curve.distances == pytest.approx([float(np.linalg.norm(w - flat[0])) for w in flat], rel=1e-13)


def test_refuses_with_a_sentence():
    with pytest.raises(BadInput, match="there is no moment to make a curve of"):
        distance_curve([])
    with pytest.raises(
        BadInput, match=r"a moment is a tuple, which has no 'step'; give snapshots, or objects with step"
    ):
        distance_curve([(1, {"a": torch.ones(2)}, {"a": torch.zeros(2)})])
    with pytest.raises(BadInput, match="a moment is a str"):
        distance_curve("run")
    with pytest.raises(BadInput, match="update 3 comes after update 5; give the moments of one run in their order"):
        distance_curve([moment(5, (0, 0, 0)), moment(3, (0, 0, 0))])
    with pytest.raises(BadInput, match="fit_from is 0"):
        distance_curve([moment(5, (0, 0, 0))], fit_from=0)
    with pytest.raises(BadInput, match="only holds 'c'"):
        distance_curve([moment(5, (0, 0, 0))], only="c")
