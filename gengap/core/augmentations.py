"""The augmentations that can be named, listed without loading torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KESKAR = "Keskar et al. 2017, arXiv:1609.04836, app. E.1"
HOFFER = "Hoffer et al. 2017, arXiv:1705.08741, as coded by its authors"


@dataclass(frozen=True, slots=True)
class Entry:
    """A named augmentation.

    Attributes:
        builder: "module:class"; takes `seed` and options by name.
        source: where it is described.
        options: what the name stands for; a user's options come on top.
        note: what a reader should know about the form chosen.
    """

    builder: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


AUGMENTATIONS: Mapping[str, Entry] = {
    "keskar": Entry(
        "gengap.data.affine:Keskar",
        KESKAR,
        note="reflection, rotation to 10 degrees, translation to 0.2; edge pixels fill, which the paper leaves open",
    ),
    "crop-flip": Entry("gengap.data.crop_flip:CropFlip", "He et al. 2016, arXiv:1512.03385, sec. 4.2"),
    "bigbatch-cifar": Entry(
        "gengap.data.crop_flip:CropFlip", HOFFER, {"pad": 4, "fill": 127 / 255}, "grey around the image"
    ),
    "bigbatch-mnist": Entry("gengap.data.crop_flip:CropFlip", HOFFER, {"pad": 2}, "mirrors digits, as coded"),
}
