"""Augmentation of whole batches on their device, where the change of a sample depends on seed, epoch and sample alone.

Batch size, micro-batches, order, ranks and interruptions have no part in it: the random numbers are hashes of the sample's
index (`gengap.problem.counter_random`).
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from gengap.core.augmentations import AUGMENTATIONS
from gengap.core.catalogue import find, resolve
from gengap.core.errors import BadInput
from gengap.data.affine import Keskar
from gengap.data.crop_flip import CropFlip
from gengap.data.image_batches import Augmentation

__all__ = ["AUGMENTATIONS", "Augmentation", "CropFlip", "Keskar", "make_augmentation"]


def make_augmentation(spec: str | Mapping[str, Any], seed: int, shape: tuple[int, ...]) -> Augmentation:
    """Make a named augmentation.

    Args:
        spec: a name of `AUGMENTATIONS`, or a mapping with `name` and options, as {"name": "crop-flip", "pad": 2}.
        seed: the run's seed.
        shape: of one sample, (C, H, W).

    Returns:
        A function of (inputs, indices, epoch).

    Raises:
        BadInput: the name or an option is unknown, an option is out of its range, or the samples are no images.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in options:
        raise BadInput(f"augmentation {options} has no name; add one of: {', '.join(AUGMENTATIONS)}")
    name = str(options.pop("name"))
    entry = find("augmentation", AUGMENTATIONS, name)
    kind: Callable[..., Augmentation] = resolve(entry.builder)
    known = [field.name for field in fields(kind) if field.name != "seed"]  # type: ignore[arg-type]
    if unknown := sorted(set(options) - set(known)):
        raise BadInput(f"augmentation {name!r} has no option {unknown[0]!r}; it has: {', '.join(known)}")
    made = kind(seed=seed, **{**entry.options, **options})
    made.check_shape(shape)
    return made
