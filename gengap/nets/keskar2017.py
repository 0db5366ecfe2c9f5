"""The six networks of Keskar et al. 2017 (arXiv:1609.04836, appendix B): F1, F2, C1 to C4.

The form is that of the authors' code where it says more than the paper: in C1 and C3 the printed stride 2 is that of
the pooling, and C2 and C4 drop out inside the convolution stacks. The `_literal` networks take the paper at its word.
All begin with Glorot-uniform weights and zero biases, as the code does. `vgg11` is the one network of the authors' later
PyTorch port, which is none of the six.
"""

import math
from collections.abc import Iterator

from torch import nn


def f1(classes: int = 10) -> nn.Module:
    """F1: 784 inputs, five hidden layers of 512, each linear, batch norm, ReLU."""
    return fully_connected(784, depth=5, classes=classes)


def f2(classes: int = 1973) -> nn.Module:
    """F2: 360 inputs, seven hidden layers of 512, 1973 classes (TIMIT frames)."""
    return fully_connected(360, depth=7, classes=classes)


def c1(classes: int = 10) -> nn.Module:
    """C1: two 5x5 convolutions of 64 channels, each with 3x3 pooling of stride 2, dense 384 and 192, dropout 0.5."""
    return glorot(nn.Sequential(*shallow_features(stride=1), nn.Flatten(), *shallow_head(64 * 8 * 8, classes)))


def c3(classes: int = 100) -> nn.Module:
    """C3: C1 with 100 classes."""
    return c1(classes)


def c1_literal(classes: int = 10) -> nn.Module:
    """C1 with stride 2 in convolutions and poolings, as printed: maps of 32, 16, 8, 4, 2."""
    return glorot(nn.Sequential(*shallow_features(stride=2), nn.Flatten(), *shallow_head(64 * 2 * 2, classes)))


def c3_literal(classes: int = 100) -> nn.Module:
    """C3 with stride 2 in convolutions and poolings, as printed."""
    return c1_literal(classes)


def c2(classes: int = 10) -> nn.Module:
    """C2: thirteen 3x3 convolutions in five stacks (VGG-like) with dropout inside the stacks, dense 512."""
    return deep(classes, inner_dropout=True)


def c4(classes: int = 100) -> nn.Module:
    """C4: C2 with 100 classes."""
    return deep(classes, inner_dropout=True)


def c2_literal(classes: int = 10) -> nn.Module:
    """C2 with dropout on the dense layers only, as printed."""
    return deep(classes, inner_dropout=False)


def c4_literal(classes: int = 100) -> nn.Module:
    """C4 with dropout on the dense layers only, as printed."""
    return deep(classes, inner_dropout=False)


def fully_connected(inputs: int, depth: int, classes: int) -> nn.Module:
    """Build `depth` hidden layers of 512 units and a linear output without batch norm."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else 512, 512), nn.BatchNorm1d(512), nn.ReLU()]
    return glorot(nn.Sequential(*layers, nn.Linear(512, classes)))


def shallow_features(stride: int) -> Iterator[nn.Module]:
    """Yield the convolutional part of C1; padding keeps ceil(size / stride), as Keras's "same" does."""
    for channels in (3, 64):
        yield nn.Conv2d(channels, 64, 5, stride=stride, padding=2)
        yield nn.BatchNorm2d(64)
        yield nn.ReLU()
        yield nn.ZeroPad2d((0, 1, 0, 1))  # "same" pooling pads at the far edge; after a ReLU, 0 is never a new maximum
        yield nn.MaxPool2d(3, stride=2)


def shallow_head(inputs: int, classes: int) -> Iterator[nn.Module]:
    """Yield the dense part of C1."""
    for width_in, width in ((inputs, 384), (384, 192)):
        yield nn.Linear(width_in, width)
        yield nn.BatchNorm1d(width)
        yield nn.ReLU()
        yield nn.Dropout(0.5)
    yield nn.Linear(192, classes)


def deep(classes: int, *, inner_dropout: bool) -> nn.Module:
    """Build C2 or C4."""
    dropout = [nn.Dropout(0.5)] if inner_dropout else []
    head = [nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, classes)]
    return glorot(nn.Sequential(*stacks(inner_dropout=inner_dropout), nn.Flatten(), *dropout, *head))


def stacks(*, inner_dropout: bool) -> Iterator[nn.Module]:
    """Yield the convolutional part of C2: thirteen 3x3 convolutions, a pooling after each of five stacks."""
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for i in range(count):
            yield from (nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            if inner_dropout and i < count - 1:
                yield nn.Dropout(0.3 if width == 64 else 0.4)
            channels = width
        yield nn.MaxPool2d(2)


def vgg11(classes: int = 10) -> nn.Module:
    """VGG configuration A with batch norm, of the authors' PyTorch port: dense 4096 twice, without batch norm there.

    Convolutions begin as N(0, 2 / (9 x output channels)), linear layers as N(0, 0.01**2), biases at 0. The port calls it
    C3-like, but its data are CIFAR-10. Its output is the logit; the port's log-softmax belongs to the loss here.

    Returns:
        The network.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Dropout(0.5), nn.Linear(512, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(4096, classes))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            spread = math.sqrt(2 / (9 * module.out_channels)) if isinstance(module, nn.Conv2d) else 0.01
            nn.init.normal_(module.weight, 0.0, spread)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return model


def glorot(model: nn.Module) -> nn.Module:
    """Set Glorot-uniform weights and zero biases in every linear and convolutional layer."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
