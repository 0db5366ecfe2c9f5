"""`gengap.load`: the catalogue's problems."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from gengap.core.catalogue import DATA, NETWORKS, find, resolve
from gengap.core.errors import BadInput
from gengap.problem.problem import Origin, Problem


def load(
    data: str,
    *,
    network: str | None = None,
    root: str | Path | None = None,
    loss: str | None = None,
    **options: Any,
) -> Problem:
    """Make a problem of the catalogue.

    Args:
        data: name of a data set: "digits", "mnist", "fashion-mnist", "cifar-10", "cifar-100", "gaussian-informative",
            "gaussian-random" (`gengap list data`).
        network: name of a network (`gengap list networks`); by default the one that goes with the data.
        root: folder with the data in torchvision's layout; by default the environment variable GENGAP_DATA.
        loss: by default the one that goes with the data.
        options: options of the data set, for example train_size=500 for the digits.

    Returns:
        The problem.

    Raises:
        BadInput: a name is unknown, an option does not exist, or network and data do not fit.
    """
    entry = find("data set", DATA, data)
    network = network or entry.network
    net = find("network", NETWORKS, network)
    builder = resolve(entry.builder)
    known = [name for name in inspect.signature(builder).parameters if name != "root"]
    unknown = [name for name in options if name not in known]
    if unknown:
        have = f"it has {', '.join(known)}" if known else "it has none"
        raise BadInput(f"data set {data!r} has no option {unknown[0]!r}; {have}")
    folder = root if root is not None else os.environ.get("GENGAP_DATA") or None
    found = builder(Path(folder) if folder is not None else None, **options)
    return Problem(
        model=fitting(net.builder, network, tuple(found.train[0].shape[1:]), found.classes),
        loss=loss or entry.loss,
        train=found.train,
        test=found.test,
        name=f"{network} on {data}",
        origin=Origin(data=data, network=network, options=tuple(sorted(options.items()))),
    )


def fitting(builder: str, network: str, input_shape: tuple[int, ...], classes: int) -> Callable[[], nn.Module]:
    """Give a factory of the network for these inputs and classes.

    Args:
        builder: "module:function" of the catalogue; functions that take `input_shape` and `classes` fit any data.
        network: its name, for messages.
        input_shape: one sample.
        classes: number of labels.

    Returns:
        A function that makes a fresh module.
    """
    make = resolve(builder)
    takes = inspect.signature(make).parameters
    fixed = {key: value for key, value in (("input_shape", input_shape), ("classes", classes)) if key in takes}

    def factory() -> nn.Module:
        try:
            return make(**fixed)  # type: ignore[no-any-return]
        except ValueError as error:
            raise BadInput(f"{network} cannot be made for inputs of shape {input_shape}: {error}") from error

    factory.__name__ = network
    return factory
