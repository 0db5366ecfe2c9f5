# Oracles: Pythagorean triples, exact rational arithmetic (fractions) for the sums, and angles in a plane.
import json
import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

from gengap.core.errors import BadInput
from gengap.measures.distance import displacement_angle, distance, distance_ratio

START = {"a": torch.tensor([[3.0, 0.0], [0.0, 4.0]]), "b": torch.tensor([12.0])}
END = {"a": torch.tensor([[3.0, 3.0], [4.0, 4.0]]), "b": torch.tensor([24.0])}


def test_distance_in_all_and_by_layer():
    found = distance(END, START)
    assert found.per_layer == {"a": 5.0, "b": 12.0}
    assert found.from_init == 13.0
    assert found.relative == 1.0
    assert found.norm == pytest.approx(math.sqrt(9 + 9 + 16 + 16 + 576), rel=1e-15)
    assert (found.bound, found.dtype) == ("exact", "float32")


def test_a_run_knows_both_ends():
    run = SimpleNamespace(params=END, initial_params=START)
    assert distance(run) == distance(END, START)


def test_sums_in_float64_whatever_the_weights_are():
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, generator=rng)
    end = 1e-4 * torch.randn(20_000, generator=rng)
    exact = sum(
        ((Fraction(p) - Fraction(q)) ** 2 for p, q in zip(end.tolist(), start.tolist(), strict=True)), Fraction(0)
    )
    assert distance(end, start).from_init == pytest.approx(math.sqrt(exact), rel=1e-13)


def test_order_of_names_and_gradients_do_not_matter():
    swapped = {"b": START["b"], "a": START["a"].clone().requires_grad_()}
    assert distance(END, swapped) == distance(END, START)


def test_a_start_at_zero_has_no_relative_distance():
    found = distance(END, {name: torch.zeros_like(p) for name, p in END.items()})
    assert (found.relative, found.growth, found.angle) == (None, None, None)
    assert found.from_init == found.norm
    assert "norm" in str(found)


def test_the_record_is_json():
    told = json.loads(json.dumps(distance(END, START).to_dict(), allow_nan=False))
    assert (told["from_init"], told["relative"], told["per_layer"]["b"]) == (13.0, 1.0, 12.0)
    broken = distance({"a": torch.tensor([math.nan])}, {"a": torch.ones(1)}).to_dict()
    assert (broken["from_init"], broken["relative"], broken["per_layer"]["a"]) == (None, None, None)


def test_ratio_of_small_over_large():
    far = distance(torch.full((4,), 3.0), torch.zeros(4))
    near = distance(torch.full((4,), 1.5), torch.zeros(4))
    assert distance_ratio(far, near) == 2.0
    with pytest.raises(BadInput, match="did not move"):
        distance_ratio(far, distance(END, END))


ANGLES = [0, 1e-7, 1, 45, 90, 179.9999999, 180]


@pytest.mark.parametrize("degrees", ANGLES)
def test_angle_and_growth_in_a_plane(degrees):
    turn = math.radians(degrees)
    start = {"a": torch.tensor([3.0], dtype=torch.float64), "b": torch.tensor([0.0, 0.0], dtype=torch.float64)}
    end = {
        "a": 5 * torch.tensor([math.cos(turn)], dtype=torch.float64),
        "b": 5 * torch.tensor([0.0, math.sin(turn)], dtype=torch.float64),
    }
    found = distance(end, start)
    assert found.angle == pytest.approx(degrees, rel=1e-8, abs=1e-12)
    assert found.growth == pytest.approx(5 / 3, rel=1e-15)
    assert found.from_init == pytest.approx(math.sqrt(25 + 9 - 30 * math.cos(turn)), rel=1e-14)


def test_ways_of_two_runs():
    first = SimpleNamespace(params=torch.tensor([2.0, 5.0]), initial_params=torch.tensor([2.0, 1.0]))
    second = SimpleNamespace(params=torch.tensor([4.0, 4.0]), initial_params=torch.tensor([1.0, 1.0]))
    assert displacement_angle(first, second) == pytest.approx(45, rel=1e-14)
    assert displacement_angle(second, second) == 0
    still = SimpleNamespace(params=first.params, initial_params=first.params)
    assert displacement_angle(first, still) is None
    with pytest.raises(BadInput, match="first and second are not of one network"):
        displacement_angle(first, SimpleNamespace(params=END, initial_params=START))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((END,), "initial is missing"),
        ((END, {"a": START["a"]}), "params and initial are not of one network: 'b'"),
        ((END, {**START, "b": torch.ones(2)}), r"params\['b'\] has shape \(1,\) and initial\['b'\] has \(2,\)"),
        ((SimpleNamespace(params=END, initial_params=START), START), "initial was given beside a run"),
        (({}, {}), "params holds no numbers"),
    ],
)
def test_refuses_with_a_sentence(arguments, sentence):
    with pytest.raises(BadInput, match=sentence):
        distance(*arguments)
