"""What a recipe asks of the optimizer inside a method. Oracle: the same optimizer without a method, and its state."""

import pytest
import torch
from torch import nn

from gengap.core.recipe import Recipe
from gengap.nets.dropout import set_dropout
from gengap.nets.language import Transformer
from gengap.optim.build import build, set_lr
from gengap.optim.wrapping import plain_optimizers


def stepped(recipe, weight):
    optimizer = build(recipe, [weight])

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return optimizer, closure


def recipe(**fields):
    return Recipe(**{"lr": 0.1, "batch_size": 4, "budget": {"epochs": 1}, **fields})


@pytest.mark.parametrize("method", [None, "sam"])
def test_the_velocity_of_lars_is_corrected_inside_a_method(method):
    weight = nn.Parameter(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    made = recipe(optimizer="lars", momentum=0.9, momentum_correction=True, method=method)
    optimizer, _ = stepped(made, weight)
    (inner,) = plain_optimizers(optimizer)
    before = inner.state[weight]["momentum_buffer"].clone()
    set_lr(optimizer, 0.02, corrected=True)
    torch.testing.assert_close(inner.state[weight]["momentum_buffer"], before * 0.2)
    assert inner.param_groups[0]["lr"] == 0.02


def test_lbfgs_inside_conservative_training_decays_weights():
    found = []
    for decay in (0.0, 0.5):
        weight = nn.Parameter(torch.tensor([3.0, -4.0], dtype=torch.float64))
        method = {"name": "conservative", "inner": "lbfgs", "iterations": 30, "penalty": 1.0}
        stepped(recipe(optimizer="adam", weight_decay=decay, method=method), weight)
        found.append(weight.detach())
    start = torch.tensor([3.0, -4.0], dtype=torch.float64)
    for decay, got in zip((0.0, 0.5), found, strict=True):
        # of w^2 + decay w^2 / 2 + (w - start)^2 / 2
        torch.testing.assert_close(got, start / (3 + decay), rtol=1e-6, atol=1e-9)


def test_dropout_inside_the_attention_of_the_transformer_is_set():
    model = Transformer(7, 5, width=8, depth=1, heads=2, dropout=0.3)
    set_dropout(model, 0.0)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.0}
    tokens = torch.arange(5)[None]
    model.train()
    assert torch.equal(model(tokens), model(tokens))
