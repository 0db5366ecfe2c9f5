"""Oracles: the papers' tables (sizes, dropout, counts) typed here, Glorot's bound by hand, and pooling as numpy loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from gengap.core.catalogue import NETWORKS, resolve
from gengap.nets.keskar2017 import shallow_features

KESKAR = [name for name in NETWORKS if name.startswith("keskar") and name != "keskar-vgg11"]
GLOROT = [*KESKAR, "smith-le-mlp"]
NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
LIGHT = [name for name, entry in NETWORKS.items() if entry.weights < 5e6]  # the others are only measured out


def built(name, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resolve(NETWORKS[name].builder)(**options)


def kinds(model, *types):
    return [module for module in model.modules() if isinstance(module, types)]


def outline(name, **options):
    """Build a network without memory for its weights."""
    with torch.device("meta"):
        return resolve(NETWORKS[name].builder)(**options)


def inputs_of(entry, count=2):
    """Give some inputs of a network: numbers, or tokens."""
    rng = torch.Generator().manual_seed(0)
    if entry.tokens:
        return torch.randint(entry.classes, (count, 3), generator=rng)
    return torch.randn(count, *entry.input_shape, generator=rng)


def shapes(model, types, x):
    """Give the shape of one sample after every layer of some types."""
    found = []
    for module in kinds(model, *types):
        module.register_forward_hook(lambda _m, _i, out: found.append(tuple(out.shape[1:])))
    with torch.no_grad():
        model.eval()(x)
    return found


# one exam for every network of the catalogue


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_and_outputs(name):
    entry, model = NETWORKS[name], outline(name)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == entry.weights
    outputs = model.train()(inputs_of(entry).to("meta"))
    logits = 1 if name == "logistic" else entry.classes
    assert outputs.shape == ((2, logits, 3) if entry.tokens else (2, logits))
    if not (entry.tokens or name == "smith2020-autoencoder"):
        last = [module for module in model.modules() if not list(module.children())][-1]
        assert isinstance(last, nn.Linear)  # no batch norm, no softmax on the output
        assert last.out_features == logits


@pytest.mark.parametrize("name", LIGHT)
def test_every_weight_has_a_gradient(name):
    model = built(name)
    outputs = model.train()(inputs_of(NETWORKS[name]))
    assert outputs.isfinite().all()
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", LIGHT)
def test_every_maker_makes_another(name):
    one, other = built(name), built(name)
    assert all(a is not b and torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", GLOROT)
def test_weights_begin_glorot_uniform_and_biases_at_zero(name):
    """A uniform draw on (-a, a) has standard deviation a / sqrt(3); 5 of its standard errors are allowed."""
    for layer in kinds(built(name), nn.Linear, nn.Conv2d):
        field = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else 1
        bound = math.sqrt(6 / (field * (layer.weight.shape[0] + layer.weight.shape[1])))
        weight = layer.weight.detach().double()
        n = weight.numel()
        assert weight.abs().max() <= bound * (1 + 1e-6)
        assert weight.abs().max() > bound * (1 - 20 / n)
        assert abs(weight.mean()) < 5 * bound / math.sqrt(3 * n)
        # the variance of z**2 for z uniform on (-1, 1) is 1/5 - 1/9
        assert abs((weight / bound).square().mean() - 1 / 3) < 5 * math.sqrt((1 / 5 - 1 / 9) / n)
        assert layer.bias.count_nonzero() == 0


@pytest.mark.parametrize("name", [name for name in dict.fromkeys([*LIGHT, *KESKAR]) if kinds(outline(name), *NORM)])
def test_batch_norms_begin_as_the_identity(name):
    for norm in kinds(built(name), *NORM):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_logistic_regression_begins_undecided():
    assert all((p == 0).all() for p in built("logistic").parameters())


# Keskar et al. 2017


WIDTHS = {"keskar-f1": [784, *[512] * 5, 10], "keskar-f2": [360, *[512] * 7, 1973]}


@pytest.mark.parametrize(("name", "widths"), WIDTHS.items())
def test_fully_connected(name, widths):
    model = built(name)
    linear = kinds(model, nn.Linear)
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(pairwise(widths))
    order = [type(module) for module in list(model.children())[1:]]
    assert order == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (len(widths) - 2) + [nn.Linear]


SHALLOW = {
    "keskar-c1": ([(64, 32, 32), (64, 16, 16)], [(64, 16, 16), (64, 8, 8)], 4096, 10),
    "keskar-c3": ([(64, 32, 32), (64, 16, 16)], [(64, 16, 16), (64, 8, 8)], 4096, 100),
    "keskar-c1-literal": ([(64, 16, 16), (64, 4, 4)], [(64, 8, 8), (64, 2, 2)], 256, 10),
    "keskar-c3-literal": ([(64, 16, 16), (64, 4, 4)], [(64, 8, 8), (64, 2, 2)], 256, 100),
}


@pytest.mark.parametrize("name", SHALLOW)
def test_maps_of_the_shallow_networks(name):
    convolved, pooled, flat, classes = SHALLOW[name]
    x = torch.zeros(1, 3, 32, 32)
    model = built(name)
    assert shapes(model, (nn.Conv2d,), x) == convolved
    assert shapes(built(name), (nn.MaxPool2d,), x) == pooled
    assert [m.kernel_size for m in kinds(model, nn.Conv2d)] == [(5, 5), (5, 5)]
    assert [(m.kernel_size, m.stride) for m in kinds(model, nn.MaxPool2d)] == [(3, 2), (3, 2)]
    assert [(m.in_features, m.out_features) for m in kinds(model, nn.Linear)] == [
        (flat, 384),
        (384, 192),
        (192, classes),
    ]
    assert len(kinds(model, *NORM)) == 4
    assert [m.p for m in kinds(model, nn.Dropout)] == [0.5, 0.5]


DEEP_DROPOUT = [0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5, 0.5]
DEEP = {
    "keskar-c2": (10, DEEP_DROPOUT),
    "keskar-c4": (100, DEEP_DROPOUT),
    "keskar-c2-literal": (10, [0.5]),
    "keskar-c4-literal": (100, [0.5]),
}


@pytest.mark.parametrize("name", DEEP)
def test_maps_and_dropout_of_the_deep_networks(name):
    classes, dropout = DEEP[name]
    model = built(name)
    stacks = ((64, 32, 2), (128, 16, 2), (256, 8, 3), (512, 4, 3), (512, 2, 3))
    found = shapes(model, (nn.Conv2d,), torch.zeros(1, 3, 32, 32))
    assert found == [(width, size, size) for width, size, count in stacks for _ in range(count)]
    assert [m.kernel_size for m in kinds(model, nn.Conv2d)] == [(3, 3)] * 13
    assert [m.out_features for m in kinds(model, nn.Linear)] == [512, classes]
    assert [m.p for m in kinds(model, nn.Dropout)] == dropout
    assert len(kinds(model, *NORM)) == 14


@pytest.mark.parametrize("name", ["keskar-c2", "keskar-c4"])
def test_no_dropout_between_a_stack_and_its_pooling(name):
    layers = [type(module) for module in built(name).children()]
    for i, kind in enumerate(layers):
        if kind is nn.MaxPool2d:
            assert layers[i - 1] is nn.ReLU
            assert layers[i + 1] in {nn.Conv2d, nn.Flatten}


@pytest.mark.parametrize("size", [32, 16, 8])
def test_pooling_is_that_of_keras_same(size):
    """Windows of 3 from row 2i and column 2j, cut at the far edge."""
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).relu()
    *_, pad, pool = list(shallow_features(1))
    found = pool(pad(x)).numpy()
    exact = np.empty((2, 3, size // 2, size // 2), np.float32)
    for i in range(size // 2):
        for j in range(size // 2):
            exact[:, :, i, j] = x.numpy()[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((2, 3))
    np.testing.assert_array_equal(found, exact)
    assert not np.array_equal(found, nn.MaxPool2d(3, 2, padding=1)(x).numpy())


# the small ones


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_small_networks_fit_other_images(name):
    model = built(name, input_shape=(3, 12, 20), classes=7)
    assert model(torch.zeros(2, 3, 12, 20)).shape == (2, 7)


def test_smith_and_le():
    linear = kinds(built("smith-le-mlp"), nn.Linear)
    assert [(m.in_features, m.out_features) for m in linear] == [(784, 800), (800, 10)]
    assert not kinds(built("smith-le-mlp"), *NORM, nn.Dropout)
