"""`gengap.load`: the catalogue's problems."""

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gengap.core.catalogue import DATA, NETWORKS, find, resolve
from gengap.core.errors import BadInput
from gengap.problem.dataset import DataSet, Split, chosen, length, shape_of_one, targets_of, with_targets
from gengap.problem.problem import Origin, Problem
from gengap.problem.validation import SUBSET, parted

RANDOMISE = "gengap.data.labels:randomise_labels"  # named, not imported: data sets lie above problems


def load(
    data: str,
    *,
    network: str | None = None,
    root: str | Path | None = None,
    loss: str | None = None,
    train_size: int | None = None,
    validation: float = 0,
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
        validation: samples to choose by, held out of the data set's training samples: a share of them below 1, or how many.
            They are the same for every `train_size`, and take nothing away from it (of digits, which cuts itself, they do).
        random_labels: share of the training samples whose label is drawn anew, uniformly from all classes; others stay.
        draw_seed: what these are drawn from.
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
    draws = {
        "train_size": train_size,
        "validation": validation or None,
        "random_labels": random_labels or None,
        "draw_seed": draw_seed or None,
    }
    given = options | {name: value for name, value in draws.items() if value is not None}
    unknown = [name for name in options if name not in own]
    if unknown:
        known = ", ".join(dict.fromkeys([*own, *draws]))
        raise BadInput(f"data set {data!r} has no option {unknown[0]!r}; it has {known}")
    folder = root if root is not None else os.environ.get("GENGAP_DATA") or None
    if "train_size" in own and train_size is not None:  # cut by a rule of its own
        options, train_size = options | {"train_size": train_size}, None
    found = builder(Path(folder) if folder is not None else None, **options)
    found, held = cut(found, validation, train_size, seed=draw_seed)
    found = with_random_labels(found, random_labels, seed=draw_seed)
    return Problem(
        model=fitting(net.builder, network, shape_of_one(found.train), found.classes),
        loss=loss or entry.loss,
        train=found.train,
        test=found.test,
        validation=held,
        name=f"{network} on {data}",
        origin=Origin(data=data, network=network, options=tuple(sorted(given.items()))),
    )


def cut(found: DataSet, validation: float, train_size: int | None, *, seed: int) -> tuple[DataSet, Split | None]:
    """Cut the training set, and hold samples out of what it does not use.

    Args:
        found: a data set of N training samples.
        validation: samples to hold out, as a share below 1 or a number; 0: none.
        train_size: training samples to keep; None: all that are not held out.
        seed: what both are drawn from.

    Returns:
        The same test set with a smaller training set, and the samples held out, or None.

    Raises:
        BadInput: there are not so many samples.
    """
    total = length(found.train)
    rest, held = parted(validation, total, seed=seed)
    if train_size is not None and len(held) and train_size > len(rest):
        raise BadInput(
            f"train_size is {train_size:,} and {len(held):,} of the {total:,} samples of {found.name} are held out for "
            f"validation; train on {len(rest):,} or less"
        )
    if train_size is not None:
        rest = resolve(SUBSET)(seed, total, train_size)
    kept = found.train if len(rest) == total else chosen(found.train, rest)
    return replace(found, train=kept), chosen(found.train, held) if len(held) else None


def with_random_labels(found: DataSet, random_labels: float, *, seed: int) -> DataSet:
    """Draw labels of the training set anew.

    Args:
        found: a data set.
        random_labels: share of the training samples whose label is drawn anew.
        seed: what they are drawn from.

    Returns:
        The same inputs with other labels.

    Raises:
        BadInput: the share is outside 0 to 1, or the targets are no labels.
    """
    if not random_labels:
        return found
    labels = resolve(RANDOMISE)(targets_of(found.train, found.name), random_labels, found.classes, seed)
    return replace(found, train=with_targets(found.train, labels))


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
    takes = inspect.signature(resolve(builder)).parameters
    fixed = {key: value for key, value in (("input_shape", input_shape), ("classes", classes)) if key in takes}
    # unlike a function inside this one it can go to other processes
    return partial(fitted, builder, network, input_shape, fixed)


def fitted(builder: str, network: str, input_shape: tuple[int, ...], fixed: dict[str, Any]) -> nn.Module:
    """Make a fresh network.

    Args:
        builder: "module:function" of the catalogue.
        network: its name, for the message.
        input_shape: one sample.
        fixed: arguments of the function.

    Returns:
        The network.

    Raises:
        BadInput: the function refuses these inputs.
    """
    try:
        return resolve(builder)(**fixed)  # type: ignore[no-any-return]
    except ValueError as error:
        raise BadInput(f"{network} cannot be made for inputs of shape {input_shape}: {error}") from error
