"""The networks of Smith, Elsen & De 2020 (arXiv:2006.15081): WRN-16-4 with and without batch norm, an autoencoder.

Without batch norm the residual branches are multiplied by one learnt number each, which begins at 0: SkipInit
(De & Smith 2020, arXiv:2002.10444). The paper's LSTM is in `language`, its ResNet-50 in `goyal2017`.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from gengap.nets.keskar2017 import glorot

CODES = (1000, 500, 250, 30)
CONNECTIONS = 15


def wrn16_4(classes: int = 10) -> nn.Module:
    """Build the canonical Wide ResNet 16-4 (Zagoruyko & Komodakis 2016, arXiv:1605.07146), without dropout."""
    return wide_resnet(classes, skip_init=False, bias=False)


def wrn16_4_skip_init(classes: int = 10) -> nn.Module:
    """WRN-16-4 with SkipInit in place of batch norm; the convolutions get the shifts that went with it, as biases."""
    return wide_resnet(classes, skip_init=True, bias=True)


def wrn16_4_skip_init_without_bias(classes: int = 10) -> nn.Module:
    """WRN-16-4 with SkipInit, and no biases but that of the linear output."""
    return wide_resnet(classes, skip_init=True, bias=False)


def wide_resnet(classes: int, *, skip_init: bool, bias: bool, blocks: int = 2, widen: int = 4) -> nn.Module:
    """Build a Wide ResNet of depth 6 x blocks + 4 for 32x32 images; convolutions begin He-normal by fan-in.

    Args:
        classes: width of the output.
        skip_init: branches scaled by a learnt number in place of batch norm.
        bias: whether convolutions have one; it begins at 0.
        blocks: in each of the three groups.
        widen: groups are 16, 32 and 64 times so wide.

    Returns:
        The network.
    """
    channels = 16
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=bias)]
    for group in range(3):
        for i in range(blocks):
            width = widen * (16 << group)
            stride = 2 if group and not i else 1
            layers.append(PreactivatedBlock((channels, width), stride, skip_init=skip_init, bias=bias))
            channels = width
    last: nn.Module = nn.Identity() if skip_init else nn.BatchNorm2d(channels)
    pooled = [last, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return he_fan_in(nn.Sequential(*layers, *pooled, nn.Linear(channels, classes)))


class PreactivatedBlock(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions; where the shape changes the shortcut is a 1x1 convolution.

    Args:
        channels: of the inputs, and of the outputs.
        stride: of the first convolution and of the shortcut.
        skip_init: no batch norm; the branch is multiplied by `scale`, which begins at 0.
        bias: whether convolutions have one.
    """

    def __init__(self, channels: tuple[int, int], stride: int, *, skip_init: bool, bias: bool) -> None:
        super().__init__()
        width_in, width = channels
        norm = nn.Identity if skip_init else nn.BatchNorm2d
        self.ready = nn.Sequential(norm(width_in), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, padding=1, bias=bias),
            norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=bias),
        )
        changes = stride != 1 or width_in != width
        self.shortcut = nn.Conv2d(width_in, width, 1, stride, bias=bias) if changes else None
        self.scale = nn.Parameter(torch.zeros(1)) if skip_init else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width_in, H, W) to (B, width, H / stride, W / stride)."""
        ready = self.ready(x)
        branch = self.branch(ready)
        if self.scale is not None:
            branch = self.scale * branch
        return branch + (x if self.shortcut is None else self.shortcut(ready))  # type: ignore[no-any-return]


def autoencoder(input_shape: tuple[int, ...] = (1, 28, 28)) -> nn.Module:
    """784-1000-500-250-30 and back, sigmoid units, linear code, pixels in (0, 1); for the loss "mean_square"."""
    return nn.Sequential(autoencoder_logits(input_shape), nn.Sigmoid())


def autoencoder_logits(input_shape: tuple[int, ...] = (1, 28, 28)) -> nn.Module:
    """The same with the logit of every pixel as its output; for the loss "binary_cross_entropy".

    Each unit begins with 15 incoming weights from N(0, 1), its other weights and its bias at 0, as in Sutskever et al.
    2013 (after Martens 2010): from dense small weights a sigmoid network so deep hardly moves.

    Returns:
        The network.
    """
    down = [math.prod(input_shape), *CODES]
    widths = down + down[-2::-1]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (inputs, width) in enumerate(pairwise(widths)):
        linear = nn.Linear(inputs, width)
        nn.init.zeros_(linear.bias)
        sparse(linear.weight)
        layers.append(linear)
        if width != CODES[-1] and i < len(widths) - 2:
            layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


@torch.no_grad()
def sparse(weight: Tensor) -> None:
    """Leave every row of a weight (outputs, inputs) with 15 entries from N(0, 1) at random places, the others 0."""
    count = min(CONNECTIONS, weight.shape[1])
    places = torch.rand_like(weight).topk(count, dim=1).indices
    weight.zero_().scatter_(1, places, torch.randn(weight.shape[0], count, dtype=weight.dtype, device=weight.device))


def he_fan_in(model: nn.Module) -> nn.Module:
    """Draw convolutions from N(0, 2 / fan-in) with zero biases, the linear output Glorot-uniform."""
    glorot(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model
