"""The gradient of a batch: whole or accumulated from pieces, summed over processes, clipped."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.problem.trees import feed
from gengap.training.exchange import Exchange
from gengap.training.minibatch import Minibatch
from gengap.training.objective import Objective
from gengap.training.ranks import Ranks
from gengap.training.running_statistics import RunningStatistics


class Gradient:
    """Computes the gradient of the mean loss over a batch into `.grad`.

    Args:
        model: whose parameters get gradients.
        objective: the mean over the samples it is given.
        recipe: with its batch as a number; its ghost_batch, quirks, clip_norm and batch_schedule are used.
        ranks: the processes that share each batch.
        micro_batch: samples that go through the network at once; None: all.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, recipe: Recipe, ranks: Ranks, *, micro_batch: int | None = None
    ) -> None:
        self.model, self.objective, self.recipe, self.ranks = model, objective, recipe, ranks
        self.micro_batch = micro_batch
        self.weights = [p for p in model.parameters() if p.requires_grad]
        dynamic = recipe.batch_schedule is not None and recipe.batch_schedule.name == "dynamic"
        self.halves = Halves() if dynamic else None
        self.chunks = 0
        if recipe.quirks and recipe.ghost_batch:
            self.chunks = max(1, int(recipe.batch_size) // recipe.ghost_batch)
        shared = ranks.size > 1
        self.at_once = not (dynamic or self.chunks or micro_batch or shared)
        self.in_step = shared and recipe.batch_norm != "rank"  # batch norm speaks to other processes in every pass
        self.exchange = Exchange(self.weights, ranks, early=not self.in_step) if shared else None
        self.statistics = RunningStatistics(model, ranks, span=span_of(recipe, ranks)) if shared else None

    def __call__(self, batch: Minibatch) -> Tensor:
        """Compute the gradient.

        Args:
            batch: the share of this process.

        Returns:
            The mean loss over the whole batch, detached.
        """
        self.model.zero_grad()
        if self.at_once and len(batch) == batch.total:
            value = self.objective(batch)
            value.backward()
            self.clip()
            return value.detach()
        if not batch.total:
            return torch.zeros((), device=batch.targets.device)
        pieces = list(self.pieces(batch))
        return self._summed(pieces, last=pieces[-1][0] if pieces else None, total=batch.total)

    def _summed(
        self, pieces: Iterable[tuple[Minibatch, float]], *, last: Minibatch | None, total: int
    ) -> Tensor:
        """Add up the gradients of weighted pieces, here and on other processes; `last` may be sent while it is computed."""
        value = torch.zeros((), device=self.weights[0].device, dtype=torch.float64)
        first = None
        if self.statistics:
            self.statistics.begin()
        for piece, weight in pieces:
            if self.halves and first is None and piece.offset >= total // 2:
                first = self._copy()
            if self.exchange and piece is last:
                self.exchange.expect()
            part = self._value(piece) * weight
            part.backward()
            value += part.detach()
        if self.halves:
            first = first or self._copy()
            self.ranks.add(first)
        if self.exchange:
            value = self.exchange.finish(value)
        if self.statistics:
            self.statistics.finish()
        if self.halves and first is not None and total > 1:
            self.halves.look(first, [p.grad for p in self.weights], total // 2, total)
        return value

    def over(self, batches: Iterable[Minibatch]) -> Tensor:
        """Compute the gradient of the mean loss over many batches, the share of this process of each; nothing is clipped.

        Args:
            batches: whose `total` is the number of samples in all of them.

        Returns:
            The mean loss, detached.
        """
        self.model.zero_grad()
        value = torch.zeros((), device=self.weights[0].device, dtype=torch.float64)
        for batch in batches:
            part = self.objective(batch) * batch.share
            part.backward()
            value += part.detach()
        self.ranks.add([value, *(p.grad for p in self.weights if p.grad is not None)])
        return value

    def clip(self) -> None:
        """Cut a longer gradient to the recipe's length."""
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.weights, self.recipe.clip_norm)

    def pieces(self, batch: Minibatch) -> Iterator[tuple[Minibatch, float]]:
        """Cut a batch into what goes through the network at once, each with its weight in the mean."""
        if self.chunks:
            size = math.ceil(len(batch) / self.chunks)
            number = math.ceil(len(batch) / size)
            for piece in batch.pieces(size):
                yield piece, 1 / number
            return
        for part in batch.pieces(self.cut(len(batch), self.micro_batch or len(batch))):
            yield part, part.share

    def cut(self, length: int, size: int) -> list[int]:
        """Give the sizes of pieces; halves end where a piece ends."""
        parts = [length // 2, length - length // 2] if self.halves and length > 1 else [length]
        return [min(size, part - done) for part in parts for done in range(0, part, size)]


class Halves:
    """Sums, over an epoch, what the halves of every batch say of the noise in its gradient."""

    def __init__(self) -> None:
        self.trace = self.squared_norm = 0.0

    def look(self, first: list[Tensor | None], whole: list[Tensor | None], count: int, total: int) -> None:
        """Add one batch (McCandlish et al. 2018, arXiv:1812.06162, appendix A.1, with the halves as small batches).

        Args:
            first: gradient of the first samples, each weighted by 1 / total.
            whole: gradient of all.
            count: how many the first samples are.
            total: B.
        """
        small, big = 0.0, 0.0
        for a, g in zip(first, whole, strict=True):
            if a is None or g is None:
                continue
            a, g = a.double(), g.double()
            big += float(g.square().sum())
            small += (
                float((a * (total / count)).square().sum() + ((g - a) * (total / (total - count))).square().sum()) / 2
            )
        inverse = (1 / count + 1 / (total - count)) / 2  # mean of 1 / size of the small batches
        trace = (small - big) / (inverse - 1 / total)
        self.trace += trace
        self.squared_norm += big - trace / total

    def take(self) -> tuple[float, float]:
        """Return the sums, and begin anew."""
        found = self.trace, self.squared_norm
        self.trace = self.squared_norm = 0.0
        return found
