"""What a catalogue entry says."""

from dataclasses import dataclass
from typing import Protocol


class Entry(Protocol):
    """What every catalogue entry has."""

    builder: str


@dataclass(frozen=True, slots=True)
class Network:
    """What a paper says about one of its networks, and where it is built.

    Attributes:
        builder: "module:function"; the function takes keyword options and returns a fresh `nn.Module`.
        input_shape: one sample, without the batch axis; networks that flatten take any shape of that size.
        classes: width of the output.
        weights: trainable numbers; a test builds the network and counts them.
        source: where it is described.
        note: what a reader should know about the form chosen.
        tokens: inputs are token numbers, int64 in 0 .. classes - 1, and every position is answered.
    """

    builder: str
    input_shape: tuple[int, ...]
    classes: int
    weights: int
    source: str
    note: str = ""
    tokens: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: its size, and where it is read.

    Attributes:
        builder: "module:function"; the function takes `root` (a folder or None) and options, and returns a `DataSet`.
        train: training samples; 0 where the user's files decide.
        test: test samples; 0 where the user's files decide.
        input_shape: one sample.
        classes: number of labels, or numbers of a target that is no label; 0 where the user's files decide.
        network: the network that `gengap.load` takes when none is named.
        source: whom to cite.
        files: layout below the data root; "" where nothing is read.
        loss: the loss that `gengap.load` takes when none is named.
        small: batch size that `gengap compare` takes as the small one.
        large: and as the large one; a share of the training set.
        epochs: and its budget.
        note: what a reader should know about the form chosen.
        obtain: how to come by the files, where `gengap data fetch` cannot get them.
        tokens: one sample is a window of token numbers; the tokens of a batch are its samples times `input_shape[0]`.
    """

    builder: str
    train: int
    test: int
    input_shape: tuple[int, ...]
    classes: int
    network: str
    source: str
    files: str = ""
    loss: str = "cross_entropy"
    small: int = 256
    large: str | int = "10%"
    epochs: int = 20
    note: str = ""
    obtain: str = ""
    tokens: bool = False
