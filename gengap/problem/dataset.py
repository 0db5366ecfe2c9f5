"""What a loader of the catalogue returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set in memory.

    Attributes:
        train: (inputs, targets); inputs float32 of shape (N, ...), targets int64 of shape (N,).
        test: the same for the test samples.
        classes: number of labels; targets lie in 0 .. classes - 1.
        name: what it is called in tables.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    name: str
