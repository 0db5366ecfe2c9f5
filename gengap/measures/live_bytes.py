"""The memory that tensors take while something runs: counted, so that it is the same every time."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make, those of backward passes among them, until they are freed.

    Storages that were there before, such as weights and samples, are not counted.

    Attributes:
        now: bytes that are alive, each storage once.
        course: what `now` was after each operation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.course: list[int] = []
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @property
    def peak(self) -> int:
        """The most bytes that were alive after an operation."""
        return max(self.course, default=0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler, two seconds and 80 MB, to leave it out

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._follow((args, kwargs), counted=False)
        out = func(*args, **(kwargs or {}))
        self._follow(out, counted=True)
        self.course.append(self.now)
        return out

    def _follow(self, tree: Any, *, counted: bool) -> None:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in self._known:
                    self._begin(storage, storage.nbytes() if counted else 0)

    def _begin(self, storage: torch.UntypedStorage, size: int) -> None:
        key = id(storage)  # torch keeps the Python object as long as the memory

        def freed(_: Any) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, freed)
        self.now += size
