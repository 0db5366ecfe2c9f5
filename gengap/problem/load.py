"""`gengap.load`: the catalogue's problems."""

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from gengap.core.catalogue import DATA, NETWORKS, find, resolve
from gengap.core.errors import BadInput
from gengap.problem.dataset import DataSet, chosen, length, shape_of_one, targets_of, with_targets
from gengap.problem.problem import Origin, Problem

# named, not imported: data sets lie above problems
SUBSET, RANDOMISE = "gengap.data.order:subset", "gengap.data.labels:randomise_labels"


def load(
    data: str,
    *,
    network: str | None = None,
    root: str | Path | None = None,
    loss: str | None = None,
    train_size: int | None = None,
    random_labels: float = 0.0,
    draw_seed: int = 0,
    **options: Any,
) -> Problem:
    """Make a problem of the catalogue.

    Args:
        data: name of a data set, for example "digits", "mnist" or "cifar-10" (`gengap list data`).
        network: name of a network (`gengap list networks`); by default the one that goes with the data.
        root: folder with the data in torchvision's layout; by default the environment variable GENGAP_DATA.
        loss: by default the one that goes with the data.
        train_size: train on so many samples, drawn without repetition; a smaller choice is part of a larger.
        random_labels: share of the training samples whose label is drawn anew, uniformly from all classes; test labels stay.
        draw_seed: what both are drawn from.
        options: options of the data set, for example labels="coarse" for CIFAR-100.

    Returns:
        The problem.

    Raises:
        BadInput: a name is unknown, an option does not exist, or network and data do not fit.
    """
    entry = find("data set", DATA, data)
    network = network or entry.network
    net = find("network", NETWORKS, network)
    builder = resolve(entry.builder)
    own = [name for name in inspect.signature(builder).parameters if name != "root"]
    draws = {"train_size": train_size, "random_labels": random_labels or None, "draw_seed": draw_seed or None}
    given = options | {name: value for name, value in draws.items() if value is not None}
    unknown = [name for name in options if name not in own]
    if unknown:
        known = ", ".join(dict.fromkeys([*own, *draws]))
        raise BadInput(f"data set {data!r} has no option {unknown[0]!r}; it has {known}")
    folder = root if root is not None else os.environ.get("GENGAP_DATA") or None
    if "train_size" in own and train_size is not None:  # cut by a rule of its own
        options, train_size = options | {"train_size": train_size}, None
    found = builder(Path(folder) if folder is not None else None, **options)
    found = drawn(found, train_size, random_labels, seed=draw_seed)
    return Problem(
        model=fitting(net.builder, network, shape_of_one(found.train), found.classes),
        loss=loss or entry.loss,
        train=found.train,
        test=found.test,
        name=f"{network} on {data}",
        origin=Origin(data=data, network=network, options=tuple(sorted(given.items()))),
    )


def drawn(found: DataSet, train_size: int | None, random_labels: float, *, seed: int) -> DataSet:
    """Cut the training set, and randomise labels of what is left.

    Args:
        found: a data set.
        train_size: training samples to keep; None: all.
        random_labels: share of them whose label is drawn anew.
        seed: what both are drawn from.

    Returns:
        The same test set with another training set.

    Raises:
        BadInput: there are not so many samples, the share is outside 0 to 1, or the targets are no labels.
    """
    train = found.train
    if train_size is not None:
        train = chosen(train, resolve(SUBSET)(seed, length(train), train_size))
    if random_labels:
        labels = resolve(RANDOMISE)(targets_of(train, found.name), random_labels, found.classes, seed)
        train = with_targets(train, labels)
    return replace(found, train=train)


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
