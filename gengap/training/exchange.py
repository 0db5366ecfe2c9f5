"""The gradient of a batch that processes share: the sum of what each has, sent while the backward pass goes on.

`torch.nn.parallel.DistributedDataParallel` does so too, and is left out here because it takes one forward pass for every
backward pass, from every process: a process without samples, an objective with two forward passes, an optimizer that asks for
several gradients in a step and the gradient of half a batch are all outside of what it promises.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gengap.training.ranks import BUCKET, Ranks, buckets, joined
from gengap.training.running_statistics import RunningStatistics


class Exchange:
    """Sums gradients over processes in buckets, in the reverse order of the weights, which is about that of their gradients.

    Running statistics of batch norm are put together at the same time.

    Cost: one copy of the gradient.

    Args:
        model: the same on all processes.
        ranks: the processes.
        span: processes that share the statistics of batch norm.
        early: whether to send a bucket when it is full, and not only at the end; the processes must make the same passes.
        most: bytes of a bucket.
    """

    def __init__(
        self, model: nn.Module, ranks: Ranks, *, span: int = 1, early: bool = True, most: int = BUCKET
    ) -> None:
        self._ranks, self._early = ranks, early
        self._weights = [p for p in reversed(list(model.parameters())) if p.requires_grad]
        self._statistics = RunningStatistics(model, ranks, span=span)
        self._buckets: list[list[Tensor]] = buckets(self._weights, most)
        self._sent: list[tuple[Tensor, Callable[[], None]]] = []
        self._left: list[int] | None = None  # gradients that a bucket waits for; None: not the last backward pass yet
        for i, bucket in enumerate(self._buckets) if early else ():
            for weight in bucket:
                weight.register_post_accumulate_grad_hook(partial(self._ready, i))

    def begin(self) -> None:
        """Begin a gradient."""
        self._statistics.begin()

    def expect(self) -> None:
        """Learn that the next backward pass is the last of this gradient."""
        if self._early:
            self._left = [len(bucket) for bucket in self._buckets]

    def finish(self, value: Tensor) -> Tensor:
        """Put the sums into `.grad`; a weight that no process has a gradient for is left without.

        Args:
            value: a number of this process, a scalar in float64.

        Returns:
            Its sum.
        """
        self._left = None
        while len(self._sent) < len(self._buckets):
            self._send()
        here = [weight.grad is not None for weight in self._weights]
        told = torch.cat([value.reshape(1), torch.tensor(here, dtype=value.dtype, device=value.device)])
        self._ranks.begin_to_add(told)()
        # Only who has no gradient reads what the others have: to look is to wait for the device.
        anywhere = here if all(here) else (told[1:] > 0).tolist()
        totals: list[Tensor] = []
        for bucket, (flat, wait) in zip(self._buckets, self._sent, strict=True):
            wait()
            totals += flat.split([weight.numel() for weight in bucket])
        self._sent.clear()
        self._statistics.finish()
        for weight, total, wanted in zip(self._weights, totals, anywhere, strict=True):
            if weight.grad is not None:
                weight.grad.copy_(total.view_as(weight))
            elif wanted:
                weight.grad = total.view_as(weight).clone()
        return told[0]

    def _ready(self, i: int, weight: Tensor) -> None:  # noqa: ARG002 - what torch calls
        """Count a gradient, and send the buckets that are full, each only after those before it."""
        if self._left is None:
            return
        self._left[i] -= 1
        while len(self._sent) < len(self._left) and self._left[len(self._sent)] == 0:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        flat = joined([torch.zeros_like(w) if w.grad is None else w.grad for w in bucket])
        self._sent.append((flat, self._ranks.begin_to_add(flat)))
