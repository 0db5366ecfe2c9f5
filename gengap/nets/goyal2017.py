"""ResNet-50 as Goyal et al. 2017 (arXiv:1706.02677) train it in an hour."""

import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = ((64, 3), (128, 4), (256, 6), (512, 3))  # width of the bottleneck, blocks
EXPANSION = 4


def resnet50(classes: int = 1000, *, zero_last_gamma: bool = True, linear_std: float = 0.01) -> nn.Module:
    """Build the ResNet-50 of He et al. 2016 (arXiv:1512.03385), with the stride in the 3x3 convolutions.

    Convolutions begin He-normal by fan-out, biases at 0.

    Args:
        classes: width of the output.
        zero_last_gamma: the last batch norm of every block begins with scale 0, so that every block begins as its
            shortcut (section 5.1); without, with scale 1.
        linear_std: standard deviation of the initial weights of the linear output.

    Returns:
        The network, for images of any size from 32x32; 224x224 in the paper.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    channels = 64
    for group, (width, blocks) in enumerate(GROUPS):
        for i in range(blocks):
            layers.append(Bottleneck(channels, width, stride=2 if group and not i else 1))
            channels = EXPANSION * width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    _begin(model, zero_last_gamma=zero_last_gamma, linear_std=linear_std)
    return model


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norm beside a shortcut, projected where the shape changes, then ReLU."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.last_norm = nn.BatchNorm2d(out)
        self.branch = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, out, 1, bias=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, 4 x width, H / stride, W / stride)."""
        return F.relu(self.last_norm(self.branch(x)) + self.shortcut(x))


def _begin(model: nn.Module, *, zero_last_gamma: bool, linear_std: float) -> None:
    """Draw the initial weights."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, linear_std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Bottleneck) and zero_last_gamma:
            nn.init.zeros_(module.last_norm.weight)
