"""Data as a user of a ready model has them: tensors, a data set, or a loader."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from gengap.core.errors import BadInput
from gengap.problem.problem import said
from gengap.problem.samples import Batch, Collate, InMemory, Samples, Streamed, collate, in_memory, parse_bytes
from gengap.problem.trees import leaves

LIMIT = parse_bytes("4 GiB")
HINT = "give a pair of tensors (inputs, targets), a map-style data set of such pairs, or a DataLoader of one"


@dataclass(frozen=True, slots=True)
class Joined:
    """A user's `collate_fn`, whose result is checked.

    Attributes:
        function: from a list of samples to a batch.
    """

    function: Any

    def __call__(self, items: Sequence[Any]) -> Batch:
        """Make a batch.

        Args:
            items: samples.

        Returns:
            Inputs and targets.

        Raises:
            BadInput: the function makes no such pair.
        """
        batch = self.function(list(items))
        if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[1], Tensor):
            shape = f"{len(batch)} things" if isinstance(batch, tuple | list | dict) else f"a {type(batch).__name__}"
            raise BadInput(f"a batch of the data holds {shape}; let collate_fn return a pair (inputs, targets tensor)")
        inputs, targets = batch
        rows = {leaf.shape[0] if leaf.ndim else 0 for leaf in [*leaves(inputs), targets]}
        if rows != {len(items)}:
            raise BadInput(
                f"collate_fn made tensors of {sorted(rows)} rows from {len(items)} samples; let samples be the first axis of "
                f"inputs and targets"
            )
        return (tuple(inputs) if isinstance(inputs, list) else inputs), targets


def samples_of(data: Any, chosen: Tensor | Sequence[int] | None) -> tuple[Samples, Streamed | None, str]:
    """Take data in any of its forms.

    Args:
        data: a pair of tensors, a map-style data set, or a DataLoader.
        chosen: indices or a mask of the samples to use, or None for all.

    Returns:
        The samples, in memory where they fit; the data set behind them, where it might give others when read again; and
        what to call them.

    Raises:
        BadInput: the data are of no such form.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[1], Tensor):
        return only(InMemory(data[0], data[1]), chosen), None, "tensors"
    dataset, join = unloaded(data) if isinstance(data, DataLoader) else (data, collate)
    check_map_style(dataset)
    name = type(dataset).__name__
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2 and join is collate:
        return only(InMemory(*dataset.tensors), chosen), None, name
    streamed = only(Streamed(dataset, torch.device("cpu"), None, join), chosen)
    size = size_of_one(streamed) * len(streamed)
    return in_memory(streamed) if size <= LIMIT else streamed, streamed, name


def only(samples: Any, chosen: Tensor | Sequence[int] | None) -> Any:
    """Keep the chosen samples.

    Args:
        samples: in memory or streamed.
        chosen: indices, a mask, or None.

    Returns:
        Samples of the same kind.

    Raises:
        BadInput: an index is out of range, or none is left.
    """
    if chosen is None:
        return samples
    indices, total = torch.as_tensor(chosen), len(samples)
    if indices.dtype == torch.bool and indices.shape == (total,):
        indices = indices.nonzero().flatten()
    if indices.ndim != 1 or indices.dtype not in {torch.int64, torch.int32} or not len(indices):
        raise BadInput(
            f"samples is {indices.dtype} of shape {tuple(indices.shape)}; give at least one index from 0 to {total - 1}"
        )
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= total:
        raise BadInput(f"samples holds {low if low < 0 else high}; give indices from 0 to {total - 1}")
    return samples.subset(indices.long())


def check_map_style(dataset: Any) -> None:
    """Refuse what has no samples that can be asked for one by one.

    Args:
        dataset: what the user gave.

    Raises:
        BadInput: it is a stream, nothing of the kind, or empty.
    """
    if isinstance(dataset, IterableDataset):
        raise BadInput(
            f"data are a {type(dataset).__name__}, a stream without indices, which cannot be read twice in the same way; give "
            f"a map-style data set with __len__ and __getitem__"
        )
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")) or isinstance(
        dataset, Tensor | dict | str
    ):
        raise BadInput(f"data are a {type(dataset).__name__}; {HINT}")
    if not len(dataset):
        raise BadInput("data have no samples; give at least one")


def unloaded(loader: "DataLoader[Any]") -> tuple[Any, Collate]:
    """Take a loader apart.

    Args:
        loader: one that goes through its data set once an epoch, in any order.

    Returns:
        The data set, and what makes a batch of its samples.

    Raises:
        BadInput: it leaves samples out, repeats some, or makes no batches.
    """
    batches = loader.batch_sampler
    if isinstance(loader.dataset, IterableDataset):
        return loader.dataset, collate
    if batches is None:
        raise BadInput("the DataLoader has batch_size=None and makes no batches; give it a batch_size, or its data set")
    if type(batches) is not BatchSampler:
        raise BadInput(
            f"the DataLoader has a batch_sampler of its own, a {type(batches).__name__}, which may leave samples out or repeat "
            f"some; give its data set, loader.dataset"
        )
    join: Collate = collate if loader.collate_fn is default_collate else Joined(loader.collate_fn)
    sampler = batches.sampler
    if type(sampler) is SubsetRandomSampler:
        return Subset(loader.dataset, [int(i) for i in sampler.indices]), join
    plain = type(sampler) is SequentialSampler or (type(sampler) is RandomSampler and not sampler.replacement)
    if not plain or len(sampler) != len(loader.dataset):  # type: ignore[arg-type]
        raise BadInput(
            f"the DataLoader draws by a {type(sampler).__name__}, which leaves samples out or repeats some; give its data set, "
            f"loader.dataset"
        )
    return loader.dataset, join


def size_of_one(streamed: Streamed) -> int:
    """Return the bytes of the first sample.

    Args:
        streamed: a data set.

    Returns:
        Bytes of its inputs and its target.

    Raises:
        BadInput: it is no pair of things that stack to tensors.
    """
    try:
        inputs, targets = streamed.join([streamed.dataset[0]])
        return sum(leaf.nbytes for leaf in [*leaves(inputs), targets])
    except BadInput:
        raise
    except Exception as error:  # a user's data set may raise anything
        raise BadInput(
            f"the first sample of the data is no (input, target) pair of tensors, arrays or numbers: {said(error)}"
        ) from error
