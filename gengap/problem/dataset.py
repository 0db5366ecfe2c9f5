"""What a loader of the catalogue returns."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Subset

from gengap.core.errors import BadInput
from gengap.problem.trees import map_tensors

Split = Any  # (inputs, targets), or a map-style data set of such pairs


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set in memory, or one that is streamed.

    Attributes:
        train: (inputs, targets) with samples along the first axis; inputs float32, or int64 where they are tokens; targets
            int64 class numbers, or floating numbers to be met. Or a map-style data set of such pairs, which is streamed.
        test: the same for the test samples.
        classes: number of labels, targets lie in 0 .. classes - 1; or how many numbers a target has.
        name: what it is called in tables.
        tokens_per_sample: tokens in a window of text; 1 where a sample is one thing.
    """

    train: Split
    test: Split
    classes: int
    name: str
    tokens_per_sample: int = 1


def shape_of_one(split: Split) -> tuple[int, ...]:
    """Give the shape of one input."""
    inputs = split[0][0]  # of a pair its first row, of a data set the input of its first sample
    return tuple(inputs.shape)


def length(split: Split) -> int:
    """Count the samples."""
    return len(split[1]) if isinstance(split, tuple) else len(split)


def chosen(split: Split, indices: Tensor) -> Split:
    """Keep only some samples, in the order of the indices."""
    if isinstance(split, tuple):
        return map_tensors(lambda x: x[indices], split)
    return split.subset(indices) if hasattr(split, "subset") else Subset(split, indices.tolist())


def targets_of(split: Split, name: str) -> Tensor:
    """Give all targets.

    Args:
        split: a pair, or a data set that knows its targets without reading its inputs.
        name: of the data, for the message.

    Returns:
        The targets.

    Raises:
        BadInput: the data set does not tell.
    """
    if isinstance(split, tuple):
        return split[1]  # type: ignore[no-any-return]
    if not hasattr(split, "with_targets"):
        raise BadInput(
            f"the labels of {name} are read with its inputs and cannot be changed; randomise them in its files"
        )
    return split.targets  # type: ignore[no-any-return]


def with_targets(split: Split, targets: Tensor) -> Split:
    """Give the same inputs with other targets."""
    return (split[0], targets) if isinstance(split, tuple) else split.with_targets(targets)
