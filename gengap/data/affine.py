"""Mirroring, rotation and translation by any fraction of a pixel."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.data.image_batches import check_between, check_call, check_image, in_blocks, room
from gengap.problem.counter_random import happens, uniform, words

FILLS = {"border": "border", "zeros": "zeros", "reflect": "reflection"}  # ours: grid_sample's
INTERPOLATIONS = ("bilinear", "nearest")


@dataclass(frozen=True, slots=True)
class Keskar:
    """Mirror every image by chance, turn it about its centre, and shift it: "aggressive" augmentation.

    Angle and both shifts are uniform. The paper says neither how pixels from outside are filled nor how those in between are
    found; here the edge is repeated, and neighbours are mixed linearly. An image is read once: the three motions are one map.

    Attributes:
        seed: the run's seed.
        degrees: largest angle either way, 0 to 180.
        shift: largest shift either way along each axis, as a share of the image's size, 0 to 1.
        flip: probability of mirroring, 0 to 1.
        fill: "border" repeats the edge, "zeros" is 0, "reflect" mirrors at the outer edge of the outermost pixels.
        interpolation: "bilinear" or "nearest".

    Raises:
        BadInput: a value out of its range.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, app. E.1: horizontal reflections, random rotations up to 10 degrees, random
        translation of up to 0.2 times the size of the image.
    """

    seed: int
    degrees: float = 10.0
    shift: float = 0.2
    flip: float = 0.5
    fill: Literal["border", "zeros", "reflect"] = "border"
    interpolation: Literal["bilinear", "nearest"] = "bilinear"

    def __post_init__(self) -> None:
        for name, most in (("degrees", 180), ("shift", 1), ("flip", 1)):
            check_between(name, getattr(self, name), most)
        for name, known in (("fill", tuple(FILLS)), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in known:
                raise BadInput(f"{name} is {getattr(self, name)!r}; choose one of: {', '.join(known)}")

    def __call__(self, inputs: Tensor, indices: Tensor, epoch: int, *, out: Tensor | None = None) -> Tensor:
        """Mirror, turn counter-clockwise by the angle, and shift, in this order.

        Args:
            inputs: images of shape (B, C, H, W), floating; half precisions are computed in float32.
            indices: the place of each in the training set, integers of shape (B,).
            epoch: from 0.
            out: where to write, contiguous; may be `inputs`. By default a new tensor, which for thousands of images costs as
                much time as changing them, because the system hands out its memory page by page.

        Returns:
            `out`: images of the same shape and dtype, without a gradient.

        Raises:
            BadInput: shapes do not fit, `out` is of another form, `epoch` is negative, or the images are integers.
        """
        check_call(self, inputs, indices, epoch)
        out = room(inputs, out)
        if not inputs.is_floating_point():
            raise BadInput(f"images of {inputs.dtype} cannot be turned; make them floating, for example x / 255")
        bits = words(stream(self.seed, "augment", epoch), indices.to(inputs.device), 4)
        either_way = 2 * uniform(bits[:, :3].contiguous(), inputs.dtype) - 1
        angle, down, right = either_way.unbind(1)
        size = inputs.shape[2:]
        motion = angle * math.radians(self.degrees), down * (self.shift * size[0]), right * (self.shift * size[1])
        return in_blocks(self._move, out, inputs, *motion, happens(bits[:, 3], self.flip))

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are no images.

        Args:
            shape: of one sample.

        Raises:
            BadInput: they are not.
        """
        check_image(shape)

    def _move(self, out: Tensor, images: Tensor, *motion: Tensor) -> None:
        """Read the images where their pixels come from."""
        places = _sources(images.shape[2], images.shape[3], *motion)
        out.copy_(
            F.grid_sample(
                images.to(places.dtype),
                places,
                mode=self.interpolation,
                padding_mode=FILLS[self.fill],
                align_corners=False,
            )
        )


def _sources(H: int, W: int, angle: Tensor, down: Tensor, right: Tensor, flipped: Tensor) -> Tensor:
    """Say for every pixel where it comes from, as grid_sample wants it: x before y, -1 to 1 from edge to edge."""
    # source = c + mirror(turn(p - c - shift)) for pixel p and centre c: each coordinate is a part of the column's and one of
    # the row's. Products are written out because a batched matrix product may round differently for other batch sizes.
    x = _from_centre(W, angle) - right.unsqueeze(1)
    y = _from_centre(H, angle) - down.unsqueeze(1)
    cos, sin = angle.cos().unsqueeze(1), angle.sin().unsqueeze(1)
    across = (1 - 2 * flipped.to(angle.dtype)).unsqueeze(1) * (2 / W)
    places = angle.new_empty(len(angle), H, W, 2)
    torch.add((across * cos * x).unsqueeze(1), (-across * sin * y).unsqueeze(2), out=places[..., 0])
    torch.add((2 / H * sin * x).unsqueeze(1), (2 / H * cos * y).unsqueeze(2), out=places[..., 1])
    return places


def _from_centre(size: int, like: Tensor) -> Tensor:
    """Give the places of pixels along one axis, counted from the middle of the image."""
    return torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
