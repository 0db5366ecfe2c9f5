"""Batches of images, shape (B, C, H, W), on their way through an augmentation: what is refused, and how they are gone through."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from gengap.core.errors import BadInput

BLOCK = 2**18  # numbers changed at once on a CPU: the intermediate results stay in the cache


class Augmentation(Protocol):
    """A random change of images."""

    def __call__(self, inputs: Tensor, indices: Tensor, epoch: int, *, out: Tensor | None = None) -> Tensor:
        """Change the images of shape (B, C, H, W) whose places in the training set are `indices`, shape (B,)."""
        ...

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse samples of a shape that cannot be augmented."""
        ...


@torch.no_grad()
def in_blocks(change: Callable[..., None], out: Tensor, inputs: Tensor, *draws: Tensor) -> Tensor:
    """Change a few images at a time on a CPU, all at once elsewhere.

    Args:
        change: takes the same rows of `out`, `inputs` and `draws`, and writes the first.
        out: shape (B, C, H, W); may be `inputs` where `change` allows that.
        inputs: shape (B, C, H, W).
        draws: what was drawn for each image, first axis B.

    Returns:
        `out`.
    """
    if not inputs.numel():
        return out
    size = max(1, BLOCK // inputs[0].numel()) if inputs.device.type == "cpu" else len(inputs)
    for block in zip(*(tensor.split(size) for tensor in (out, inputs, *draws)), strict=True):
        change(*block)
    return out


def room(inputs: Tensor, out: Tensor | None) -> Tensor:
    """Make room for the result, or look at what was given.

    Args:
        inputs: the images.
        out: where to write, or None.

    Returns:
        `out`, or a new tensor like the images, contiguous.

    Raises:
        BadInput: `out` is not like the images, not contiguous, or needs a gradient.
    """
    if out is None:
        return torch.empty(inputs.shape, dtype=inputs.dtype, device=inputs.device)
    if out.shape != inputs.shape or out.dtype != inputs.dtype or not out.is_contiguous() or out.requires_grad:
        raise BadInput(
            f"out is {out.dtype} of shape {tuple(out.shape)} for {inputs.dtype} of shape {tuple(inputs.shape)}; "
            f"give a contiguous tensor like the images that needs no gradient"
        )
    return out


def check_between(name: str, value: Any, most: float) -> None:
    """Refuse what is no number from 0 to `most`.

    Args:
        name: of the option.
        value: of the option.
        most: the largest.

    Raises:
        BadInput: it is none.
    """
    if not isinstance(value, int | float) or not 0 <= value <= most:
        raise BadInput(f"{name} is {value!r}; give a number from 0 to {most}")


def check_image(shape: tuple[int, ...]) -> None:
    """Refuse samples that are no images.

    Args:
        shape: of one sample.

    Raises:
        BadInput: it is not (channels, height, width).
    """
    if len(shape) != 3 or min(shape) < 1:
        raise BadInput(f"samples of shape {tuple(shape)} are no images; augmentation needs (channels, height, width)")


def check_call(augment: Augmentation, inputs: Tensor, indices: Tensor, epoch: int) -> None:
    """Refuse a call whose parts do not fit together.

    Args:
        augment: what is called.
        inputs: the images.
        indices: their places in the training set.
        epoch: from 0.

    Raises:
        BadInput: the images do not suit the augmentation, there is not one integer for each, or `epoch` is negative.
    """
    augment.check_shape(tuple(inputs.shape[1:]))
    if indices.shape != inputs.shape[:1] or indices.is_floating_point():
        raise BadInput(
            f"indices are {indices.dtype} of shape {tuple(indices.shape)} for {len(inputs)} images; "
            f"give each image's place in the training set as an integer"
        )
    if epoch < 0:
        raise BadInput(f"epoch is {epoch}; epochs count from 0")
