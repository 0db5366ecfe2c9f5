"""Oracles: crops found by trying all of them with numpy slices; motions by scipy.ndimage, one image at a time, with the draws
of a SplitMix64 in Python integers; counts by chi-square; and the same images in other batches, bit for bit."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import ndimage

from gengap.core.augmentations import AUGMENTATIONS
from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.data import image_batches
from gengap.data.augment import CropFlip, Keskar, make_augmentation

MASK = 2**64 - 1
NAMES = list(AUGMENTATIONS)
MODES = {"border": "nearest", "zeros": "grid-constant", "reflect": "reflect"}  # ours: scipy's


def images(n, shape, dtype=torch.float32, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def splitmix64(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def draws(seed, epoch, index, n):
    (state,) = islice(splitmix64(stream(seed, "augment", epoch)), index, index + 1)
    return list(islice(splitmix64(state), n))


# what holds for every augmentation


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_a_sample_is_changed_alike_in_every_batch(name):
    augment = make_augmentation(name, 5, (3, 20, 24))
    x, indices = images(90, (3, 20, 24)), torch.randperm(10**6, generator=torch.Generator().manual_seed(1))[:90]
    whole = augment(x, indices, 2)
    for size in (1, 7, 64):
        parts = zip(x.split(size), indices.split(size), strict=True)
        assert torch.equal(torch.cat([augment(a, i, 2) for a, i in parts]), whole)
    shuffled = torch.randperm(90, generator=torch.Generator().manual_seed(2))
    assert torch.equal(augment(x[shuffled], indices[shuffled], 2), whole[shuffled])


def test_blocks_make_no_difference(name, monkeypatch):
    augment = make_augmentation(name, 5, (1, 9, 9))
    x, indices = images(30, (1, 9, 9)), torch.arange(30)
    whole = augment(x, indices, 0)
    monkeypatch.setattr(image_batches, "BLOCK", 81 * 4)
    assert torch.equal(augment(x, indices, 0), whole)


def test_another_instance_gives_the_same_and_another_epoch_seed_or_sample_does_not(name):
    x, indices = images(1, (3, 16, 16)).expand(40, 3, 16, 16), torch.arange(40)
    first = make_augmentation(name, 0, (3, 16, 16))(x, indices, 0)
    assert torch.equal(make_augmentation(name, 0, (3, 16, 16))(x, indices, 0), first)
    others = {
        "epoch": make_augmentation(name, 0, (3, 16, 16))(x, indices, 1),
        "seed": make_augmentation(name, 1, (3, 16, 16))(x, indices, 0),
        "sample": make_augmentation(name, 0, (3, 16, 16))(x, indices + 40, 0),
    }
    for what, other in others.items():
        assert (other != first).flatten(1).any(1).sum() > 30, what


def test_inputs_are_kept_unless_they_are_the_place_to_write(name):
    augment = make_augmentation(name, 0, (3, 12, 12))
    x, indices = images(50, (3, 12, 12)), torch.arange(50)
    before = x.clone()
    made = augment(x, indices, 0)
    assert torch.equal(x, before)
    assert augment(x, indices, 0, out=x) is x
    assert torch.equal(x, made)


def test_layout_and_gradient_of_the_inputs_do_not_matter(name):
    augment = make_augmentation(name, 0, (3, 12, 10))
    x, indices = images(6, (3, 12, 10)), torch.arange(6)
    expected = augment(x, indices, 0)
    assert torch.equal(augment(x.contiguous(memory_format=torch.channels_last), indices, 0), expected)
    found = augment(x.requires_grad_(), indices, 0)
    assert torch.equal(found, expected)
    assert not found.requires_grad


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(NAMES),
    st.sampled_from([(1, 28, 28), (3, 32, 32), (1, 5, 7), (2, 9, 6), (4, 33, 5)]),
    st.integers(0, 4),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    st.integers(0, 2**63 - 1),
)
def test_shape_and_dtype_are_kept(name, shape, n, dtype, seed):
    x = images(n, shape, dtype)
    found = make_augmentation(name, seed, shape)(x, torch.arange(n), 0)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert found.isfinite().all()
    assert found.numel() == 0 or (found.min() >= 0 and found.max() <= 1)


def test_the_global_generator_is_not_touched(name):
    before = torch.get_rng_state()
    make_augmentation(name, 0, (1, 8, 8))(images(3, (1, 8, 8)), torch.arange(3), 0)
    assert torch.equal(before, torch.get_rng_state())


# crops


def all_crops(image, pad, fill):
    """Every crop of an image, mirrored or not, as numpy makes them: {(down, right, mirrored): pixels}."""
    H, W = image.shape[1:]
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    cuts = {}
    for i in range(2 * pad + 1):
        for j in range(2 * pad + 1):
            cut = padded[:, i : i + H, j : j + W]
            cuts[i, j, False], cuts[i, j, True] = cut, cut[:, :, ::-1]
    return cuts


def which(found, cuts):
    """Say which crop an image is."""
    (key,) = [key for key, cut in cuts.items() if np.array_equal(cut, found)]
    return key


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.float64])
@pytest.mark.parametrize(("pad", "fill"), [(4, 0), (2, 7), (0, 0)])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9)])
def test_every_image_is_one_of_its_crops(shape, pad, fill, dtype):
    x = (images(40, shape, torch.float64) * 200 + 10).to(dtype)
    found = CropFlip(3, pad=pad, fill=fill)(x, torch.arange(40), 1)
    chosen = {which(f.numpy(), all_crops(image.numpy(), pad, fill)) for f, image in zip(found, x, strict=True)}
    assert len(chosen) > (1 if pad == 0 else 20)


def test_all_crops_are_equally_likely():
    """8,100 samples over 162 crops: chi-square within 5 standard deviations of its 161 degrees of freedom."""
    image = images(1, (1, 9, 9))
    cuts = all_crops(image[0].numpy(), 4, 0)
    lookup = {cut.tobytes(): key for key, cut in cuts.items()}
    found = CropFlip(0)(image.expand(8100, 1, 9, 9), torch.arange(8100), 0)
    counts = dict.fromkeys(cuts, 0)
    for f in found.numpy():
        counts[lookup[f.tobytes()]] += 1
    excess = sum((n - 50) ** 2 / 50 for n in counts.values()) - 161
    assert abs(excess) < 5 * math.sqrt(2 * 161)
    assert 4 * math.sqrt(2 * 161) < 8100 * 0.1**2  # probabilities a tenth too high and too low would be seen


def test_a_crop_is_that_of_the_pinned_draws():
    """A change here would change the images of recorded runs."""
    x = images(20, (2, 10, 12), torch.float64)
    found = CropFlip(11, pad=3)(x, torch.arange(100, 120), 4)
    for i in range(20):
        down, right, mirror = (word >> 32 for word in draws(11, 4, 100 + i, 3))
        expected = all_crops(x[i].numpy(), 3, 0)[down * 7 >> 32, right * 7 >> 32, mirror < 2**31]
        np.testing.assert_array_equal(found[i].numpy(), expected)


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_mirroring_can_be_certain_or_off(chance, share):
    x = images(50, (3, 6, 6))
    found = CropFlip(0, pad=0, flip=chance)(x, torch.arange(50), 0)
    assert (found == x.flip(3)).flatten(1).all(1).double().mean() == share
    assert (found == x).flatten(1).all(1).double().mean() == 1 - share


def test_padding_has_a_value_for_each_channel():
    x = torch.zeros(200, 3, 6, 6, dtype=torch.float64)
    found = CropFlip(0, pad=2, fill=(1.0, 2.0, 3.0))(x, torch.arange(200), 0)
    for channel, value in enumerate((1.0, 2.0, 3.0)):
        assert set(found[:, channel].unique().tolist()) == {0.0, value}
    ones = CropFlip(0, pad=2, fill=1.0)(x, torch.arange(200), 0)
    assert torch.equal(found[:, 0], ones[:, 0])


def test_the_published_code_pads_with_grey_and_by_two():
    white, many = torch.ones(300, 3, 32, 32), torch.arange(300)
    grey = make_augmentation("bigbatch-cifar", 0, (3, 32, 32))(white, many, 0)
    assert set(grey.unique().tolist()) == {1.0, torch.tensor(127 / 255).item()}
    assert (grey != 1).any(3).sum(2).max() == 32  # a column of padding reaches from top to bottom
    digits = make_augmentation("bigbatch-mnist", 0, (1, 28, 28))(torch.ones(300, 1, 28, 28), many, 0)
    assert set(digits.unique().tolist()) == {0.0, 1.0}
    assert (digits[:, 0].sum((1, 2)).min(), digits[:, 0].sum((1, 2)).max()) == (26 * 26, 28 * 28)


# reflection, rotation, translation


def settings_of(augment, epoch, index, shape):
    """Angle in radians, shifts in pixels, and mirroring, from the twin's draws in float64."""
    *motion, mirror = draws(augment.seed, epoch, index, 4)
    angle, down, right = (2 * (word >> 11) / 2**53 - 1 for word in motion)
    return (
        math.radians(augment.degrees) * angle,
        augment.shift * shape[1] * down,
        augment.shift * shape[2] * right,
        (mirror >> 32) < augment.flip * 2**32,
    )


def moved(image, augment, motion):
    """Move one image (C, H, W) with scipy: mirrored first, then read at turn(p - c - shift) + c, in (row, column)."""
    angle, down, right, mirror = motion
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - turn @ (centre + np.array([down, right]))
    order = {"bilinear": 1, "nearest": 0}[augment.interpolation]
    plane = image[:, :, ::-1] if mirror else image
    return np.stack([
        ndimage.affine_transform(c, turn, offset, order=order, mode=MODES[augment.fill], cval=0.0) for c in plane
    ])


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill", list(MODES))
@pytest.mark.parametrize(("shape", "how"), [((3, 11, 17), {}), ((1, 8, 8), {"degrees": 75, "shift": 0.5, "flip": 0.3})])
def test_motions_are_those_of_scipy(shape, how, fill, interpolation):
    augment = Keskar(7, fill=fill, interpolation=interpolation, **how)
    x = images(25, shape, torch.float64)
    found = augment(x, torch.arange(50, 75), 3)
    chosen = [settings_of(augment, 3, 50 + i, shape) for i in range(25)]
    assert {motion[3] for motion in chosen} == {False, True}
    for i, motion in enumerate(chosen):
        np.testing.assert_allclose(found[i].numpy(), moved(x[i].numpy(), augment, motion), atol=1e-12)


def test_float32_is_the_same_to_its_precision():
    x = images(40, (3, 32, 32), torch.float64)
    exact, single = (Keskar(1)(x.to(d), torch.arange(40), 0).double() for d in (torch.float64, torch.float32))
    assert (exact - single).abs().max() < 2e-5  # pixels differ by up to 1, places by up to 32 float32 roundings of 16


def test_a_positive_angle_turns_counter_clockwise():
    """As scipy's `rotate` does on the screen, rows going down."""
    augment = Keskar(2, degrees=40, shift=0, flip=0)
    x = images(12, (1, 15, 15), torch.float64)
    found = augment(x, torch.arange(12), 0)
    angles = [math.degrees(settings_of(augment, 0, i, (1, 15, 15))[0]) for i in range(12)]
    assert min(angles) < -10
    assert max(angles) > 10
    for f, image, angle in zip(found, x, angles, strict=True):
        expected = ndimage.rotate(image[0].numpy(), angle, reshape=False, order=1, mode="nearest")
        np.testing.assert_allclose(f[0].numpy(), expected, atol=1e-12)


def test_a_positive_shift_goes_down_and_right():
    augment = Keskar(2, degrees=0, shift=0.3, flip=0)
    x = images(12, (1, 10, 20), torch.float64)
    found = augment(x, torch.arange(12), 0)
    for i in range(12):
        _, down, right, _ = settings_of(augment, 0, i, (1, 10, 20))
        expected = ndimage.shift(x[i, 0].numpy(), (down, right), order=1, mode="nearest")
        np.testing.assert_allclose(found[i, 0].numpy(), expected, atol=1e-12)


def test_nothing_is_changed_where_nothing_may_move():
    x = images(10, (3, 7, 8), torch.float64)
    torch.testing.assert_close(Keskar(0, degrees=0, shift=0, flip=0)(x, torch.arange(10), 0), x, rtol=0, atol=1e-14)


def test_the_paper_s_range_is_filled_and_not_left():
    """Where a point in the centre goes: over 20,000 samples the shifts reach 0.2 of the size either way and no farther."""
    size, n = 41, 20_000
    x = torch.zeros(1, 1, size, size)
    x[..., size // 2, size // 2] = 1
    found = Keskar(0)(x.expand(n, 1, size, size), torch.arange(n), 0)[:, 0]
    places = torch.arange(size) - size // 2
    for profile in (found.sum(2), found.sum(1)):
        centre = (profile * places).sum(1) / profile.sum(1)
        assert 0.99 * 0.2 * size < centre.max() < 0.2 * size + 1
        assert -0.99 * 0.2 * size > centre.min() > -0.2 * size - 1
        deviation = 2 * 0.2 * size / math.sqrt(12)
        assert abs(centre.mean()) < 5 * deviation / math.sqrt(n)


# refusals


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mixup", "there is no augmentation called 'mixup'; known are: keskar, crop-flip"),
        ({"pad": 3}, "has no name; add one of: keskar"),
        ({"name": "keskar", "angle": 3}, "augmentation 'keskar' has no option 'angle'; it has: degrees, shift"),
        ({"name": "crop-flip", "seed": 3}, "has no option 'seed'"),
        ({"name": "keskar", "degrees": -1}, "degrees is -1; give a number from 0 to 180"),
        ({"name": "keskar", "degrees": "10"}, "degrees is '10'"),
        ({"name": "keskar", "shift": math.nan}, "shift is nan"),
        ({"name": "keskar", "fill": "grey"}, "fill is 'grey'; choose one of: border, zeros, reflect"),
        ({"name": "keskar", "interpolation": "cubic"}, "interpolation is 'cubic'"),
        ({"name": "crop-flip", "flip": 2}, "flip is 2; give a number from 0 to 1"),
        ({"name": "crop-flip", "pad": -1}, "pad is -1; give the pixels on each side"),
        ({"name": "crop-flip", "pad": 1.5}, "pad is 1.5"),
        ({"name": "crop-flip", "pad": 8}, "pad is 8 for images of 8 x 9; give less than their size"),
        ({"name": "crop-flip", "fill": "grey"}, "fill is 'grey'; give a finite number"),
        ({"name": "crop-flip", "fill": math.inf}, "fill is inf"),
        ({"name": "crop-flip", "fill": [1, 2]}, "fill has 2 values for 3 channels"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(spec, says):
    with pytest.raises(BadInput) as caught:
        make_augmentation(spec, 0, (3, 8, 9))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_come_on_top_of_what_a_name_stands_for():
    made = make_augmentation({"name": "bigbatch-cifar", "pad": 2, "fill": [0.1, 0.2, 0.3]}, 9, (3, 8, 8))
    assert made == CropFlip(9, pad=2, fill=(0.1, 0.2, 0.3))
    assert make_augmentation("bigbatch-cifar", 9, (3, 8, 8)) == CropFlip(9, pad=4, fill=127 / 255)
    assert make_augmentation({"name": "keskar", "degrees": 3}, 9, (3, 8, 8)) == Keskar(9, degrees=3)


@pytest.mark.parametrize("shape", [(784,), (8, 8), (3, 0, 8)])
def test_samples_that_are_no_images_are_refused(name, shape):
    with pytest.raises(BadInput, match="are no images"):
        make_augmentation(name, 0, shape)


def test_calls_that_do_not_fit_are_refused(name):
    augment, x = make_augmentation(name, 0, (1, 8, 8)), images(3, (1, 8, 8))
    for indices in (torch.arange(2), torch.rand(3), torch.arange(3).unsqueeze(1)):
        with pytest.raises(BadInput, match="for 3 images"):
            augment(x, indices, 0)
    with pytest.raises(BadInput, match="epoch is -1"):
        augment(x, torch.arange(3), -1)
    for out in (torch.empty(2, 1, 8, 8), torch.empty(3, 1, 8, 8, dtype=torch.float64), x.transpose(2, 3)):
        with pytest.raises(BadInput, match="give a contiguous tensor like the images"):
            augment(x, torch.arange(3), 0, out=out)
    with pytest.raises(BadInput, match="are no images"):
        augment(x[:, 0], torch.arange(3), 0)


def test_integer_images_take_only_what_they_hold():
    x, indices = torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.arange(3)
    with pytest.raises(BadInput, match=r"images of torch.uint8 cannot be turned; make them floating"):
        Keskar(0)(x, indices, 0)
    for fill in (127 / 255, 256, -1):
        with pytest.raises(BadInput, match="cannot hold fill"):
            CropFlip(0, fill=fill)(x, indices, 0)
