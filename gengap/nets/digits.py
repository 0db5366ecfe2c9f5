"""Small networks for the embedded digits; they fit other small images too."""

import math

from torch import nn


def mlp(input_shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> nn.Module:
    """Two hidden layers of 128 and 64 ReLU units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def convnet(input_shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> nn.Module:
    """Three 3x3 convolutions of 16, 32 and 64 channels with batch norm, two 2x2 poolings, and a linear output."""
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for i, features in enumerate((16, 32, 64)):
        layers += [nn.Conv2d(channels, features, 3, padding=1), nn.BatchNorm2d(features), nn.ReLU()]
        if i < 2:
            layers.append(nn.MaxPool2d(2))
        channels = features
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), classes))
