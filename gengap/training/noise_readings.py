"""The gradient noise scale of a run while it trains, from gradients that it computes anyway where there are several."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate
from gengap.measures.noise.monitor import NoiseScaleMonitor
from gengap.measures.noise.reading import NoiseScaleReading
from gengap.measures.random_state import kept
from gengap.optim.kfac import Kfac
from gengap.optim.workers import Workers
from gengap.training.batches import kept_together
from gengap.training.gradient import Gradient
from gengap.training.minibatch import Minibatch
from gengap.training.step import Update

ESTIMATES = ("simple", "trace_covariance", "squared_gradient_norm")


class NoiseReadings:
    """Reads the noise scale at some updates of a run, which has the same bits as without.

    Processes that share a batch, and pieces of a batch, have gradients of their own on the way to that of the batch: their
    norms are read before they are added up. A batch that goes through the network at once is looked at apart from the update:
    the gradients of its two halves, at the weights before it. Where an optimizer asks for several gradients in an update, the
    first one counts. Ghost batches stay whole; plain batch norm normalises each half by itself, and so the reading is that of
    batches of half the size. Noise that a recipe adds to the weights of samples is part of what is read.

    Cost: at most a share of the training time. A reading takes norms of gradients that are there; for halves a forward and
    backward pass over the batch.

    Args:
        gradient: of the run.
        optimizer: of the run.
        most: share of the time that reading may take, in (0, 1]; 1 reads at every update but the first three.
        clock: gives seconds; stands still while the run does something else than train.

    Attributes:
        readings: one for each time that the run was measured.

    Raises:
        BadInput: `most` is out of range, there are never two gradients to compare, or nobody could tell whose they are.
    """

    def __init__(self, gradient: Gradient, optimizer: Optimizer, *, most: float, clock: Callable[[], float]) -> None:
        if not 0 < most <= 1:
            raise BadInput(f"noise_overhead is {most}; choose a share of the time in (0, 1], for example 0.03")
        check_readable(gradient, optimizer)
        ranks = gradient.ranks if gradient.ranks.size > 1 else None
        self._monitor = NoiseScaleMonitor(gradient.weights, max_overhead=most, clock=clock, processes=ranks)
        self._gradient, self._awaited = gradient, 0
        self.readings: list[NoiseScaleReading] = []
        gradient.see = self._see

    def around(self, update: Update) -> Update:
        """Give an update that is looked at."""

        def watched(batch: Minibatch) -> torch.Tensor:
            self._monitor.forget()
            self._awaited = batch.total if self._is_shared(batch) else 0
            if not self._awaited:
                self._look_at_halves(batch)
            value = update(batch)
            if self._awaited:
                self._monitor.skip(self._awaited)
            return value

        return watched

    def note(self) -> None:
        """Keep what the observations say by now."""
        self.readings.append(self._monitor.reading())

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint needs, as JSON."""
        return {"monitor": self._monitor.state_dict(), "readings": [asdict(reading) for reading in self.readings]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up where `state` was."""
        self._monitor.load_state_dict(state["monitor"])
        self.readings = [restored(reading) for reading in state["readings"]]

    def _is_shared(self, batch: Minibatch) -> bool:
        """Tell whether the gradient of a batch is a sum, over processes or pieces; the same on all processes."""
        if self._gradient.ranks.size > 1:
            return batch.total > kept_together(self._gradient.recipe, batch.total)
        return not self._gradient.at_once and self._gradient.passes(batch) > 1

    def _see(self, pieces: Sequence[tuple[Minibatch, float]]) -> None:
        """Take the first gradient of an update."""
        if self._awaited:
            total, self._awaited = self._awaited, 0
            sizes, weights = [len(piece) for piece, _ in pieces], [weight for _, weight in pieces]
            self._monitor.step(sizes, weights=weights, total=total)

    def _look_at_halves(self, batch: Minibatch) -> None:
        """Compute the gradients of both halves, and leave no trace of it."""
        first = half(batch.total, self._gradient.recipe.ghost_batch or 1)
        if not self._monitor.observing or self._gradient.ranks.size > 1 or not 0 < first < batch.total:
            self._monitor.skip(batch.total)
            return
        model, sizes = self._gradient.model, [first, batch.total - first]
        model.zero_grad()
        with self._monitor.aside(), kept():
            buffers = [buffer.clone() for buffer in model.buffers()]
            for part in batch.pieces(sizes):
                (self._gradient.objective(part) * part.share).backward()
            with torch.no_grad():
                for buffer, before in zip(model.buffers(), buffers, strict=True):
                    buffer.copy_(before)
        self._monitor.step(sizes, weights=[size / batch.total for size in sizes])
        model.zero_grad()


def half(total: int, unit: int) -> int:
    """Give about half of a batch, in whole ghost batches."""
    return unit * (math.ceil(total / unit) // 2)


def check_readable(gradient: Gradient, optimizer: Optimizer) -> None:
    """Refuse what has no two gradients to compare.

    Args:
        gradient: of the run.
        optimizer: of the run.

    Raises:
        BadInput: workers apart, batch norm over processes, K-FAC or a batch that cannot be cut.
    """
    recipe, ranks = gradient.recipe, gradient.ranks
    size = int(recipe.batch_size)
    if isinstance(optimizer, Workers):
        raise BadInput(
            f"noise_scale reads the gradient of one network, and {recipe.method.name if recipe.method else 'the method'} "
            f"trains {optimizer.count} apart; leave noise_scale out"
        )
    if gradient.in_step:
        raise BadInput(
            "noise_scale compares gradients of the processes, which batch norm over all of them makes depend on each other; "
            "set ghost_batch or batch_norm='rank'"
        )
    fixed, unit = (
        recipe.batch_schedule is None,
        kept_together(recipe, size) if ranks.size > 1 else recipe.ghost_batch or 1,
    )
    if fixed and size <= unit:
        whole = "one sample" if size == 1 else f"one ghost batch of {size} samples"
        raise BadInput(f"noise_scale compares parts of a batch, and a batch is {whole}; choose a larger batch_size")
    cut = gradient.micro_batch is not None and gradient.micro_batch < size
    if isinstance(optimizer, Kfac) and ranks.size == 1 and not cut:
        raise BadInput(
            "noise_scale would look at the halves of a batch apart, and kfac takes part in every pass through the network; set "
            f"micro_batch to {max(1, size // 2)} or less"
        )


def restored(reading: Mapping[str, Any]) -> NoiseScaleReading:
    """Make a reading of its fields, read back from JSON."""
    fields = dict(reading)
    for name in ESTIMATES:
        if (found := fields[name]) is not None:
            fields[name] = Estimate(**{**found, "interval": found["interval"] and tuple(found["interval"])})
    return NoiseScaleReading(**fields)
