"""What a forward pass without gradients takes: foretold from two small ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gengap.measures import memory as m
from gengap.measures.protocols import Chunked, SamplePiece
from gengap.problem.trees import leaves


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make until they are freed.

    Attributes:
        peak: the most bytes that were alive after an operation, each storage once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._foreign: set[int] = set()  # weights and samples, which were there before

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler, for seconds, only to switch it off

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        before = references((args, kwargs))
        self._foreign |= before.keys() - self._alive.keys()
        out = func(*args, **(kwargs or {}))
        self._alive |= {key: pair for key, pair in references(out).items() if key not in self._foreign}
        self._alive = {key: pair for key, pair in self._alive.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


def references(tree: Any) -> dict[int, tuple[StorageWeakRef, int]]:
    """Give a weak reference to the storage of every tensor of a tree, with its bytes, by address."""
    storages = [x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, Tensor)]
    return {(ref := StorageWeakRef(s)).cdata: (ref, s.nbytes()) for s in storages}


def peak_bytes(work: Callable[[], object]) -> int:
    """Run something without gradients and return the most bytes it held in tensors of its own."""
    live = LiveBytes()
    with torch.no_grad(), live:
        work()
    return live.peak


def forward_bytes_per_sample(loss: Chunked, params: Mapping[str, Tensor]) -> float:
    """Foretell what one more sample takes in a forward pass; 0 where the split is too small to tell."""
    first = next(iter(loss.chunks(params)))
    small = min(m.TRIAL, first.size // 2)
    if not small:
        return 0.0
    costs = [peak_bytes(forward(first.head(count), params)) for count in (small, 2 * small)]
    read = sum(leaf.nbytes for leaf in [*leaves(first.inputs), first.targets]) / first.size
    return max(0.0, (costs[1] - costs[0]) / small) * m.TRANSIENT + read


def forward(piece: SamplePiece, params: Mapping[str, Tensor]) -> Callable[[], Tensor]:
    """Give a function that evaluates a piece."""
    return lambda: piece(params)
