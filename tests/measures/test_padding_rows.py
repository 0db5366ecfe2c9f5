# Oracles: the same network with that row written over by what it was, so that no measure can move it; central differences of
# the gradient; the row of every direction, looked at. The row of the padding has no gradient, though it moves the loss.
import pytest
import torch
from test_exam import MEASURES
from torch import nn

import gengap
from gengap.measures.curvature.operators import hessian
from gengap.measures.session import measuring
from gengap.measures.trees import ravel, unravel
from gengap.problem.from_model import loss_function

N, C, WORDS, PAD = 24, 3, 6, 2
MOVING = (
    "sharpness",
    "subspace_sharpness",
    "ball_sharpness",
    "adaptive ball",
    "average_sharpness",
    "random_rise",
    "steep_fraction",
    "loss_against_distance",
)


class Words(nn.Module):
    def __init__(self, padding=PAD):
        super().__init__()
        self.table, self.out = nn.Embedding(WORDS, 4, padding_idx=padding), nn.Linear(12, C)

    def forward(self, tokens):
        return self.out(torch.tanh(self.table(tokens)).flatten(1))


class Overwritten(Words):
    """No padding, and a row that is a number whatever the weights say."""

    def __init__(self, row):
        super().__init__(padding=None)
        self.register_buffer("row", row)

    def forward(self, tokens):
        rows = torch.where((tokens == PAD)[..., None], self.row, self.table(tokens))
        return self.out(torch.tanh(rows).flatten(1))


class Tied(nn.Module):
    """The table is also the last layer, so that the row of the padding is trained by one of its two uses."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(WORDS, 4, padding_idx=PAD), nn.Linear(4, WORDS, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens):
        return self.out(torch.tanh(self.table(tokens)).mean(1))


def tokens():
    return torch.randint(WORDS, (N, 3), generator=torch.Generator().manual_seed(0)), torch.arange(N) % C


def both():
    torch.manual_seed(0)
    model = Words().double()
    nn.init.normal_(model.table.weight)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    other = Overwritten(params["table.weight"][PAD].clone()).double()
    losses = [loss_function(one, "cross_entropy", tokens()) for one in (model, other)]
    return *losses, params


def numbers(told, path=""):
    """All numbers of a JSON form by their path, cost apart."""
    if isinstance(told, dict | list | tuple):
        pairs = told.items() if isinstance(told, dict) else enumerate(told)
        parts = [numbers(v, f"{path}/{k}") for k, v in pairs if k not in {"seconds", "peak_memory"}]
        return {k: v for part in parts for k, v in part.items()}
    return {path: told} if isinstance(told, int | float) else {}


@pytest.mark.parametrize("name", MOVING)
def test_measures_that_move_weights_leave_the_row_where_it_is(name):
    loss, twin, params = both()
    one, other = (numbers(MEASURES[name](f, params).to_dict()) for f in (loss, twin))
    assert len(one) > 5
    assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    moved = {**params, "table.weight": params["table.weight"].clone()}
    moved["table.weight"][PAD] += 1
    assert abs(loss.value(moved) - loss.value(params)) > 1e-3  # the row is felt where it is moved on purpose


@pytest.mark.parametrize("only", [None, "table.*"])
def test_values_and_gradients_do_not_feel_the_row(only):
    loss, _, params = both()
    with measuring(loss, params, passes="gradient", only=only, moves=True) as session:
        ahead = {name: p.clone() for name, p in session.params.items()}
        ahead["table.weight"][PAD] += 1
        assert session.loss.value(ahead) == session.loss.value(session.params)
        one, other = (session.loss.value_and_grad(p)[1] for p in (ahead, session.params))
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert not one["table.weight"][PAD].any()
        assert one["table.weight"].any()


def test_random_slices_do_not_move_the_row():
    loss, _, params = both()
    found = gengap.slice_2d(loss, params, x=[0.0, 0.1], y=[0.0], scaling="layer")
    for direction in found.axes.directions:
        assert not direction["table.weight"][PAD].any()
        assert direction["table.weight"].norm() == pytest.approx(float(params["table.weight"].norm()), rel=1e-12)


def test_a_shared_row_is_differentiated_in_both_uses():
    torch.manual_seed(1)
    model = Tied().double()
    nn.init.normal_(model.table.weight)
    data = tokens()[0], torch.arange(N) % WORDS
    loss, params = loss_function(model, "cross_entropy", data), dict(model.named_parameters())
    assert loss.untrained_rows == {}
    with measuring(loss, params, passes="product") as session:
        v, w, step = torch.ones(session.weights, dtype=torch.float64), ravel(session.params), 1e-6
        ahead, behind = (
            ravel(session.loss.value_and_grad(unravel(w + sign * step * v, session.params))[1]) for sign in (1, -1)
        )
        torch.testing.assert_close(hessian(session)(v), (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
    assert model.table.padding_idx == PAD  # the user's stays as it is
