"""CPU time of augmenting CIFAR-like images in batches against a DataLoader that transforms one image after the other.

The peer is what most training code does: a data set whose every item goes through random transforms alone, collated by a
DataLoader without workers. Its transforms are written here in plain torch calls, with which torchvision does the same work and
some checks more (its wheel for torch's CPU build is not installed everywhere). Both sides begin with the same images in memory
and end with shuffled batches: ours gathers its samples and augments them in place. The aim is 50,000 images a second on one core,
gathering included.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.record import Wall, in_turns
from gengap.data.augment import make_augmentation

SHAPE = (3, 32, 32)
IMAGES = 10_240
AIM = 50_000  # images a second
REPETITIONS = 9
SPECS: dict[str, dict[str, Any]] = {"crop-flip": {"name": "crop-flip"}, "keskar": {"name": "keskar"}}
BATCHES = (128, 1024, 5120)


def entries(*, quick: bool) -> Iterator[Wall]:
    n = 256 if quick else IMAGES
    images = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))
    for name, spec in SPECS.items():
        for size in [n // 2, n] if quick else BATCHES:
            contestants = {"ours": ours(images, spec, size), "peer": peer(images, name, size)}
            seconds = in_turns(contestants, 1 if quick else REPETITIONS)
            best = n / min(seconds["ours"])
            yield Wall(
                name=f"{name}, {n:,} images, batch {size}",
                ours=seconds["ours"],
                at_most=n / AIM,
                what="DataLoader, one by one",
                peer=seconds["peer"],
                notes={
                    "images": n,
                    "batch_size": size,
                    "augmentation": spec,
                    "seconds_are": "of CPU time, one thread",
                    "images_per_second_at_best": float(f"{best:.3g}"),
                },
            )


def ours(images: Tensor, spec: dict[str, Any], size: int) -> Callable[[], float]:
    augment = make_augmentation(spec, 0, SHAPE)

    def once() -> float:
        clock = time.process_time()
        for rows in torch.randperm(len(images)).split(size):
            batch = images[rows]
            augment(batch, rows, 0, out=batch)
        return time.process_time() - clock

    return once


class Transformed(Dataset[Tensor]):
    def __init__(self, images: Tensor, change: Callable[[Tensor], Tensor]) -> None:
        self.images, self.change = images, change

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.change(self.images[index])


def peer(images: Tensor, name: str, size: int) -> Callable[[], float]:
    change = {"crop-flip": cropped, "keskar": moved}[name]

    def once() -> float:
        clock = time.process_time()
        for _ in DataLoader(Transformed(images, change), batch_size=size, shuffle=True):
            pass
        return time.process_time() - clock

    return once


def flipped(image: Tensor) -> Tensor:
    return image.flip(2) if random.random() < 0.5 else image


def cropped(image: Tensor) -> Tensor:
    padded = F.pad(image, (4, 4, 4, 4))
    i, j = random.randrange(9), random.randrange(9)
    return flipped(padded[:, i : i + 32, j : j + 32])


def moved(image: Tensor) -> Tensor:
    angle = math.radians(random.uniform(-10, 10))
    right, down = random.uniform(-0.4, 0.4), random.uniform(-0.4, 0.4)  # the image is 2 wide and 2 high
    rows = [[math.cos(angle), -math.sin(angle), right], [math.sin(angle), math.cos(angle), down]]
    grid = F.affine_grid(torch.tensor([rows]), [1, *SHAPE], align_corners=False)
    batch = flipped(image).unsqueeze(0)
    return F.grid_sample(batch, grid, padding_mode="border", align_corners=False).squeeze(0)
