"""Oracles: the sizes of the papers' tables typed here, a naive ResNet-50 with the same weights, the identity of a
residual network whose branches give nothing, and the moments of the initial distributions within 5 standard errors."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gengap.nets import goyal2017, hoffer2017, keskar2017, smith2020

CONVOLUTION = (nn.Conv2d,)


def made(maker, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker(*args, **options)


def kinds(model, *types):
    return [module for module in model.modules() if isinstance(module, types)]


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def maps(model, types, size=32):
    """Give (channels, height, width) after every layer of some types."""
    found = []
    for module in kinds(model, *types):
        module.register_forward_hook(lambda _m, _i, out: found.append(tuple(out.shape[1:])))
    model.eval()(torch.zeros(1, 3, size, size, device="meta"))
    return found


def outline(maker, *args):
    with torch.device("meta"):
        return maker(*args)


def assert_spread(weight, deviation):
    """The weights are N(0, deviation**2): mean and mean square within 5 standard errors."""
    values, n = weight.detach().double() / deviation, weight.numel()
    assert abs(values.mean()) < 5 / math.sqrt(n)
    assert abs(values.square().mean() - 1) < 5 * math.sqrt(2 / n)


# Hoffer et al. 2017


@pytest.mark.parametrize("maker", [hoffer2017.c1, hoffer2017.c3])
def test_shallow_networks_pool_before_they_normalise(maker):
    model = outline(maker)
    order = [type(module).__name__ for module in model.children()]
    stage = ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
    hidden = ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    assert order == [*stage, *stage, "Flatten", *hidden, *hidden, "Linear"]
    assert maps(model, (nn.MaxPool2d,)) == [(64, 15, 15), (64, 7, 7)]
    layers = kinds(model, nn.Conv2d, nn.Linear)
    assert [layer.bias is not None for layer in layers] == [False, False, False, False, True]


def test_f1_begins_as_torch_does():
    """A uniform draw on (-a, a) with a = 1 / sqrt(fan-in); Glorot's bound for 784 to 512 is wider by 1.9."""
    first = kinds(made(hoffer2017.f1), nn.Linear)[0].weight
    assert 0.99 / math.sqrt(784) < first.abs().max() <= 1 / math.sqrt(784)


@pytest.mark.parametrize(
    ("maker", "blocks", "width", "depth"), [(hoffer2017.resnet44, 7, 16, 44), (hoffer2017.wresnet16_4, 2, 64, 14)]
)
def test_hoffers_residual_networks(maker, blocks, width, depth):
    model = outline(maker)
    found = maps(model, CONVOLUTION)
    steps = [(width << group, 32 >> group, 32 >> group) for group in range(3)]
    main = [shape for shape, conv in zip(found, kinds(model, nn.Conv2d), strict=True) if conv.kernel_size == (3, 3)]
    assert main == [steps[0], *(shape for shape in steps for _ in range(2 * blocks))]
    projections = [
        shape
        for shape, conv in zip(found, kinds(model, nn.Conv2d), strict=True)
        if shape and conv.kernel_size == (1, 1)
    ]
    assert projections == steps[1:]  # option B, only where the shape changes
    assert len(main) + 1 == depth


def test_the_cifar10_form_of_the_wide_one():
    assert sum(p.numel() for p in outline(hoffer2017.wresnet16_4, 10).parameters()) == 2_777_674


def test_a_block_without_a_branch_is_its_shortcut_and_relu():
    block = made(hoffer2017.Block, 4, 4, stride=1)
    nn.init.zeros_(block.branch[-1].weight)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("maker", [hoffer2017.resnet44, hoffer2017.vgg_one_linear, keskar2017.vgg11])
def test_convolutions_begin_normal_by_their_outputs(maker):
    model = made(maker)
    for conv in kinds(model, nn.Conv2d)[:6]:
        area = conv.kernel_size[0] * conv.kernel_size[1]
        assert_spread(conv.weight, math.sqrt(2 / (area * conv.out_channels)))
        assert conv.bias is None or not conv.bias.any()


def test_hoffers_vggs():
    full, short = outline(hoffer2017.vgg), outline(hoffer2017.vgg_one_linear)
    assert maps(full, CONVOLUTION) == maps(short, CONVOLUTION)
    assert len(maps(outline(hoffer2017.vgg), CONVOLUTION)) == 13
    assert [layer.out_features for layer in kinds(full, nn.Linear)] == [512, 10]
    assert [layer.out_features for layer in kinds(short, nn.Linear)] == [10]
    assert [layer.p for layer in kinds(full, nn.Dropout)] == [0.5]
    assert not kinds(short, nn.Dropout)


def test_alexnet():
    model = outline(hoffer2017.alexnet)
    assert maps(model, CONVOLUTION, 224) == [(64, 55, 55), (192, 27, 27), (384, 13, 13), (256, 13, 13), (256, 13, 13)]
    assert maps(outline(hoffer2017.alexnet), (nn.MaxPool2d,), 224) == [(64, 27, 27), (192, 13, 13), (256, 6, 6)]
    order = [type(module).__name__ for module in model.children()]
    assert order[:8] == ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Conv2d", "MaxPool2d", "ReLU", "BatchNorm2d"]
    assert [layer.bias is not None for layer in kinds(model, nn.Conv2d, nn.Linear)] == [False] * 7 + [True]


# Keskar's port


def test_vgg11_maps():
    model = outline(keskar2017.vgg11)
    assert maps(model, CONVOLUTION) == [
        (64, 32, 32),
        (128, 16, 16),
        *[(256, 8, 8)] * 2,
        *[(512, 4, 4)] * 2,
        *[(512, 2, 2)] * 2,
    ]
    order = [type(module) for module in model.children()]
    for i, kind in enumerate(order):
        if kind is nn.Conv2d:
            assert order[i + 1 : i + 3] == [nn.BatchNorm2d, nn.ReLU]


def test_vgg11_head():
    model = outline(keskar2017.vgg11)
    assert [(m.in_features, m.out_features) for m in kinds(model, nn.Linear)] == [(512, 4096), (4096, 4096), (4096, 10)]
    assert not kinds(model, nn.BatchNorm1d)
    assert [m.p for m in kinds(model, nn.Dropout)] == [0.5, 0.5]


# Smith, Elsen & De 2020


def canonical_wrn16_4():
    """Count the weights of WRN-16-4 by its table: 3x3 convolutions, batch norms (2 a channel), 1x1 shortcuts, linear."""
    widths = [16, 64, 128, 256]
    total = 9 * 3 * 16
    for before, width in pairwise(widths):
        total += 9 * before * width + 9 * width * width + before * width + 2 * before + 2 * width  # first block
        total += 2 * 9 * width * width + 4 * width  # second block
    return total + 2 * 256 + 256 * 10 + 10


def test_wide_resnets_by_their_table():
    counts = [sum(p.numel() for p in outline(m).parameters()) for m in (smith2020.wrn16_4, smith2020.wrn16_4_skip_init)]
    assert counts[0] == canonical_wrn16_4()
    norms = sum(2 * norm.num_features for norm in kinds(outline(smith2020.wrn16_4), nn.BatchNorm2d))
    biases = sum(conv.out_channels for conv in kinds(outline(smith2020.wrn16_4), nn.Conv2d))
    assert counts[1] == counts[0] - norms + biases + 6  # six blocks, one number each


def test_wide_resnet_normalises_before_it_convolves():
    x = images()
    block = made(smith2020.PreactivatedBlock, (3, 8), 2, skip_init=False, bias=False)
    ready = F.relu(F.batch_norm(x, None, None, torch.ones(3), torch.zeros(3), training=True))
    branch, norm = block.branch, torch.ones(8)
    inner = F.conv2d(ready, branch[0].weight, stride=2, padding=1)
    inner = F.relu(F.batch_norm(inner, None, None, norm, 0 * norm, training=True))
    inner = F.conv2d(inner, branch[3].weight, padding=1)
    exact = inner + F.conv2d(ready, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block.train()(x), exact)


@pytest.mark.parametrize("maker", [smith2020.wrn16_4_skip_init, smith2020.wrn16_4_skip_init_without_bias])
def test_skip_init_begins_as_its_skip_path(maker):
    """With every branch at 0 only the first convolution, the shortcuts, ReLU, pooling and the output are left."""
    model = made(maker).eval()
    first, *blocks = [m for m in model.children() if isinstance(m, nn.Conv2d | smith2020.PreactivatedBlock)]
    x = first(images())
    for block in blocks:
        x = x if block.shortcut is None else block.shortcut(x.relu())
    torch.testing.assert_close(model(images()), model[-1](x.relu().mean((2, 3))))
    assert not kinds(model, nn.BatchNorm2d)
    blocks[0].scale.data.fill_(0.5)
    assert not torch.equal(model(images()), model[-1](x.relu().mean((2, 3))))


def test_wide_resnets_begin_he_normal():
    for conv in kinds(made(smith2020.wrn16_4), nn.Conv2d):
        assert_spread(conv.weight, math.sqrt(2 / (conv.in_channels * conv.kernel_size[0] ** 2)))


def test_autoencoder():
    model = made(smith2020.autoencoder_logits)
    linear = kinds(model, nn.Linear)
    assert [m.in_features for m in linear] == [784, 1000, 500, 250, 30, 250, 500, 1000]
    assert linear[-1].out_features == 784
    order = [type(module) for module in model.children()][1:]
    hidden = [nn.Linear, nn.Sigmoid]
    assert order == [*hidden * 3, nn.Linear, *hidden * 3, nn.Linear]  # a linear code, and logits
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(smith2020.autoencoder)(x), model(x).sigmoid())
    for layer in linear:
        assert (layer.weight.count_nonzero(dim=1) == 15).all()
        assert_spread(layer.weight[layer.weight != 0], 1)
        assert not layer.bias.any()


# Goyal et al. 2017


def resnet50_by_hand(weights, x):
    """Go through He et al.'s table 1 with the weights in the order of the network; batch statistics everywhere."""

    def convolved(x, stride=1, padding=0):
        return F.conv2d(x, next(weights), stride=stride, padding=padding)

    def normalised(x):
        return F.batch_norm(x, None, None, next(weights), next(weights), training=True)

    x = F.max_pool2d(normalised(convolved(x, 2, 3)).relu(), 3, 2, 1)
    for group, blocks in enumerate((3, 4, 6, 3)):
        for i in range(blocks):
            stride = 2 if group > 0 and i == 0 else 1
            last = (next(weights), next(weights))  # the last norm comes first among a block's weights
            branch = normalised(convolved(x)).relu()
            branch = normalised(convolved(branch, stride, 1)).relu()
            branch = F.batch_norm(convolved(branch), None, None, *last, training=True)
            x = (branch + (normalised(convolved(x, stride)) if i == 0 else x)).relu()
    return F.linear(x.mean((2, 3)), next(weights), next(weights))


def test_resnet50_is_that_of_the_table():
    model = made(goyal2017.resnet50, 10, zero_last_gamma=False)
    x = images(2, 64)
    with torch.no_grad():
        exact = resnet50_by_hand(iter(model.parameters()), x)
        torch.testing.assert_close(model.train()(x), exact, rtol=1e-4, atol=1e-5)
    assert maps(outline(goyal2017.resnet50), (goyal2017.Bottleneck,), 224) == [
        *[(256, 56, 56)] * 3,
        *[(512, 28, 28)] * 4,
        *[(1024, 14, 14)] * 6,
        *[(2048, 7, 7)] * 3,
    ]


def test_resnet50_begins_as_goyal_says():
    model = made(goyal2017.resnet50, 100)
    blocks = kinds(model, goyal2017.Bottleneck)
    assert [sum(not norm.weight.any() for norm in kinds(block, nn.BatchNorm2d)) for block in blocks] == [1] * 16
    assert_spread(kinds(model, nn.Linear)[0].weight, 0.01)
    for conv in kinds(model, nn.Conv2d)[:12]:
        assert_spread(conv.weight, math.sqrt(2 / (conv.out_channels * conv.kernel_size[0] ** 2)))
    other = made(goyal2017.resnet50, 10, zero_last_gamma=False, linear_std=0.1)
    assert all((norm.weight == 1).all() for norm in kinds(other, nn.BatchNorm2d))
    assert_spread(kinds(other, nn.Linear)[0].weight, 0.1)
