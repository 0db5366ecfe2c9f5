"""Images in folders by class, as ImageNet lies on the disk: decoded when they are needed, in worker processes.

Layout: `<folder>/train/CLASS/*.JPEG` and `<folder>/val/CLASS/*.JPEG`; classes are numbered by the alphabet. Images for
measuring are cropped at their centre. Images for training are augmented: `for_epoch` gives the view of one epoch, in which
crop and flip of a sample are drawn from (seed, epoch, index) and from nothing else, however many workers there are.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.core.seeds import stream
from gengap.data.normalise import Normalise
from gengap.data.root import folder_of
from gengap.problem.dataset import DataSet

NORMALISE = Normalise(
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
)  # mean and deviation of ImageNet's pixels, in [0, 1]
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # Szegedy et al. 2015, arXiv:1409.4842
TRIES = 10
MOST_WORKERS = 8
Crop = Literal["resized", "random"]
Box = tuple[float, float, float, float]  # left, upper, right, lower


@dataclass(frozen=True, slots=True)
class Crops:
    """How an image becomes an input.

    Attributes:
        size: side of the input, pixels.
        shorter: the shorter side is scaled to this before a crop of `size`; 256 for 224.
        training: "resized": a part of 8 to 100 % of the area, its ratio from 3/4 to 4/3, scaled to `size`; "random": a
            square of `size` anywhere in the scaled image, as Hoffer et al. 2017 train AlexNet. Both flip every second.
    """

    size: int = 224
    shorter: int = 256
    training: Crop = "resized"

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be cut.

        Raises:
            BadInput: a size is not positive, the crop is larger than the image, or `training` is no such crop.
        """
        if not 1 <= self.size <= self.shorter:
            raise BadInput(f"size is {self.size} and shorter {self.shorter}; choose 1 <= size <= shorter")
        if self.training not in get_args(Crop):
            raise BadInput(f"crop is {self.training!r}; choose 'resized' or 'random'")


@dataclass(frozen=True, slots=True, eq=False)
class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images with labels, read from their files each time.

    Attributes:
        files: one image each.
        targets: their labels, int64 of shape (N,).
        places: by which their augmentation is drawn, int64 of shape (N,): the places in the whole set.
        crops: how they are cut.
        workers: processes that decode, 0 for this one; results do not depend on it.
        drawn: (seed, epoch) of the augmentation; None: cropped at the centre.
    """

    files: Sequence[Path]
    targets: Tensor
    places: Tensor
    crops: Crops
    workers: int = 0
    drawn: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Decode one image.

        Args:
            index: which, from 0.

        Returns:
            The input, float32 of shape (3, size, size), normalised by ImageNet's mean and deviation; and the label.

        Raises:
            DamagedFile: the file is no image, or is cut short.
        """
        try:
            with Image.open(self.files[index]) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise DamagedFile(f"{self.files[index]} cannot be decoded ({error}); get it again, or remove it") from error
        return _normalised(self._cut(image, index)), int(self.targets[index])

    def _cut(self, image: Image.Image, index: int) -> Image.Image:
        """Crop, scale and flip."""
        if self.drawn is None:
            return _scaled(image, _centre(image.size, self.crops), self.crops.size)
        seed, epoch = self.drawn
        rng = np.random.default_rng(stream(seed, "augment", epoch, int(self.places[index])))
        box = resized_box if self.crops.training == "resized" else random_box
        cut = _scaled(image, box(image.size, self.crops, rng), self.crops.size)
        return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut

    def for_epoch(self, seed: int, epoch: int) -> "ImageFolder":
        """Give the augmented images of one epoch."""
        return replace(self, drawn=(seed, epoch))

    def with_targets(self, targets: Tensor) -> "ImageFolder":
        """Give the same images with other labels."""
        return replace(self, targets=targets)

    def subset(self, indices: Tensor) -> "ImageFolder":
        """Keep only the images with these indices."""
        files = [self.files[i] for i in indices.tolist()]
        return replace(self, files=files, targets=self.targets[indices], places=self.places[indices])


def imagenet(
    root: str | Path | None = None,
    *,
    size: int = 224,
    shorter: int = 256,
    crop: Crop = "resized",
    workers: int | None = None,
) -> DataSet:
    """Read ImageNet-1k from `<root>/imagenet`, with `train` and `val` in it.

    Args:
        root: the data root.
        size: side of the inputs.
        shorter: the shorter side before a crop at the centre or anywhere.
        crop: of training images: "resized" or "random", see `Crops`.
        workers: processes that decode; None: one for each processor, at most 8.

    Returns:
        Data sets that are streamed; inputs of shape (3, size, size).

    Raises:
        BadInput: a size or `crop` cannot be used.
        MissingData: no root, or a folder is not there or empty.
        DamagedFile: the two folders have other classes.
    """
    crops = Crops(size, shorter, crop)
    return _read_set(folder_of("imagenet", root), crops, workers, "imagenet")


def image_folder(
    root: str | Path | None = None,
    *,
    folder: str = "",
    size: int = 224,
    shorter: int = 256,
    crop: Crop = "resized",
    workers: int | None = None,
) -> DataSet:
    """Read images of the user's from `<root>/images`, or from another folder with `train` and `val` in it.

    Args:
        root: the data root; not needed where `folder` is an absolute path.
        folder: below `<root>/images`, or absolute.
        size: side of the inputs.
        shorter: the shorter side before a crop at the centre or anywhere.
        crop: of training images: "resized" or "random", see `Crops`.
        workers: processes that decode; None: one for each processor, at most 8.

    Returns:
        Data sets that are streamed; inputs of shape (3, size, size).

    Raises:
        BadInput: a size or `crop` cannot be used.
        MissingData: no root, or a folder is not there or empty.
        DamagedFile: the two folders have other classes.
    """
    crops = Crops(size, shorter, crop)
    place = Path(folder) if Path(folder).is_absolute() else folder_of("image-folder", root) / folder
    return _read_set(place, crops, workers, "image-folder")


def _read_set(folder: Path, crops: Crops, workers: int | None, name: str) -> DataSet:
    """List both splits."""
    count = min(MOST_WORKERS, os.cpu_count() or 1) if workers is None else workers
    if count < 0:
        raise BadInput(f"workers is {workers}; choose 0 or more")
    listed = {split: list_images(folder / split) for split in ("train", "val")}
    (train, classes), (test, other) = listed["train"], listed["val"]
    if classes != other:
        odd = sorted(set(classes) ^ set(other))
        raise DamagedFile(f"{folder} has {odd[0]!r} in only one of train and val; both must have the same classes")
    return DataSet(_labelled(train, crops, count), _labelled(test, crops, count), len(classes), name)


def list_images(folder: Path) -> tuple[list[list[Path]], list[str]]:
    """List the images of a split, everything in the order of the alphabet.

    Args:
        folder: with one folder for each class.

    Returns:
        For each class its files; and the names of the classes.

    Raises:
        MissingData: there is no such folder, no class in it, or no image in a class.
    """
    if not folder.is_dir():
        raise MissingData(f"there is no folder {folder}; put images there as CLASS/name.jpg, in train and in val")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    found = [
        sorted(Path(entry.path) for entry in os.scandir(folder / name) if Path(entry.name).suffix.lower() in SUFFIXES)
        for name in classes
    ]
    if not classes or not all(found):
        where = folder / classes[[bool(files) for files in found].index(False)] if classes else folder
        raise MissingData(f"there are no images in {where}; put them there as {', '.join(sorted(SUFFIXES))}")
    return found, classes


def _labelled(by_class: list[list[Path]], crops: Crops, workers: int) -> ImageFolder:
    """Number the classes."""
    sizes = torch.tensor([len(files) for files in by_class])
    targets = torch.arange(len(by_class)).repeat_interleave(sizes)
    files = [file for files in by_class for file in files]
    return ImageFolder(files, targets, torch.arange(len(files)), crops, workers)


def resized_box(size: tuple[int, int], crops: Crops, rng: Generator) -> Box:
    """Draw the part of an image that is scaled to the input: area and ratio at random, where ten tries find one.

    Args:
        size: width and height of the image.
        crops: not used beyond the fallback, a crop at the centre.
        rng: what it is drawn from.

    Returns:
        The part, in pixels of the image.
    """
    width, height = size
    for _ in range(TRIES):
        area = rng.uniform(*AREA) * width * height
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, upper, left + w, upper + h
    return _centre(size, crops)


def random_box(size: tuple[int, int], crops: Crops, rng: Generator) -> Box:
    """Draw where a square of the input's size lies in the image whose shorter side was scaled.

    Args:
        size: width and height of the image.
        crops: the sizes of both.
        rng: what it is drawn from.

    Returns:
        The square, in pixels of the image as it is.
    """
    return _square(size, crops, rng.random(), rng.random())


def _centre(size: tuple[int, int], crops: Crops) -> Box:
    """Give the square in the middle."""
    return _square(size, crops, 0.5, 0.5)


def _square(size: tuple[int, int], crops: Crops, x: float, y: float) -> Box:
    """Give the square of the input's size that lies at these shares of the room left beside and below it."""
    side = crops.size / crops.shorter * min(size)
    left, upper = x * (size[0] - side), y * (size[1] - side)
    return left, upper, left + side, upper + side


def _scaled(image: Image.Image, box: Box, size: int) -> Image.Image:
    """Scale a part of an image to a square, bilinear with antialiasing."""
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _normalised(image: Image.Image) -> Tensor:
    """Turn an RGB image into a tensor of shape (3, H, W)."""
    return NORMALISE(torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32).div_(255))
