"""Shift and scale of channels: no augmentation, but the same for training and test images."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gengap.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Normalise:
    """Turn x into (x - mean) / std, channel by channel.

    Attributes:
        mean: one number for each channel.
        std: one number for each channel, > 0.

    Raises:
        BadInput: the two have different lengths, or a `std` is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(s > 0 for s in self.std):
            raise BadInput(f"mean {self.mean} and std {self.std} do not fit; give one for each channel, std above 0")

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalise.

        Args:
            inputs: floating images of shape (..., C, H, W).

        Returns:
            New images of the same shape and dtype.

        Raises:
            BadInput: they have another number of channels, or are integers.
        """
        if not inputs.is_floating_point() or inputs.ndim < 3 or inputs.shape[-3] != len(self.mean):
            raise BadInput(
                f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; "
                f"give floating images with {len(self.mean)} channels, for example x / 255"
            )
        mean, std = (inputs.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (inputs - mean) / std

    def of(self, value: float) -> tuple[float, ...]:
        """Say what one pixel value becomes in every channel, for the padding of images that are normalised already."""
        return tuple((value - m) / s for m, s in zip(self.mean, self.std, strict=True))


# Hoffer et al. 2017, arXiv:1705.08741, as coded by its authors: ImageNet's numbers for CIFAR.
NORMALISATIONS: Mapping[str, Normalise] = {
    "bigbatch-cifar": Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "bigbatch-mnist": Normalise((0.5,), (0.5,)),
}
