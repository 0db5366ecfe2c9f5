"""The gradient of a batch: whole or accumulated from pieces, summed over processes, clipped."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from gengap.core.recipe import Recipe
from gengap.core.recipe.schedules import BatchDynamic
from gengap.training.batches import kept_together
from gengap.training.exchange import Exchange
from gengap.training.minibatch import Minibatch
from gengap.training.objective import Objective
from gengap.training.ranks import Ranks
from gengap.training.sharded import ShardedExchange, is_sharded


class Gradient:
    """Computes the gradient of the mean loss over a batch into `.grad`.

    Args:
        model: whose parameters get gradients.
        objective: the mean over the samples it is given.
        recipe: with its batch as a number; its ghost_batch, quirks, clip_norm and batch_schedule are used.
        ranks: the processes that share each batch.
        micro_batch: samples that go through the network at once; None: all.

    Attributes:
        see: called with the pieces of this process and their weights, between the backward passes and the clipping; or None.
    """

    see: Callable[[Sequence[tuple[Minibatch, float]]], None] | None = None

    def __init__(
        self, model: nn.Module, objective: Objective, recipe: Recipe, ranks: Ranks, *, micro_batch: int | None = None
    ) -> None:
        self.model, self.objective, self.recipe, self.ranks = model, objective, recipe, ranks
        self.micro_batch = micro_batch
        self.weights = [p for p in model.parameters() if p.requires_grad]
        dynamic = isinstance(recipe.batch_schedule, BatchDynamic)
        self.halves = Halves() if dynamic else None
        self.chunks = 0
        if recipe.quirks and recipe.ghost_batch:
            self.chunks = max(1, int(recipe.batch_size) // recipe.ghost_batch)
        shared = ranks.size > 1
        self.at_once = not (dynamic or self.chunks or micro_batch or shared)
        normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        spans = normed and recipe.norm_span != "rank"  # batch norm speaks to other processes in every pass
        self.in_step = shared and (spans or is_sharded(model))
        self.exchange = exchange_of(model, recipe, ranks, early=not self.in_step) if shared else None

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
        value = self._summed(pieces, last=pieces[-1][0] if pieces else None, total=batch.total)
        if self.see:
            self.see(pieces)
        self.clip()
        return value

    def _summed(self, pieces: Iterable[tuple[Minibatch, float]], *, last: Minibatch | None, total: int) -> Tensor:
        """Add up the gradients of weighted pieces, here and on other processes; `last` may be sent while it is computed."""
        value = torch.zeros((), device=self.weights[0].device, dtype=torch.float64)
        halves, first = self.halves if total > 1 else None, list[Tensor]()
        if self.exchange:
            self.exchange.begin()
        for piece, weight in pieces:
            if halves and not first and piece.offset >= total // 2:
                first = self._copied()
            if self.exchange and piece is last:
                self.exchange.expect()
            part = self.objective(piece) * weight
            part.backward()
            value += part.detach()
        if halves:
            first = first or self._copied()
            self.ranks.add(first)
        if self.exchange:
            value = self.exchange.finish(value)
        if halves:
            halves.look(first, [p.grad for p in self.weights], total // 2, total)
        return value

    def _copied(self) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.weights]

    def limit_pieces(self, size: int | None) -> None:
        """Let no more than so many samples go through the network at once; None leaves it as it is."""
        if size is not None:
            self.micro_batch = size if self.micro_batch is None else min(size, self.micro_batch)
            self.at_once = False

    def over(self, batches: Iterable[Minibatch]) -> Tensor:
        """Compute the gradient of the mean loss over many batches, the share of this process of each; nothing is clipped.

        Args:
            batches: whose `total` is the number of samples in all of them.

        Returns:
            The mean loss, detached.
        """
        self.model.zero_grad()
        return self._summed(((batch, batch.share) for batch in batches), last=None, total=0)

    def clip(self) -> None:
        """Cut a longer gradient to the recipe's length."""
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.weights, self.recipe.clip_norm)

    def pieces(self, batch: Minibatch) -> Iterator[tuple[Minibatch, float]]:
        """Cut a batch into what goes through the network at once, each with its weight in the mean."""
        if self.chunks:
            size = math.ceil(batch.total / self.chunks)
            number = math.ceil(batch.total / size)
            for piece in batch.pieces(size) if len(batch) else ():
                yield piece, 1 / number
            return
        for part in batch.pieces(self.cut(batch)):
            yield part, part.share

    def passes(self, batch: Minibatch) -> int:
        """Count the pieces of a batch that this process has."""
        if self.chunks:
            return math.ceil(len(batch) / math.ceil(batch.total / self.chunks))
        return len(self.cut(batch))

    def cut(self, batch: Minibatch) -> list[int]:
        """Give the sizes of pieces: halves end where a piece ends, and processes that go in step make as many passes."""
        size, middle = self.micro_batch or batch.total, batch.total // 2
        halves = [(0, middle), (middle, batch.total)] if self.halves and batch.total > 1 else [(0, batch.total)]
        parts = []
        for low, high in halves:
            mine = overlap(batch.offset, batch.offset + len(batch), low, high)
            own = [min(size, mine - done) for done in range(0, mine, size)]
            passes = math.ceil(self.longest(batch.total, low, high) / size) if self.in_step else 0
            parts += own + [0] * (passes - len(own))
        return parts

    def longest(self, total: int, low: int, high: int) -> int:
        """Give the most samples of a part of a batch that one of the processes has."""
        size, unit = self.ranks.size, kept_together(self.recipe, total)
        parts = [Ranks(rank, size).share(total, unit) for rank in range(size)]
        return max(overlap(start, stop, low, high) for start, stop in parts)


def overlap(start: int, stop: int, low: int, high: int) -> int:
    """Count what two ranges share."""
    return max(0, min(stop, high) - max(start, low))


def exchange_of(model: nn.Module, recipe: Recipe, ranks: Ranks, *, early: bool) -> Exchange | ShardedExchange:
    """Make what adds gradients up over processes."""
    span = span_of(recipe, ranks)
    if is_sharded(model):
        return ShardedExchange(model, ranks, span=span)
    return Exchange(model, ranks, span=span, early=early)


def span_of(recipe: Recipe, ranks: Ranks) -> int:
    """Give the number of processes that share the statistics of batch norm."""
    return {"rank": 1, "all": ranks.size}.get(str(recipe.norm_span)) or int(recipe.norm_span)


class Halves:
    """Sums, over an epoch, what the halves of every batch say of the noise in its gradient."""

    def __init__(self) -> None:
        self.trace = self.squared_norm = 0.0

    def look(self, first: Sequence[Tensor], whole: Sequence[Tensor | None], count: int, total: int) -> None:
        """Add one batch (McCandlish et al. 2018, arXiv:1812.06162, appendix A.1, with the halves as small batches).

        Args:
            first: gradient of the first samples, each weighted by 1 / total.
            whole: gradient of all.
            count: how many the first samples are.
            total: B.
        """
        small, big = 0.0, 0.0
        for a, g in zip(first, whole, strict=True):
            if g is None:
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
