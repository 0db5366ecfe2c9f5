"""Random crops of padded images, and mirroring."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.data.image_batches import check_between, check_call, check_image, in_blocks, room
from gengap.problem.counter_random import below, happens, words


@dataclass(frozen=True, slots=True)
class CropFlip:
    """Pad every image, cut its own size out of it at a random place, and mirror it left to right by chance.

    Cost: each pixel is read and written twice (`benchmarks/augmentation.py`).

    Attributes:
        seed: the run's seed.
        pad: pixels on each side, >= 0 and less than the image has.
        fill: the value of padding, one number or one for each channel. It is padding of the images as given: where they are
            normalised before, take `Normalise.of(value)`.
        flip: probability of mirroring, 0 to 1.

    Raises:
        BadInput: a value out of its range.

    Source:
        He et al. 2016, arXiv:1512.03385, sec. 4.2 (pad 4, zeros). Hoffer et al. 2017, arXiv:1705.08741, as coded: on CIFAR
        the padding is grey, 127 of 255; on MNIST pad 2, and digits are mirrored as well.
    """

    seed: int
    pad: int = 4
    fill: float | tuple[float, ...] = 0.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.pad, int) or self.pad < 0:
            raise BadInput(f"pad is {self.pad!r}; give the pixels on each side, 0 or more")
        check_between("flip", self.flip, 1)
        if isinstance(self.fill, list):  # as JSON has it
            object.__setattr__(self, "fill", tuple(self.fill))
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in self._fills()):
            raise BadInput(f"fill is {self.fill!r}; give a finite number, or one for each channel")

    def __call__(self, inputs: Tensor, indices: Tensor, epoch: int, *, out: Tensor | None = None) -> Tensor:
        """Crop and flip.

        Args:
            inputs: images of shape (B, C, H, W), floating or integer.
            indices: the place of each in the training set, integers of shape (B,).
            epoch: from 0.
            out: where to write, contiguous; may be `inputs`. By default a new tensor, which for thousands of images costs as
                much time as changing them, because the system hands out its memory page by page.

        Returns:
            `out`: images of the same shape and dtype, without a gradient.

        Raises:
            BadInput: shapes do not fit, `out` is of another form, `epoch` is negative, or integer images cannot hold `fill`.
        """
        check_call(self, inputs, indices, epoch)
        out = room(inputs, out)
        if not inputs.is_floating_point() and not all(holds(inputs.dtype, value) for value in self._fills()):
            raise BadInput(f"images of {inputs.dtype} cannot hold fill {self.fill!r}; give it in their own scale")
        bits = words(stream(self.seed, "augment", epoch), indices.to(inputs.device), 3)
        places = 2 * self.pad + 1
        down, right, flipped = below(bits[:, 0], places), below(bits[:, 1], places), happens(bits[:, 2], self.flip)
        return in_blocks(self._cut, out, inputs, down, right, flipped)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are no images, are smaller than the padding, or have another number of channels.

        Args:
            shape: of one sample.

        Raises:
            BadInput: they are.
        """
        check_image(shape)
        if self.pad >= min(shape[1:]):
            raise BadInput(f"pad is {self.pad} for images of {shape[1]} x {shape[2]}; give less than their size")
        if len(self._fills()) not in {1, shape[0]}:
            raise BadInput(f"fill has {len(self._fills())} values for {shape[0]} channels; give one, or one for each")

    def _fills(self) -> tuple[float, ...]:
        return self.fill if isinstance(self.fill, tuple) else (self.fill,)

    def _cut(self, out: Tensor, images: Tensor, down: Tensor, right: Tensor, flipped: Tensor) -> None:
        """Gather the pixels of every cut; where it begins is counted in the padded image."""
        B, C, H, W = images.shape
        padded = self._padded(images)
        across = torch.arange(W, device=images.device)
        rows = down.unsqueeze(1) + torch.arange(H, device=images.device)
        columns = right.unsqueeze(1) + torch.where(flipped.unsqueeze(1), W - 1 - across, across)
        pixels = rows.unsqueeze(2) * padded.shape[3] + columns.unsqueeze(1)
        torch.gather(padded.flatten(2), 2, pixels.view(B, 1, H * W).expand(B, C, H * W), out=out.view(B, C, H * W))

    def _padded(self, images: Tensor) -> Tensor:
        """Put the padding around."""
        if len(self._fills()) == 1:
            return F.pad(images, (self.pad,) * 4, value=self._fills()[0])
        B, C, H, W = images.shape
        padded = images.new_tensor(self.fill).view(1, C, 1, 1).repeat(B, 1, H + 2 * self.pad, W + 2 * self.pad)
        padded[:, :, self.pad : self.pad + H, self.pad : self.pad + W] = images
        return padded


def holds(dtype: torch.dtype, value: float) -> bool:
    """Tell whether an integer dtype has a value."""
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max and value == int(value)
