"""Whether a loss gives one value for one set of weights, and if not, why."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from gengap.core.errors import BadInput
from gengap.measures.protocols import LossFunction, Params, Reread
from gengap.measures.random_state import seeded
from gengap.measures.refused import Refused


class Watch:
    """Looks at the modules that a loss runs, whoever calls them.

    Attributes:
        dropout: a layer that drops at random, in words, or None.
    """

    def __init__(self) -> None:
        self.dropout: str | None = None
        self._buffers: dict[int, tuple[str, Tensor, Tensor]] = {}
        self._seen: set[int] = set()
        self._again: set[int] = set()

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Watch one evaluation."""
        self._again, self._seen = self._seen, set()
        handle = register_module_forward_pre_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

    def _look(self, module: nn.Module, _: Any) -> None:
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            self.dropout = str(module)
        for name, buffer in module.named_buffers(recurse=False):
            self._seen.add(id(buffer))  # alive as long as it is in _buffers, so that no other has its id
            self._buffers.setdefault(
                id(buffer), (f"{name} of {type(module).__name__}", buffer, buffer.detach().clone())
            )

    def restored(self) -> str | None:
        """Put buffers back that evaluations wrote to; name one that two of them share."""
        changed = [key for key, (_, now, before) in self._buffers.items() if not same(now, before)]
        with torch.no_grad():
            for key in changed:
                _, now, before = self._buffers[key]
                now.copy_(before)
        return next((self._buffers[key][0] for key in changed if key in self._seen & self._again), None)


def same(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors are equal, nan to nan."""
    return bool(torch.equal(a, b) or ((a == b) | (a.isnan() & b.isnan())).all())


def check_deterministic(loss: LossFunction, params: Params) -> None:
    """Refuse a loss that gives two values for the same weights, or that changes a network by being evaluated.

    Buffers that the evaluations write to, such as running statistics, are put back. Dropout and buffers are seen in any
    `nn.Module` that runs, those of a plain function too.

    Args:
        loss: evaluated twice, without gradients; twice more where the two differ, to find out why.
        params: where.

    Raises:
        BadInput: an evaluation changes a buffer that the next one uses.
        Refused: its data change when they are read again, or the two values differ in any bit; the message says
            what they have in common with chance.
    """
    if isinstance(loss, Reread) and (index := loss.changed_sample()) is not None:
        raise Refused(
            f"sample {index} of the data set is another each time it is read, so random augmentation is on; take the random "
            f"transforms out of the data set"
        )
    watch = Watch()
    try:
        first, second = (watched_value(loss, params, watch) for _ in range(2))
    finally:
        written = watch.restored()
    if written is not None:
        raise BadInput(
            f"evaluating the loss changes {written}, which the next evaluation uses, as batch norm in training mode does with "
            f"its running statistics; put the model in evaluation mode with model.eval()"
        )
    if first == second or (math.isnan(first) and math.isnan(second)):
        return
    raise Refused(
        f"two evaluations at the same weights gave {first!r} and {second!r}: "
        f"{reason(loss, params, (first, second), watch.dropout)}"
    )


def watched_value(loss: LossFunction, params: Params, watch: Watch) -> float:
    """Evaluate under a watch."""
    with watch.evaluation():
        return loss.value(params)


def reason(loss: LossFunction, params: Params, values: tuple[float, float], dropout: str | None) -> str:
    """Say why a loss is not deterministic, and what to do."""
    if dropout is not None:
        return f"{dropout} is in training mode and drops at random; put the model in evaluation mode with model.eval()"
    repeated = []
    for _ in range(2):
        with seeded(0):
            repeated.append(loss.value(params))
    if repeated[0] == repeated[1]:
        return (
            "the loss draws random numbers (the same seed gives the same value), so dropout or augmentation is on or the "
            "loader is shuffled; put the model in evaluation mode, take augmentation out of the data and fix their order"
        )
    first, second = values
    if abs(first - second) <= 1e-5 * abs(first):
        return "they agree but for rounding, as with sums made in a changing order; fix the order"
    return (
        "the loss changes from call to call, though not by torch's, numpy's or Python's random numbers: a loader shuffled "
        "by a generator of its own, or a model or data changed by being used; give it fixed data and a model in evaluation "
        "mode"
    )
