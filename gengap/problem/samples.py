"""The samples of one split, in memory or streamed; both give the same batches for the same order."""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from gengap.core.errors import BadInput
from gengap.problem.trees import Tree, cast, leaves, map_tensors, split

Batch = tuple[Tree, Tensor]
Collate = Callable[[Sequence[Any]], Batch]
GATHER = 4096  # samples copied at once when shuffling: large enough to hide the call, small enough for the cache
FINGERPRINT = 64  # samples of a streamed set that are hashed
REREAD = 64  # samples that are read twice to find out whether they change: a flip with chance 1/2 hides once in 2^64
UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class Samples(Protocol):
    """One split of a problem."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """Yield batches of `size` samples in the given order (None: as stored); the last one may be smaller."""
        ...

    def cut(self, order: Tensor, sizes: Sequence[int]) -> Iterator[Batch]:
        """Yield batches of these sizes, one after the other; they add up to the length of the order."""
        ...

    def subset(self, indices: Tensor) -> "Samples":
        """Keep only the samples with these indices, in this order."""
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> "Samples":
        """Give the samples on a device, with floating inputs in a dtype."""
        ...

    def for_epoch(self, seed: int, epoch: int) -> "Samples":
        """Give the samples as a run with this seed sees them in this epoch."""
        ...

    def fingerprint(self) -> str:
        """Hash what identifies the samples."""
        ...


class InMemory:
    """Samples held as tensors."""

    def __init__(self, inputs: Tree, targets: Tensor) -> None:
        sizes = {leaf.shape[0] for leaf in leaves(inputs)} | {targets.shape[0]}
        if len(sizes) != 1:
            raise BadInput(
                f"inputs and targets have different numbers of samples: {sorted(sizes)}; give one target each"
            )
        if not targets.shape[0]:
            raise BadInput("a split has no samples; give at least one")
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return self.targets.shape[0]

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """Yield batches: views of the tensors where no order is given, else of copies made a few thousand at a time."""
        if order is None:
            yield from zip(split(self.inputs, size), self.targets.split(size), strict=True)
        else:
            yield from self.cut(order, even(len(order), size))

    def cut(self, order: Tensor, sizes: Sequence[int]) -> Iterator[Batch]:
        """Yield batches of these sizes, of copies made a few thousand samples at a time."""
        order = order.to(self.targets.device)
        for rows, block in zip(blocks := gathered(sizes), order.split([sum(rows) for rows in blocks]), strict=True):
            inputs = map_tensors(lambda x, block=block: x[block], self.inputs)  # type: ignore[misc]
            yield from zip(split(inputs, rows), self.targets[block].split(rows), strict=True)

    def subset(self, indices: Tensor) -> "InMemory":
        """Copy the samples with these indices."""
        return InMemory(map_tensors(lambda x: x[indices], self.inputs), self.targets[indices])

    def to(self, device: torch.device, dtype: torch.dtype) -> "InMemory":
        """Move the samples; nothing is copied where they are already right."""
        return InMemory(cast(self.inputs, device, dtype), cast(self.targets, device, dtype))

    def for_epoch(self, seed: int, epoch: int) -> "InMemory":  # noqa: ARG002 - what others take
        """Give the samples as they are: in memory nothing changes from epoch to epoch."""
        return self

    def fingerprint(self) -> str:
        """Hash every byte, with shapes and dtypes."""
        digest = hashlib.blake2b(digest_size=16)
        for leaf in [*leaves(self.inputs), self.targets]:
            digest.update(f"{tuple(leaf.shape)}{leaf.dtype}".encode())
            digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


class Streamed:
    """Samples read from a data set each time they are needed.

    A data set may have `workers`, the number of processes that read it, and a method `for_epoch(seed, epoch)` that gives
    its augmented form; without one it is the same in every epoch.

    Args:
        dataset: map-style.
        device: where batches are placed.
        dtype: of their floating tensors; None leaves them as they are.
        join: makes a batch from a list of samples; by default they are stacked.
    """

    def __init__(
        self,
        dataset: "Dataset[Any]",
        device: torch.device,
        dtype: torch.dtype | None = None,
        join: "Collate | None" = None,
    ) -> None:
        self.dataset, self.device, self.dtype, self.join = dataset, device, dtype, join or collate

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """Yield batches through a DataLoader."""
        indices = torch.arange(len(self)) if order is None else order
        yield from self.cut(indices, even(len(indices), size))

    def cut(self, order: Tensor, sizes: Sequence[int]) -> Iterator[Batch]:
        """Yield batches of these sizes through a DataLoader."""
        rows = [block.tolist() for block in order.split(list(sizes))]
        # A generator of its own: a DataLoader would otherwise draw from the global one and shift the dropout masks.
        loader = DataLoader(
            self.dataset,
            batch_sampler=rows,
            collate_fn=self.join,
            generator=torch.Generator(),
            num_workers=getattr(behind(self.dataset), "workers", 0),
        )
        try:
            for inputs, targets in loader:
                yield self._place(inputs), self._place(targets)
        except BadInput as error:
            raise type(error)(without_traceback(error)) from error

    def changed(self) -> int | None:
        """Read some samples twice, spread evenly.

        Returns:
            The index in the data set of the first that differs, as random augmentation makes it; None where all agree.
        """
        some = torch.linspace(0, len(self) - 1, min(len(self), REREAD)).long()
        once, twice = (next(iter(self.batches(len(some), some))) for _ in range(2))
        differ = torch.zeros(len(some), dtype=torch.bool)
        for a, b in zip([*leaves(once[0]), once[1]], [*leaves(twice[0]), twice[1]], strict=True):
            unlike = torch.ones(len(some)) if a.shape != b.shape else rows_unlike(a, b)
            differ |= unlike.bool()
        return self.place_of(int(some[int(differ.nonzero()[0])])) if differ.any() else None

    def place_of(self, index: int) -> int:
        """Return the index that a sample has in the data set behind all subsets."""
        dataset = self.dataset
        while isinstance(dataset, Subset):
            index, dataset = int(dataset.indices[index]), dataset.dataset
        return index

    def _place(self, tree: Tree) -> Tree:
        if self.dtype is None:
            return map_tensors(lambda x: x.to(self.device), tree)
        return cast(tree, self.device, self.dtype)

    def subset(self, indices: Tensor) -> "Streamed":
        """Restrict the data set to these indices."""
        return Streamed(Subset(self.dataset, indices.tolist()), self.device, self.dtype, self.join)

    def for_epoch(self, seed: int, epoch: int) -> "Streamed":
        """Give the data set's own view of an epoch, where it has one: augmented by nothing but seed, epoch and index."""
        return Streamed(view_of_epoch(self.dataset, seed, epoch), self.device, self.dtype, self.join)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Streamed":
        """Place batches on another device as they are read."""
        return Streamed(self.dataset, device, dtype, self.join)

    def fingerprint(self) -> str:
        """Hash the length and some samples spread evenly: reading all of what does not fit memory takes too long."""
        some = torch.linspace(0, len(self) - 1, min(len(self), FINGERPRINT)).long()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # holds augmentation that draws from torch still
            inputs, targets = next(iter(self.subset(some).batches(len(some))))
        return f"{len(self)}-{InMemory(inputs, targets).fingerprint()}"


def even(total: int, size: int) -> list[int]:
    """Cut `total` samples into batches of one size; the last may be smaller."""
    whole, rest = divmod(total, size)
    return [size] * whole + [rest] * bool(rest)


def gathered(sizes: Sequence[int]) -> list[list[int]]:
    """Put batches together that are copied at once: as many as hold `GATHER` samples, at least one."""
    found: list[list[int]] = []
    held = GATHER
    for size in sizes:
        if held + size > GATHER:
            found.append([])
            held = 0
        found[-1].append(size)
        held += size
    return found


def without_traceback(error: BadInput) -> str:
    """Give the sentence of an error; torch puts the traceback of a worker process before it."""
    kind = type(error)
    return str(error).rstrip().rpartition("\n")[2].removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")


def behind(dataset: Any) -> Any:
    """Give the data set behind all subsets."""
    return behind(dataset.dataset) if isinstance(dataset, Subset) else dataset


def view_of_epoch(dataset: Any, seed: int, epoch: int) -> Any:
    """Give the data set as it is in an epoch, subsets by the same indices."""
    if isinstance(dataset, Subset):
        return Subset(view_of_epoch(dataset.dataset, seed, epoch), dataset.indices)
    return dataset.for_epoch(seed, epoch) if hasattr(dataset, "for_epoch") else dataset


def rows_unlike(a: Tensor, b: Tensor) -> Tensor:
    """Tell for each sample whether two readings of it differ, nan being equal to nan, shape (B,)."""
    return ((a != b) & ~(a.isnan() & b.isnan())).flatten(1).any(1).cpu() if a.ndim > 1 else (a != b).cpu()


def collate(items: Sequence[Any]) -> Batch:
    """Stack samples; class numbers given as Python integers become int64."""
    inputs, targets = default_collate(list(items))
    return (tuple(inputs) if isinstance(inputs, list) else inputs), targets


def as_samples(data: Any, which: str, memory_limit: str | int) -> Samples:
    """Take a split in any form a user brings.

    Args:
        data: (inputs, targets) as tensors, or a map-style data set of (input, target) pairs.
        which: "train" or "test", for messages.
        memory_limit: a data set whose samples take more bytes than this is streamed, for example "4 GiB".

    Returns:
        Samples in memory where they fit, else streamed.

    Raises:
        BadInput: the data are of no such form.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and hasattr(data[1], "__array__"):
        if not isinstance(data[1], Tensor):
            kind = type(data[1]).__name__
            raise BadInput(f"{which} has targets in a {kind}; make inputs and targets tensors with torch.as_tensor")
        return InMemory(data[0], data[1])
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return InMemory(data.tensors[0], data.tensors[1])
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise BadInput(
            f"{which} is a {type(data).__name__}; give a pair of tensors (inputs, targets) "
            f"or a map-style data set with __len__ and __getitem__"
        )
    return read_dataset(data, which, parse_bytes(memory_limit))


def read_dataset(dataset: Any, which: str, limit: int) -> Samples:
    """Read a data set into tensors where it fits the limit, and leave it to be streamed where it does not.

    Args:
        dataset: map-style, of (input, target) pairs.
        which: "train" or "test", for messages.
        limit: bytes.

    Returns:
        The samples.

    Raises:
        BadInput: it is empty, or its items are no pairs of things that stack to tensors.
    """
    total = len(dataset)
    if not total:
        raise BadInput(f"{which} has no samples; give at least one")
    try:
        first = collate([dataset[0]])
        size = sum(leaf.nbytes for leaf in [*leaves(first[0]), first[1]])
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{which}[0] is not an (input, target) pair of tensors, arrays or numbers ({error}); "
            "convert it in the data set"
        ) from error
    streamed = Streamed(dataset, torch.device("cpu"))
    changes = hasattr(dataset, "for_epoch")  # in memory one view would stay for ever
    return streamed if changes or size * total > limit else in_memory(streamed)


def in_memory(streamed: Streamed) -> Samples:
    """Read a data set once; give it back as it is where its batches are padded to different shapes."""
    parts = list(streamed.batches(256))
    rows = [[*leaves(inputs), targets] for inputs, targets in parts]
    if len({tuple(leaf.shape[1:] for leaf in row) for row in rows}) > 1:
        return streamed
    *inputs, targets = (torch.cat(column) for column in zip(*rows, strict=True))
    columns = iter(inputs)
    return InMemory(map_tensors(lambda _: next(columns), parts[0][0]), targets)


def parse_bytes(size: str | float) -> int:
    """Read a size such as "512 MiB" or a number of bytes.

    Args:
        size: digits and a unit of B, KiB, MiB, GiB, KB, MB, GB.

    Returns:
        Bytes.

    Raises:
        BadInput: the text is no size, or the number is negative or not finite.
    """
    if isinstance(size, int | float):
        if not 0 <= size < math.inf:
            raise BadInput(f"memory_limit is {size!r}; give a number of bytes, or a text such as '4 GiB'")
        return int(size)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?:[kmg]i?)?b)\s*", size, re.IGNORECASE)
    if not match:
        raise BadInput(f"memory_limit is {size!r}; write a number and a unit, for example '4 GiB'")
    return int(float(match[1]) * UNITS[match[2].upper()])
