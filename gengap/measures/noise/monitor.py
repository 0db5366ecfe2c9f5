"""The gradient noise scale during training, in anybody's loop."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gengap.core.errors import BadInput
from gengap.measures.noise.adam_metric import AdamMetric
from gengap.measures.noise.arithmetic import Parts, parts_of
from gengap.measures.noise.gradient_tap import GradientTap
from gengap.measures.noise.overhead import Overhead
from gengap.measures.noise.processes import Averaging, Processes
from gengap.measures.noise.reading import NoiseObservation, NoiseScaleReading, averages_of, observation, why_not

WARM_UP = 3  # steps before the first observation, to be past what only the first ones do
PENDING = 64  # observations that wait on an accelerator, at most, to be read together
KEPT = 10_000  # observations kept for plots
DIFFER = 1e-2  # relative difference between the sum of the passes and `.grad` that is let pass in float32
FORMAT = "gengap.noise-scale-monitor/1"
NO_PARTS = Parts(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Pending:
    """Sums of a step that are still on the device."""

    step: int
    samples: int
    tolerance: float
    row: Tensor


class NoiseScaleMonitor:
    r"""Estimates the gradient noise scale :math:`\mathrm{tr}(\Sigma) / |G|^2` while a network trains.

    With gradient accumulation, or under `DistributedDataParallel`, a step already has gradients of two batch sizes:
    those of single backward passes and that of the whole batch. One call between the last backward pass and the
    optimizer reads both, before anything is clipped or unscaled::

        monitor = NoiseScaleMonitor(model)
        for inputs, targets in loader:
            for x, y in zip(inputs.chunk(4), targets.chunk(4)):
                (loss(model(x), y) / 4).backward()
            monitor.step(batch_size=len(targets))
            optimizer.step()
            optimizer.zero_grad()

    A loop with one backward pass and one process calls `monitor.backward(losses)` instead of `losses.mean().backward()`
    and no `step`. The network, `.grad` and random states are bit for bit as without the monitor in both cases.

    G is the gradient of the population that samples are drawn from. Samples must be in random order. Each part of a
    batch must be independent of the others; batch norm in training mode couples the samples of one forward pass, so
    with accumulation the loss is that of batch norm over a backward pass, and `backward` says what it does there.

    Only some steps are observed, as many as `max_overhead` allows. Other steps cost a few looks at the clock: hooks are in
    place only while a step is observed. An accelerator is waited for on the first few observed steps and every 50th, to
    learn what they cost; else numbers stay on it until they are read. Under `DistributedDataParallel` all ranks observe
    the same steps, add up a few hundred numbers there, and must call `step` equally often (so not with `join`).

    Steps of which the parts do not add up to `.grad` (stale or clipped gradients, a wrong model) raise where it is the
    first that is observed, and later are dropped and counted, as are gradients that are not finite: a training is not
    stopped by its monitor.

    Args:
        model: a module, wrapped in `DistributedDataParallel` if it is trained so, on its device; or some leaf
            parameters, to measure a part of the network. Tied, frozen, unused and sparse ones are right; sharded ones
            are refused.
        max_overhead: share of the time that observing may take, in (0, 1]; 1 observes every step.
        beta: decay of the averages from one observation to the next, in (0, 1]; 0.99 remembers about 100.
        optimizer: an Adam; if given, squares are divided by the root of its second moment plus eps, which gives the noise
            scale of the preconditioned gradient.
        scaler: a `torch.amp.GradScaler`, if gradients are scaled when `step` is called. Asked for its scale on
            observed steps, which waits for the device.
        clock: returns seconds.
        processes: those that share each batch and add their gradients up in `.grad`, in a loop without
            `DistributedDataParallel`; it is asked for the ranks otherwise.

    Attributes:
        steps: calls of `step`.
        samples: samples so far, over all ranks if they are equally many on each.
        every: steps from one observation to the next, as chosen last.

    Raises:
        BadInput: max_overhead or beta is out of range, the model has no parameters or unfit ones, or the optimizer has
            no second moment.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Tensor],
        *,
        max_overhead: float = 0.03,
        beta: float = 0.99,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        clock: Callable[[], float] = time.perf_counter,
        processes: Processes | None = None,
    ) -> None:
        for name, value in (("max_overhead", max_overhead), ("beta", beta)):
            if not 0 < value <= 1:
                raise BadInput(f"{name} is {value}; choose it in (0, 1]")
        self._beta, self._scaler = beta, scaler
        self._metric = AdamMetric(optimizer) if optimizer is not None else None
        self._tap = GradientTap(model, lambda: self._overhead.own(), self._metric)
        place = self._tap.device
        wait = None if place.type == "cpu" else partial(torch.accelerator.synchronize, place)
        self._overhead = Overhead(max_overhead, clock, wait)
        self._processes = Averaging(model.process_group) if isinstance(model, DistributedDataParallel) else processes
        self._ranks = self._processes.size if self._processes else 1
        self._share = (
            1 / self._ranks if isinstance(self._processes, Averaging) else 1.0
        )  # of a rank's gradient in .grad
        self.steps = self.samples = self._dropped = 0
        self.every, self._due, self._fault = 1, WARM_UP, ""
        self._pending: list[Pending] = []
        self._history: deque[NoiseObservation] = deque(maxlen=KEPT)

    @property
    def overhead(self) -> float:
        """Share of the time between the first and the latest step that was spent on observing."""
        return self._overhead.share

    @property
    def observing(self) -> bool:
        """Whether the present step is observed: backward passes are looked at until `step` is called."""
        return self._tap.is_open

    @property
    def history(self) -> tuple[NoiseObservation, ...]:
        """The observations, oldest first; the latest 10,000."""
        self._collect()
        return tuple(self._history)

    def step(
        self,
        batch_size: int | Sequence[int],
        *,
        weights: float | Sequence[float] | None = None,
        total: int | None = None,
    ) -> None:
        """Read the gradients of a step; call it between the last backward pass and the optimizer.

        The gradients must be as the backward passes left them: not clipped, not unscaled, not zeroed.

        Args:
            batch_size: samples of this step on this rank, which the backward passes shared evenly; or the samples of
                each backward pass.
            weights: what the mean loss of each backward pass was multiplied by, without the scale of a `GradScaler`:
                one number for all, or one for each. By default 1/k for k passes, the usual `loss / k`. Give 1 if losses
                were not divided, `[b / B for b in batch_size]` if samples of uneven passes weigh the same, and the
                batch sizes themselves if losses are sums. A common factor c that is not told here makes trace and
                squared norm wrong by c^2 and leaves the noise scale right.
            total: samples of this step on all ranks, where that is not as many on each.

        Raises:
            BadInput: no step could be used yet, and this one cannot: one backward pass in one process, sizes that do
                not fit the passes, gradients that do not add up.
        """
        each = list(batch_size) if isinstance(batch_size, Sequence) else [batch_size]
        with self._overhead.own():
            self.steps += 1
            self.samples += sum(each) * self._ranks if total is None else total
            if self._tap.is_open:
                try:
                    self._observe(batch_size, weights)
                finally:
                    self._tap.close()
        self._plan()

    def skip(self, samples: int = 0) -> None:
        """Count a step that says nothing of the noise, and its samples, and forget its backward passes."""
        self._tap.close()
        self.steps += 1
        self.samples += samples
        self._plan()

    def forget(self) -> None:
        """Forget the backward passes since the last step: those of a loop that makes more than the step's gradient needs."""
        if self._tap.is_open:
            self._tap.open()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Count what happens inside as a cost of the monitor: backward passes that are made for it alone.

        Yields:
            Nothing.
        """
        with self._overhead.own():
            yield

    def backward(self, losses: Tensor) -> Tensor:
        """Do what `losses.mean().backward()` does; on observed steps look at both halves of the batch.

        For loops with one backward pass to a step; `step` is called in here. An observed step goes backward twice, for
        the gradient of the first half before that of the whole, and keeps one copy of the gradient meanwhile; hooks of
        your own run twice then. Under `DistributedDataParallel` the ranks are the small batches and nothing is repeated.

        With batch norm in training mode the halves share one forward pass and its statistics, so they are not
        independent, and trace and noise scale are only indicative; accumulate two backward passes and call `step` for
        numbers that are right (for batch norm over half batches), or measure with batch norm in evaluation mode.

        Args:
            losses: of every sample, shape (B,), not reduced; scaled by the scaler, if there is one.

        Returns:
            The mean loss, detached.

        Raises:
            BadInput: `losses` has another shape, or no step could be used yet and this one cannot.
        """
        if losses.ndim != 1 or not losses.numel():
            raise BadInput(f"losses have shape {tuple(losses.shape)}; give one loss a sample, shape (B,), not reduced")
        B = losses.shape[0]
        sizes = [B]
        if self._tap.is_open and self._ranks == B == 1:  # the last batch of an epoch may be so
            self._tap.close()
            self._drop("a batch of one sample has no halves", stop=False)
        if self._tap.is_open and self._ranks == 1:
            sizes = [B // 2, B - B // 2]
            with self._overhead.own():
                self._tap.see_first_part(losses[: sizes[0]].sum() / B)
        mean = losses.mean()
        mean.backward()
        self.step(sizes, weights=[b / B for b in sizes])
        return mean.detach()

    def reading(self) -> NoiseScaleReading:
        """Average the observations so far, the latest weighing most. Waits for an accelerator.

        Numerator and denominator are averaged separately. Intervals are of 95 %: errors from differences of neighbouring
        observations, Fieller's interval for the ratio. Where the squared gradient norm is not told from zero, there is
        no noise scale but a lower limit.

        Returns:
            The noise scale with its parts, or the reason why there is none.
        """
        history = self.history
        found = averages_of(history, self._beta)
        reason = why_not(found, len(history))
        last = history[-1] if history else None
        return NoiseScaleReading(
            simple=found.ratio() if found and not reason else None,
            reason=reason,
            at_least=found.ratio_interval()[0] if found else None,
            trace_covariance=found.of_top() if found else None,
            squared_gradient_norm=found.of_bottom() if found else None,
            observations=found.n if found else len(history),
            dropped=self._dropped,
            fault=self._fault,
            steps=self.steps,
            samples=self.samples,
            B_small=last.B_small if last else None,
            B_big=last.B_big if last else None,
            every=self.every,
            overhead=self.overhead,
            metric="adam" if self._metric else "euclidean",
        )

    def close(self) -> None:
        """Take the hooks away; later steps are counted and not observed."""
        self._tap.close()
        self._overhead.observing = False
        self._due = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs: plain numbers, strings and lists, the same on all ranks but for seconds."""
        return {
            "format": FORMAT,
            "counts": [self.steps, self.samples, self._dropped, self.every, self._due],
            "fault": self._fault,
            "history": [list(astuple(o)) for o in self.history],
            "overhead": self._overhead.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was.

        Args:
            state: what it gave; under `DistributedDataParallel` that of one rank, on all.

        Raises:
            BadInput: it is something else.
        """
        if state.get("format") != FORMAT:
            raise BadInput(f"the state has format {state.get('format')!r}; give a state_dict of a NoiseScaleMonitor")
        self.close()
        self._pending.clear()
        self.steps, self.samples, self._dropped, self.every, self._due = state["counts"]
        self._fault = state["fault"]
        self._history = deque((NoiseObservation(*row) for row in state["history"]), maxlen=KEPT)
        self._overhead.load_state_dict(state["overhead"])
        self._open_if_due()

    def _observe(self, batch_size: int | Sequence[int], weights: float | Sequence[float] | None) -> None:
        """Take the sums of this step, over all ranks."""
        sums, ranks, passes, fault = self._tap.seen(), self._ranks, self._tap.passes, ""
        idle = self._processes is not None and not batch_size and not passes  # had no samples, where others had
        try:
            parts = NO_PARTS if idle else parts_of(batch_size, weights, passes, ranks, scale=self._scale())
        except BadInput as error:  # told after the other ranks, which wait, have got their numbers
            parts, fault = Parts(math.nan, math.nan, math.nan), str(error)
        share = self._share
        own = [parts.weight * share, parts.square * share**2, parts.noise * share**2]
        known = torch.tensor(own, dtype=sums.dtype).to(sums.device, non_blocking=True)
        total = torch.cat([known, sums[:1] * share**2, sums[1:] * share])
        if self._processes:
            self._processes.add([total])
        if fault:
            self._drop(fault, stop=True)
            return
        row = torch.cat([total[:4], self._tap.compare(total[4:])])
        rounding = 4 * math.sqrt(passes * ranks) * self._tap.resolution
        self._pending.append(Pending(self.steps, self.samples, max(DIFFER, rounding), row))
        if self._overhead.calibrating or len(self._pending) >= PENDING:
            self._collect()

    def _scale(self) -> float:
        """Return what the scaler multiplied losses by."""
        return float(self._scaler.get_scale()) if self._scaler else 1.0

    def _collect(self) -> None:
        """Bring waiting sums from the device and make observations of them."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        rows = torch.stack([waiting.row for waiting in pending]).tolist()
        for waiting, row in zip(pending, rows, strict=True):
            found = observation(waiting.step, waiting.samples, row, waiting.tolerance)
            if isinstance(found, NoiseObservation):
                self._history.append(found)
            else:
                self._drop(found, stop=all(map(math.isfinite, row)))

    def _drop(self, fault: str, *, stop: bool) -> None:
        """Count a step that could not be used.

        Args:
            fault: why.
            stop: whether it is the caller's mistake and not the network's state.

        Raises:
            BadInput: it is, and nothing was observed yet.
        """
        if stop and not self._history:
            raise BadInput(fault)
        self._dropped, self._fault = self._dropped + 1, fault

    def _plan(self) -> None:
        """Close the step and decide which one is observed next."""
        observed, timed = self._overhead.observing, self._overhead.calibrating
        self._overhead.end_step()
        if timed:
            self.every = self._of_first_rank(self._overhead.period())
        if observed:
            self._due = self.steps + self.every - 1
            self._overhead.observing = False
        self._open_if_due()

    def _open_if_due(self) -> None:
        """Put the hooks in place if the next step is to be observed."""
        if self.steps != self._due:
            return
        self._overhead.observing = True
        with self._overhead.own():
            if self._metric:
                self._metric.check()
            self._tap.open()

    def _of_first_rank(self, number: int) -> int:
        """Agree on a number: clocks differ between ranks, the steps that are observed must not."""
        if not self._processes:
            return number
        shared = torch.tensor([number if self._processes.rank == 0 else 0], device=self._tap.device)
        self._processes.add([shared])
        return int(shared.item())
