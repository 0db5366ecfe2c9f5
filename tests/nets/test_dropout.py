"""Oracle: counting zeros: a share p of what dropout passes on is 0, within 5 standard deviations."""

import math

import pytest
import torch
from torch import nn

from gengap.core.catalogue import NETWORKS, resolve
from gengap.core.errors import BadInput
from gengap.nets.dropout import set_dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.7])
def test_a_share_of_signals_is_dropped(p):
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Flatten(), nn.AlphaDropout(0.2)))
    assert set_dropout(model, p) == 2
    assert model[1][1].p == p
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = model[0](torch.ones(20_000))
    assert abs((found == 0).double().mean() - p) <= 5 * math.sqrt(p * (1 - p) / 20_000)


def test_the_dropout_of_a_paper_s_network_is_set_and_its_weights_keep_their_names():
    model = resolve(NETWORKS["keskar-c1"].builder)()
    before = list(model.state_dict())
    assert set_dropout(model, 0.25) == 2  # after each of the two dense layers
    assert list(model.state_dict()) == before
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]


def test_dropout_inside_attention_and_recurrent_layers_is_set():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1)
    assert set_dropout(layer, 0.3) == 4  # three layers and the attention weights
    assert layer.self_attn.dropout == 0.3
    stacked = nn.LSTM(4, 5, num_layers=2, dropout=0.1)
    assert set_dropout(stacked, 0.0) == 1
    x = torch.ones(3, 2, 4)
    assert torch.equal(stacked(x)[0], stacked(x)[0])
    set_dropout(stacked, 0.9)
    assert not torch.equal(stacked(x)[0], stacked(x)[0])


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.LSTM(2, 2), nn.Sequential()])
def test_a_model_without_dropout_is_refused(model):
    with pytest.raises(BadInput, match=f"the {type(model).__name__} has no dropout to set to 0.5; put nn.Dropout into"):
        set_dropout(model, 0.5)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range_is_refused(p):
    with pytest.raises(BadInput, match=f"the probability of dropout is {p}"):
        set_dropout(nn.Dropout(), p)
