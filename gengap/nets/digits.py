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
    """Three 3x3 convolutions of 16, 32 and 64 channels, the first two with 2x2 pooling, and a linear output."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), classes),
    )
