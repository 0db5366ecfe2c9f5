"""Oracle: the formula in numpy, and a crop that may stand before or after it."""

import numpy as np
import pytest
import torch

from gengap.core.errors import BadInput
from gengap.data.augment import CropFlip
from gengap.data.normalise import NORMALISATIONS, Normalise

NORMALISE = NORMALISATIONS["bigbatch-cifar"]


def pictures(n=4):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_every_channel_is_shifted_and_scaled():
    x = pictures()
    found = NORMALISE(x).numpy()
    for c, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        np.testing.assert_allclose(found[:, c], (x.numpy()[:, c] - mean) / std, rtol=1e-14)
    one = NORMALISE(x[0].float())
    assert one.dtype == torch.float32
    torch.testing.assert_close(one.double(), NORMALISE(x)[0], rtol=1e-6, atol=1e-6)
    assert NORMALISATIONS["bigbatch-mnist"](torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3)).flatten().tolist() == [
        -1,
        0,
        1,
    ]


def test_padding_of_normalised_images_is_normalised_padding():
    x, indices, grey = pictures(30), torch.arange(30), 127 / 255
    before = NORMALISE(CropFlip(0, fill=grey)(x, indices, 0))
    after = CropFlip(0, fill=NORMALISE.of(grey))(NORMALISE(x), indices, 0)
    torch.testing.assert_close(after, before, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("mean", "std"), [((0.1,), (1.0, 2.0)), ((), ()), ((0.0,), (0.0,)), ((0.0,), (-1.0,))])
def test_numbers_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(BadInput, match="give one for each channel, std above 0"):
        Normalise(mean, std)


@pytest.mark.parametrize("x", [torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3)])
def test_inputs_of_another_kind_are_refused(x):
    with pytest.raises(BadInput, match="give floating images with 3 channels"):
        NORMALISE(x)
