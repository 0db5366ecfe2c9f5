"""Oracles: images of known pixels, crops counted by hand, numpy's formula of the normalisation, the distribution that a box
is drawn from with error bars fixed beforehand, and one process in place of two workers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.imagefolder import Crops, image_folder, imagenet, random_box, resized_box
from gengap.problem.load import load

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def picture(width=20, height=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    """Three classes with 3, 2 and 1 images, one each for testing; lossless, so that pixels are known."""
    seed = 0
    for split, counts in (("train", (3, 2, 1)), ("val", (1, 1, 1))):
        for name, count in zip(("n01", "n02", "n10"), counts, strict=True):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(seed=seed)).save(folder / f"{i}.png")
                seed += 1
    return tmp_path


def small(root, **options):
    return image_folder(root, **{"size": 8, "shorter": 12, "workers": 0, **options})


def test_order_labels_and_the_centre(root):
    """12x20 pixels with shorter side 12 and size 12: nothing is scaled, columns 4 to 15 are cut out."""
    found = small(root, size=12)
    assert found.train.targets.tolist() == [0, 0, 0, 1, 1, 2]
    assert found.test.targets.tolist() == [0, 1, 2]
    assert (found.classes, found.name, len(found.train)) == (3, "image-folder", 6)
    for i in range(6):
        inputs, target = found.train[i]
        exact = (picture(seed=i)[:, 4:16] / 255 - MEAN) / STD
        torch.testing.assert_close(inputs, torch.from_numpy(exact.transpose(2, 0, 1)).float(), rtol=1e-5, atol=1e-6)
        assert target == found.train.targets[i]


def test_grey_and_transparent_images_become_rgb(root):
    grey = picture()[..., 0]
    Image.fromarray(grey).save(root / "images" / "train" / "n01" / "0.png")
    inputs, _ = small(root, size=12).train[0]
    exact = (np.stack([grey[:, 4:16]] * 3) / 255 - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(inputs, torch.from_numpy(exact).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("crop", ["resized", "random"])
def test_an_epoch_is_drawn_from_seed_epoch_and_index_alone(root, crop):
    train = small(root, crop=crop).train
    seen = {(seed, epoch): train.for_epoch(seed, epoch)[1][0] for seed in (0, 1) for epoch in (0, 1)}
    assert torch.equal(train.for_epoch(1, 1)[1][0], seen[1, 1])
    values = list(seen.values())
    assert all(not torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])
    part = train.subset(torch.tensor([3, 1]))
    assert torch.equal(part.for_epoch(0, 1)[1][0], seen[0, 1])  # the same image in a smaller set
    assert part.targets.tolist() == [1, 0]
    assert torch.equal(train[1][0], small(root).train[1][0])  # the set itself stays as it was


def test_half_of_all_images_are_flipped(root):
    """Without room to crop, an image is either as it is or mirrored: 200 epochs, 5 standard errors."""
    Image.fromarray(picture(12, 12)).save(root / "images" / "train" / "n01" / "0.png")
    train = small(root, size=12, crop="random").train
    plain = train[0][0]
    views = [train.for_epoch(0, epoch)[0][0] for epoch in range(200)]
    flipped = sum(torch.equal(view, plain.flip(2)) for view in views)
    assert flipped + sum(torch.equal(view, plain) for view in views) == 200
    assert abs(flipped - 100) < 5 * math.sqrt(200 / 4)


sides = st.integers(1, 600)


@given(width=sides, height=sides, seed=st.integers(0, 100))
def test_boxes_lie_in_the_image(width, height, seed):
    for box in (resized_box, random_box):
        left, upper, right, lower = box((width, height), Crops(224, 256), np.random.default_rng(seed))
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= upper < lower <= height + 1e-9


def test_resized_boxes_have_the_published_areas_and_ratios():
    """On a square nearly every first try fits, so areas are uniform on 8 to 100 %, with mean 54 % less what is rejected."""
    rng, side = np.random.default_rng(0), 2000
    boxes = np.array([resized_box((side, side), Crops(), rng) for _ in range(2000)], float)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / side**2, width / height
    assert (area > 0.0799).all()
    assert (ratio > 3 / 4 - 0.002).all()
    assert (ratio < 4 / 3 + 0.002).all()
    below = (area < 0.5).mean()  # none of these is ever rejected: 0.42 / 0.92 of the tries, a larger share of the boxes
    fits = fitting_share()
    share = (0.42 / 0.92) / fits
    assert abs(below - share) < 5 * math.sqrt(share * (1 - share) / 2000)
    assert abs(np.log(ratio).mean()) < 5 * np.log(ratio).std() / math.sqrt(2000)


def fitting_share():
    """Integrate over area a and log-ratio t how many tries fit a square: sqrt(a exp(|t|)) <= 1."""
    area, t = np.meshgrid(np.linspace(0.08, 1, 4001), np.linspace(-math.log(4 / 3), math.log(4 / 3), 401))
    return (area * np.exp(np.abs(t)) <= 1).mean()


def test_random_boxes_are_anywhere():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box((512, 256), Crops(224, 256), rng) for _ in range(2000)])
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], 224)
    for column, room in ((0, 512 - 224), (1, 256 - 224)):
        assert abs(boxes[:, column].mean() - room / 2) < 5 * room / math.sqrt(12 * 2000)


def test_workers_do_not_change_what_is_read(root):
    alone = load("image-folder", root=root, network="convnet", size=8, shorter=12, workers=0)
    two = load("image-folder", root=root, network="convnet", size=8, shorter=12, workers=2)
    order = torch.tensor([5, 0, 3, 1])
    for one, other in zip(
        alone.samples("train").for_epoch(4, 2).batches(3, order),
        two.samples("train").for_epoch(4, 2).batches(3, order),
        strict=True,
    ):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_damaged_image_is_named_from_a_worker_too(root):
    path = root / "images" / "train" / "n02" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    for workers in (0, 1):
        problem = load("image-folder", root=root, network="convnet", size=8, shorter=12, workers=workers)
        with pytest.raises(DamagedFile, match=r"^[^\n]*n02/1.png cannot be decoded [^\n]*$"):
            list(problem.samples("train").batches(6))


def test_a_problem_is_streamed_and_augmented_by_epoch_only(root):
    problem = load("image-folder", root=root, network="convnet", size=8, shorter=12, workers=0)
    problem.check()
    samples = problem.samples("train")
    first = next(iter(samples.batches(6)))[0]
    assert torch.equal(first, next(iter(samples.batches(6)))[0])
    half = samples.subset(torch.tensor([4, 2]))
    whole_epoch, half_epoch = (next(iter(s.for_epoch(0, 1).batches(6)))[0] for s in (samples, half))
    assert torch.equal(whole_epoch[[4, 2]], half_epoch)
    assert not torch.equal(whole_epoch, first)
    in_memory = load("digits").samples("train")
    assert in_memory.for_epoch(0, 1) is in_memory


def test_random_labels_and_fewer_images(root):
    options = {"root": root, "network": "convnet", "size": 8, "shorter": 12, "workers": 0}
    problem = load("image-folder", train_size=4, random_labels=1.0, draw_seed=3, **options)
    other = load("image-folder", train_size=4, draw_seed=3, **options)
    (inputs, drawn), (same, labels) = (next(iter(p.samples("train").batches(9))) for p in (problem, other))
    assert torch.equal(inputs, same)
    assert len(drawn) == 4
    assert not torch.equal(drawn, labels)
    assert torch.equal(problem.test.targets, other.test.targets)


def test_layouts_that_cannot_be_read(root, tmp_path_factory):
    with pytest.raises(MissingData, match=r"no data root was given.*register at image-net.org"):
        imagenet(None)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(MissingData, match=r"there is no folder .*imagenet/train"):
        imagenet(empty)
    (root / "images" / "val" / "n11").mkdir()
    with pytest.raises(MissingData, match=r"there are no images in .*n11"):
        small(root)
    Image.fromarray(picture()).save(root / "images" / "val" / "n11" / "0.png")
    with pytest.raises(DamagedFile, match="has 'n11' in only one of train and val"):
        small(root)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "choose 1 <= size <= shorter"),
        ({"size": 13}, "size is 13 and shorter 12"),
        ({"crop": "centre"}, "crop is 'centre'; choose 'resized' or 'random'"),
        ({"workers": -1}, "workers is -1"),
    ],
    ids=str,
)
def test_options_that_cannot_be(root, options, says):
    with pytest.raises(BadInput, match=says):
        small(root, **options)
