"""The models of Smith & Le 2018 (arXiv:1710.06451): a wide perceptron and logistic regression."""

import math

from torch import nn

from gengap.nets.keskar2017 import glorot


def mlp(input_shape: tuple[int, ...] = (1, 28, 28), classes: int = 10) -> nn.Module:
    """One hidden layer of 800 ReLU units; the paper does not name its initial weights, Glorot-uniform is taken."""
    inputs = math.prod(input_shape)
    return glorot(nn.Sequential(nn.Flatten(), nn.Linear(inputs, 800), nn.ReLU(), nn.Linear(800, classes)))


def logistic(input_shape: tuple[int, ...] = (200,)) -> nn.Module:
    """Logistic regression: one output, whose sign is the class; it begins at zero, where both are equally likely."""
    linear = nn.Linear(math.prod(input_shape), 1)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)
