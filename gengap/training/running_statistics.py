"""Running statistics of batch norm on several processes: those of one process that sees their samples one after the other."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.training.ranks import Ranks


class RunningStatistics:
    """Keeps the running statistics of all processes equal.

    Each batch moves them, on every process, from where they all were, by its own samples. Afterwards what each process added is
    put together in the order of ranks: with momentum m and k batches (or ghost batches) on rank j,

        r <- (1 - m)^k r + (r_j - (1 - m)^k r_0)

    so that a process's samples count as a batch (or ghost batches) of their own. Processes that share statistics count once.

    Cost: one message of all running statistics for each gradient.

    Args:
        model: batch norm in it is followed.
        ranks: the processes.
        span: processes that share statistics.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, *, span: int = 1) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        self._ranks, self._leaders = ranks, range(0, ranks.size, span)
        self._norms = norms if len(self._leaders) > 1 else []  # else all are equal already
        self._before: list[Tensor] = []

    def begin(self) -> None:
        """Note where they are."""
        self._before = [read(norm) for norm in self._norms]

    @torch.no_grad()
    def finish(self) -> None:
        """Put together what the processes added since."""
        if not self._norms:
            return
        sizes = [len(before) for before in self._before]
        each = [flat.split(sizes) for flat in self._ranks.gather(torch.cat([read(norm) for norm in self._norms]))]
        for i, (norm, start) in enumerate(zip(self._norms, self._before, strict=True)):
            here = start
            for rank in self._leaders:
                here = moved(here, start, each[rank][i], norm.momentum)
            write(norm, here)


def moved(here: Tensor, start: Tensor, end: Tensor, momentum: float | None) -> Tensor:
    """Add to `here` what moved another process from `start` to `end`; the last number of each counts batches."""
    batches = end[-1] - start[-1]
    kept = start[-1] / end[-1].clamp(min=1) if momentum is None else (1 - momentum) ** batches
    added = end - kept * start
    if momentum is None:  # plain means: weigh by how many batches each stands for
        total = (here[-1] + batches).clamp(min=1)
        found = (here[-1] * here + end[-1] * added) / total
    else:
        found = kept * here + added
    found[-1] = here[-1] + batches
    return found


def read(norm: _BatchNorm) -> Tensor:
    """Give mean, variance and number of batches of a layer as one vector."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    count = norm.num_batches_tracked if norm.num_batches_tracked is not None else torch.zeros(())
    return torch.cat([norm.running_mean, norm.running_var, count.to(norm.running_mean).reshape(1)]).double()


def write(norm: _BatchNorm, vector: Tensor) -> None:
    """Set mean, variance and number of batches of a layer."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    C = norm.num_features
    norm.running_mean.copy_(vector[:C])
    norm.running_var.copy_(vector[C : 2 * C])
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.copy_(vector[-1])
