"""The networks of Hoffer et al. 2017 (arXiv:1705.08741), as their published code builds them.

It differs from the papers that the networks are named after: C1 and C3 pool before they normalise and have no bias in
front of a batch norm, the ResNets project their shortcuts, and the "wide" one widens the first convolution too. The
code has no VGG, though the paper's tables do; the layout of Keskar et al.'s C2 is taken for it.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from gengap.nets.keskar2017 import stacks


def f1(classes: int = 10) -> nn.Module:
    """F1 of Keskar et al. 2017, with torch's own initial weights (uniform on +-1/sqrt(fan-in))."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (784, 512, 512, 512, 512):
        layers += [nn.Linear(inputs, 512), nn.BatchNorm1d(512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, classes))


def c1(classes: int = 10) -> nn.Module:
    """C1 in the order convolution, pooling, batch norm, ReLU; poolings without padding leave maps of 15 and 7."""
    features: list[nn.Module] = []
    for channels in (3, 64):
        features += [nn.Conv2d(channels, 64, 5, padding=2, bias=False), nn.MaxPool2d(3, 2)]
        features += [nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*features, nn.Flatten(), *dense((64 * 7 * 7, 384, 192), classes))


def c3(classes: int = 100) -> nn.Module:
    """C1 with 100 classes."""
    return c1(classes)


def resnet44(classes: int = 10) -> nn.Module:
    """Three groups of seven residual blocks, 16, 32 and 64 wide."""
    return resnet(7, 16, classes)


def wresnet16_4(classes: int = 100) -> nn.Module:
    """Three groups of two residual blocks, 64, 128 and 256 wide, the first convolution 64 wide as well.

    The canonical WRN-16-4 (`gengap.nets.smith2020.wrn16_4`) normalises before it convolves, and begins 16 wide.

    Returns:
        The network.
    """
    return resnet(2, 64, classes)


def vgg(classes: int = 10) -> nn.Module:
    """Thirteen 3x3 convolutions in five stacks, dense 512 with dropout 0.5, linear."""
    return he_fan_out(nn.Sequential(*stacks(inner_dropout=False), nn.Flatten(), *dense((512, 512), classes, bias=True)))


def vgg_one_linear(classes: int = 10) -> nn.Module:
    """Build `vgg` without the dense layer: the 512 features go straight to the classes."""
    return he_fan_out(nn.Sequential(*stacks(inner_dropout=False), nn.Flatten(), nn.Linear(512, classes)))


def alexnet(classes: int = 1000) -> nn.Module:
    """AlexNet in the layout of Krizhevsky 2014 (arXiv:1404.5997), with batch norm, for 224x224 images.

    The first layer normalises before its ReLU and the other convolutions after theirs; only the last layer has a bias.

    Returns:
        The network.
    """
    features: list[nn.Module] = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2, bias=False),
        nn.MaxPool2d(3, 2),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    ]
    for channels, width, kernel, pooled in (
        (64, 192, 5, True),
        (192, 384, 3, False),
        (384, 256, 3, False),
        (256, 256, 3, True),
    ):
        features.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False))
        features += [nn.MaxPool2d(3, 2)] if pooled else []
        features += [nn.ReLU(), nn.BatchNorm2d(width)]
    return nn.Sequential(*features, nn.Flatten(), *dense((256 * 6 * 6, 4096, 4096), classes))


def dense(widths: tuple[int, ...], classes: int, *, bias: bool = False) -> Iterator[nn.Module]:
    """Yield hidden layers with batch norm, ReLU and dropout 0.5, then the linear output, which always has a bias."""
    for inputs, width in pairwise(widths):
        yield nn.Linear(inputs, width, bias=bias)
        yield nn.BatchNorm1d(width)
        yield nn.ReLU()
        yield nn.Dropout(0.5)
    yield nn.Linear(widths[-1], classes)


def resnet(blocks: int, width: int, classes: int) -> nn.Module:
    """Build three groups of residual blocks, each group twice as wide as the one before, on maps of 32, 16 and 8."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for group in range(3):
        for i in range(blocks):
            layers.append(Block(channels, width << group, stride=2 if group and not i else 1))
            channels = width << group
    return he_fan_out(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes (option B), then ReLU."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            projection = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, width, H / stride, W / stride)."""
        return F.relu(self.branch(x) + self.shortcut(x))


def he_fan_out(model: nn.Module) -> nn.Module:
    """Draw convolutions from N(0, 2 / (kernel area x output channels)), biases 0; linear layers stay torch's own."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
