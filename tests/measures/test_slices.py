# Oracles: filter norms in explicit loops; a quadratic and its eigenvectors (numpy) in closed form.
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from gengap.core.errors import BadInput
from gengap.measures.landscape.slices import slice_1d, slice_2d

RNG = torch.Generator().manual_seed(11)


def network():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.LayerNorm(4)
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=RNG, dtype=torch.float64))
    return model.eval()


MODEL = network()
INPUTS = torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=RNG)
PARAMS = {name: p.detach().clone() for name, p in MODEL.named_parameters()}


def loss(params):
    return functional_call(MODEL, params, (INPUTS,)).square().mean()


def by_hand(t, direction):
    moved = {name: p + t * direction[name] if name in direction else p for name, p in PARAMS.items()}
    return float(loss(moved))


def test_every_filter_has_the_norm_of_the_weights_filter():
    found = slice_1d(loss, PARAMS, positions=[0.0])
    (direction,) = found.axes.directions
    assert set(direction) == {"0.weight", "4.weight"}
    for name in direction:
        for i in range(len(PARAMS[name])):
            ours = sum(x * x for x in direction[name][i].flatten().tolist()) ** 0.5
            weights = sum(x * x for x in PARAMS[name][i].flatten().tolist()) ** 0.5
            assert ours == pytest.approx(weights, rel=1e-12)
    assert found.axes.moved == 54 + 48
    length = sum(float(p.square().sum()) for name, p in PARAMS.items() if p.ndim > 1) ** 0.5
    assert found.axes.lengths == pytest.approx((length,), rel=1e-12)


def test_filters_of_one_tensor_are_only_rescaled():
    raw = slice_1d(loss, PARAMS, positions=[0.0], scaling="none").axes.directions[0]["0.weight"]
    scaled = slice_1d(loss, PARAMS, positions=[0.0]).axes.directions[0]["0.weight"]
    for i in range(3):
        ratio = (scaled[i] / raw[i]).flatten().tolist()
        assert ratio == pytest.approx([ratio[0]] * 18, rel=1e-9)
        assert ratio[0] > 0


def test_vectors_are_scaled_as_a_whole_on_request():
    (direction,) = slice_1d(loss, PARAMS, positions=[0.0], vectors="whole").axes.directions
    assert set(direction) == set(PARAMS)
    for name in ("0.bias", "1.weight", "5.bias"):
        assert float(direction[name].norm()) == pytest.approx(float(PARAMS[name].norm()), rel=1e-12)


def test_layers_and_unit_length():
    (direction,) = slice_1d(loss, PARAMS, positions=[0.0], scaling="layer").axes.directions
    assert float(direction["4.weight"].norm()) == pytest.approx(float(PARAMS["4.weight"].norm()), rel=1e-12)
    row = float(direction["4.weight"][0].norm())
    assert row != pytest.approx(float(PARAMS["4.weight"][0].norm()), rel=1e-3)
    unit = slice_1d(loss, PARAMS, positions=[0.0], scaling="unit")
    assert sum(float(d.square().sum()) for d in unit.axes.directions[0].values()) == pytest.approx(1, rel=1e-12)
    assert set(unit.axes.directions[0]) == set(PARAMS)


def test_losses_are_those_of_weights_moved_by_hand():
    found = slice_1d([loss, loss], PARAMS, positions=[-0.5, 0, 2])
    (direction,) = found.axes.directions
    exact = [by_hand(t, direction) for t in (-0.5, 0, 2)]
    assert found.losses[0] == pytest.approx(exact, rel=1e-11)
    assert found.losses[1] == found.losses[0]
    square = slice_2d(loss, PARAMS, x=[-1, 0.5], y=[0, 0.25, 1])
    first, second = square.axes.directions
    both = [[by_hand(1, {n: x * first[n] + y * second[n] for n in first}) for x in (-1, 0.5)] for y in (0, 0.25, 1)]
    assert np.array(square.grid.losses[0]) == pytest.approx(np.array(both), rel=1e-11)


def test_a_rescaled_network_gives_the_same_picture():
    """Li et al.: scaling a filter before batch norm by 10 changes no function, nor a filter-normalised slice."""

    def batch_loss(params):
        model = [PARAMS["1.weight"], PARAMS["1.bias"]]
        x = nn.functional.conv2d(INPUTS, params["0.weight"])
        x = nn.functional.batch_norm(x, None, None, *model, training=True, eps=1e-12)
        return nn.functional.linear(x.relu().flatten(1), PARAMS["4.weight"]).square().mean()

    small = {"0.weight": PARAMS["0.weight"]}
    large = {"0.weight": 10 * PARAMS["0.weight"]}
    one, other = (slice_1d(batch_loss, p, positions=[-1, 0.5, 1], seed=3).losses[0] for p in (small, large))
    assert one == pytest.approx(other, rel=1e-9)
    plain = [slice_1d(batch_loss, p, positions=[1], seed=3, scaling="none").losses[0][0] for p in (small, large)]
    assert plain[0] != pytest.approx(plain[1], rel=1e-2)


def test_along_eigenvectors_of_a_quadratic():
    matrix = np.diag([1.0, 4.0, 9.0]) + 0.3
    values, vectors = np.linalg.eigh(matrix)
    h = torch.from_numpy(matrix)
    w = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def around(p):
        return 0.5 * (p - w) @ h @ (p - w)

    found = slice_1d(around, w, direction=torch.from_numpy(vectors[:, 2].copy()), positions=[-2, 0.5])
    assert found.losses[0] == pytest.approx([0.5 * values[2] * t**2 for t in (-2, 0.5)], rel=1e-12)
    assert (found.axes.source, found.axes.scaling, found.axes.seed) == ("given", "none", None)
    square = slice_2d(around, w, directions=torch.from_numpy(vectors[:, :2].T.copy()), x=[0, 1], y=[3])
    exact = [[0.5 * (values[0] * x**2 + values[1] * 9) for x in (0, 1)]]
    assert np.array(square.grid.losses[0]) == pytest.approx(np.array(exact), rel=1e-12)
    assert square.axes.cosine == pytest.approx(0, abs=1e-12)


def test_the_point_itself_has_its_bits():
    seen = []
    w = torch.tensor([0.1, 0.7, 3e7])
    slice_1d(lambda p: (seen.append(p.clone()), p.sum())[1], w, positions=[0], scaling="unit", check=False)
    assert torch.equal(seen[0], w)


def test_seeds_and_devices_of_randomness():
    state = torch.get_rng_state()
    one, same, other = (slice_1d(loss, PARAMS, positions=[0], seed=s).axes.directions[0] for s in (1, 1, 2))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    first = slice_2d(loss, PARAMS, x=[0], y=[0], seed=1).axes.directions
    assert torch.equal(first[0]["0.weight"], one["0.weight"])
    assert not torch.equal(first[0]["0.weight"], first[1]["0.weight"])
    assert torch.equal(state, torch.get_rng_state())


def test_random_directions_are_standard_normal():
    w = torch.ones(200, 500)
    (d,) = slice_1d(lambda p: p.sum(), w, positions=[0], scaling="none").axes.directions
    values = d["params"].double()
    n = values.numel()
    assert abs(float(values.mean())) < 5 / n**0.5
    assert abs(float(values.square().mean()) - 1) < 5 * (2 / n) ** 0.5
    assert (2 / n) ** 0.5 < 0.02


def test_frozen_weights_and_those_left_out_do_not_move():
    class Frozen:
        frozen = frozenset({"4.weight"})

        def __call__(self, params):
            return loss(params)

    assert set(slice_1d(Frozen(), PARAMS, positions=[0]).axes.directions[0]) == {"0.weight"}
    only = slice_1d(loss, PARAMS, positions=[0.5], only="4.*")
    assert set(only.axes.directions[0]) == {"4.weight"}
    assert only.losses[0][0] == pytest.approx(by_hand(0.5, only.axes.directions[0]), rel=1e-12)


def test_a_zero_filter_does_not_move():
    w = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    (d,) = slice_1d(lambda p: p.sum(), w, positions=[0]).axes.directions
    assert torch.equal(d["params"][0], torch.zeros(2, dtype=torch.float64))
    assert float(d["params"][1].norm()) == pytest.approx(5)


def test_a_filter_that_a_given_direction_lacks_does_not_move():
    w = torch.tensor([[1.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    along = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    (d,) = slice_1d(lambda p: p.sum(), w, direction=along, positions=[1], scaling="filter").axes.directions
    assert d["params"].tolist() == [[0.0, 0.0], [5.0, 0.0]]
    assert along.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_records():
    square = slice_2d(loss, PARAMS, x=[0, 1], y=[0, 1])
    said = json.loads(json.dumps(square.to_dict(), allow_nan=False))
    assert said["axes"]["scaling"] == "filter"
    assert "directions" not in said["axes"]
    assert said["points"] == 4
    assert "random directions, scaling filter" in str(square)
    assert "position" in str(slice_1d(loss, PARAMS, positions=[0, 1]))


TWO = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"direction": torch.ones(3)}, "direction has 3 numbers, but 4 weights move"),
        ({"direction": torch.zeros(4)}, r"direction has length 0.0"),
        ({"direction": {"v": TWO}}, "the weights that move and direction are not of one network"),
        ({"scaling": "tensor"}, "scaling is 'tensor'; choose one of filter, layer, unit, none"),
        ({"vectors": "keep"}, "vectors is 'keep'; choose one of zero, whole"),
        ({"positions": []}, "positions is empty"),
        ({"only": "x*"}, r"only holds 'x\*'"),
        ({"params": torch.ones(4)}, "nothing is left of a direction"),
        ({"params": torch.tensor([[float("inf")]])}, "params holds a weight that is not finite"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    arguments = {"params": TWO, **change}
    with pytest.raises(BadInput, match=sentence):
        slice_1d(lambda w: w.sum(), arguments.pop("params"), **arguments)


def test_two_directions_must_span_a_plane():
    with pytest.raises(BadInput, match="the two directions are parallel"):
        slice_2d(lambda w: w.sum(), TWO, directions=[TWO, 2 * TWO])
    with pytest.raises(BadInput, match="directions holds 3 of them; give 2"):
        slice_2d(lambda w: w.sum(), TWO, directions=torch.eye(4)[:3])
