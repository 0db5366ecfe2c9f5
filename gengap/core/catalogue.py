"""Everything that can be named: networks, data sets and losses, listed without loading torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeVar

from gengap.core.errors import BadInput

KESKAR = "Keskar et al. 2017, arXiv:1609.04836"
AS_CODED = "form of the authors' code"
STRIDED = "stride 2 in the convolutions, as printed"
NO_INNER_DROPOUT = "no dropout inside the stacks, as printed"
SMITH_LE = "Smith & Le 2018, arXiv:1710.06451"


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
    """

    builder: str
    input_shape: tuple[int, ...]
    classes: int
    weights: int
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: its size, and where it is read.

    Attributes:
        builder: "module:function"; the function takes `root` (a folder or None) and options, and returns a `DataSet`.
        train: training samples.
        test: test samples.
        input_shape: one sample.
        classes: number of labels.
        network: the network that `gengap.load` takes when none is named.
        source: whom to cite.
        files: layout below the data root; "" where nothing is read.
        loss: the loss that `gengap.load` takes when none is named.
        small: batch size that `gengap compare` takes as the small one.
        large: and as the large one; a share of the training set.
        epochs: and its budget.
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
    large: str = "10%"
    epochs: int = 20


NETWORKS: Mapping[str, Network] = {
    "mlp": Network("gengap.nets.digits:mlp", (1, 8, 8), 10, 17_226, "gengap", "64-128-64-10 with ReLU"),
    "convnet": Network(
        "gengap.nets.digits:convnet", (1, 8, 8), 10, 26_090, "gengap", "3x3 convolutions 16-32-64 with batch norm"
    ),
    "smith-le-mlp": Network("gengap.nets.smith_le2018:mlp", (1, 28, 28), 10, 636_010, SMITH_LE, "784-800-10"),
    "logistic": Network(
        "gengap.nets.smith_le2018:logistic",
        (200,),
        2,
        201,
        SMITH_LE,
        "one output, its sign is the class",
    ),
    "keskar-f1": Network("gengap.nets.keskar2017:f1", (1, 28, 28), 10, 1_462_794, KESKAR),
    "keskar-f2": Network("gengap.nets.keskar2017:f2", (360,), 1973, 2_780_085, KESKAR),
    "keskar-c1": Network("gengap.nets.keskar2017:c1", (3, 32, 32), 10, 1_757_834, KESKAR, AS_CODED),
    "keskar-c2": Network("gengap.nets.keskar2017:c2", (3, 32, 32), 10, 14_991_946, KESKAR, AS_CODED),
    "keskar-c3": Network("gengap.nets.keskar2017:c3", (3, 32, 32), 100, 1_775_204, KESKAR, AS_CODED),
    "keskar-c4": Network("gengap.nets.keskar2017:c4", (3, 32, 32), 100, 15_038_116, KESKAR, AS_CODED),
    "keskar-c1-literal": Network(
        "gengap.nets.keskar2017:c1_literal",
        (3, 32, 32),
        10,
        283_274,
        KESKAR,
        STRIDED,
    ),
    "keskar-c3-literal": Network(
        "gengap.nets.keskar2017:c3_literal",
        (3, 32, 32),
        100,
        300_644,
        KESKAR,
        STRIDED,
    ),
    "keskar-c2-literal": Network(
        "gengap.nets.keskar2017:c2_literal",
        (3, 32, 32),
        10,
        14_991_946,
        KESKAR,
        NO_INNER_DROPOUT,
    ),
    "keskar-c4-literal": Network(
        "gengap.nets.keskar2017:c4_literal",
        (3, 32, 32),
        100,
        15_038_116,
        KESKAR,
        NO_INNER_DROPOUT,
    ),
}

DATA: Mapping[str, Data] = {
    "digits": Data(
        "gengap.data.digits:load",
        1_000,
        797,
        (1, 8, 8),
        10,
        "convnet",
        "Alpaydin & Kaynak 1998, in scikit-learn; embedded",
        small=32,
        large="100%",
        epochs=60,
    ),
    "mnist": Data(
        "gengap.data.idx:mnist", 60_000, 10_000, (1, 28, 28), 10, "keskar-f1", "LeCun et al. 1998", "MNIST/raw"
    ),
    "fashion-mnist": Data(
        "gengap.data.idx:fashion_mnist",
        60_000,
        10_000,
        (1, 28, 28),
        10,
        "keskar-f1",
        "Xiao et al. 2017",
        "FashionMNIST/raw",
    ),
    "cifar-10": Data(
        "gengap.data.cifar:cifar10",
        50_000,
        10_000,
        (3, 32, 32),
        10,
        "keskar-c1",
        "Krizhevsky 2009",
        "cifar-10-batches-py",
    ),
    "cifar-100": Data(
        "gengap.data.cifar:cifar100",
        50_000,
        10_000,
        (3, 32, 32),
        100,
        "keskar-c3",
        "Krizhevsky 2009",
        "cifar-100-python",
    ),
    "gaussian-informative": Data(
        "gengap.data.synthetic:informative",
        200,
        10_000,
        (200,),
        2,
        "logistic",
        "Smith & Le 2018, arXiv:1710.06451, fig. 1b",
        loss="binary_cross_entropy",
        small=10,
        large="100%",
        epochs=100,
    ),
    "gaussian-random": Data(
        "gengap.data.synthetic:random_labels",
        200,
        10_000,
        (200,),
        2,
        "logistic",
        "Smith & Le 2018, arXiv:1710.06451, fig. 1a",
        loss="binary_cross_entropy",
        small=10,
        large="100%",
        epochs=100,
    ),
}

E = TypeVar("E")


def find(kind: str, entries: Mapping[str, E], name: str) -> E:
    """Look a name up.

    Args:
        kind: what it is, for the message: "network", "data set", "loss".
        entries: the catalogue.
        name: the name to find.

    Returns:
        The entry.

    Raises:
        BadInput: the name is not in the catalogue; the message lists the names that are.
    """
    if name not in entries:
        raise BadInput(f"there is no {kind} called {name!r}; known are: {', '.join(entries)}")
    return entries[name]


def resolve(builder: str) -> Callable[..., Any]:
    """Import what "module:function" names.

    Args:
        builder: "package.module:attribute".

    Returns:
        The attribute.

    Raises:
        BadInput: the text has no colon, the module cannot be imported, or it has no such attribute.
    """
    module_name, colon, attribute = builder.partition(":")
    if not colon or not module_name or not attribute:
        raise BadInput(f"{builder!r} names no function; write it as package.module:function")
    try:
        module = import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything while it is imported
        raise BadInput(f"cannot import {module_name!r} of {builder!r}: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise BadInput(f"module {module_name!r} has no function {attribute!r}; check the part after the colon")
    return found  # type: ignore[no-any-return]
