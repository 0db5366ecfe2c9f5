"""One run in progress: everything that changes while it trains, and the loop that changes it."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, Message, Progress
from gengap.core.recipe import Recipe
from gengap.core.recipe.methods import ElasticAveraging
from gengap.core.recipe.schedules import BatchDynamic
from gengap.measures.random_state import kept
from gengap.optim.build import build, set_lr
from gengap.optim.rmsprop_warmup import RmspropWarmup
from gengap.optim.wrapping import plain_optimizers
from gengap.problem.problem import Problem
from gengap.schedules.batch import wanted_size
from gengap.schedules.budget import evaluation_steps, plan, updates_in
from gengap.schedules.lr import epochs_of, is_constant, learning_rate, told
from gengap.training.batches import rest_of_epoch, whole_set
from gengap.training.ending import check_start, diverged, plateau, used_up
from gengap.training.evaluation import Evaluation
from gengap.training.interrupt import StopRequest
from gengap.training.micro_batch import fitting_piece
from gengap.training.minibatch import Minibatch
from gengap.training.network import make_augment, make_network
from gengap.training.noise_readings import NoiseReadings
from gengap.training.ranks import ALONE, Ranks
from gengap.training.run import Cost, Outcome, Point, Run, scored
from gengap.training.sharded import Policy, is_sharded, shard as spread, told_of_parts, whole
from gengap.training.sharded_evaluation import ShardedEvaluation
from gengap.training.sharing import dropout_seed, told_of_sharing
from gengap.training.snapshots import Probe, Showing, Snapshot
from gengap.training.start import take_up
from gengap.training.step import make_update

BLOCK = 32  # updates between looks at the clock and at the losses, which on a GPU wait for the device
AGREE_SECONDS = 1.0  # about as long as one of several processes goes on after it was asked to stop


class Training:
    """A recipe at work on a problem.

    Args:
        problem: what is learnt.
        recipe: resolved for the problem's training set.
        device: where the weights and the batches are.
        evaluations: measurements of train and test loss on the way, at most.
        listen: told of the progress.
        probe: shown the weights on the way.
        ranks: the processes that share each batch.
        memory_limit: bytes that an update may take, where the recipe says micro_batch="auto"; None: a share of what is free.
        start: weights and buffers by name to begin with, in place of fresh ones.
        memory: `state_dict` of an optimizer of the same kind to go on with.
        noise: share of the time that reading the gradient noise scale may take; None: it is not read.
        shard: spread weights, gradients and the optimizer's memory over the processes; or what chooses the blocks (`Policy`).
    """

    def __init__(  # noqa: PLR0913 - what a run depends on
        self,
        problem: Problem,
        recipe: Recipe,
        device: torch.device,
        *,
        evaluations: int,
        listen: Listener,
        probe: Probe | None = None,
        ranks: Ranks = ALONE,
        memory_limit: str | int | None = None,
        start: Mapping[str, Tensor] | None = None,
        memory: Mapping[str, Any] | None = None,
        noise: float | None = None,
        shard: bool | Policy = False,
    ) -> None:
        dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
        self.problem, self.recipe, self.device, self.listen = problem, recipe, device, listen
        self.train = problem.samples("train").to(device, dtype)
        self.plan = plan(recipe, len(self.train))
        self.due = evaluation_steps(self.plan, evaluations)
        self.showing = Showing(probe, self.plan.steps)
        self.ranks, self.batch_size = ranks, self.plan.batch_size
        origin = torch.device("cpu") if shard else device  # a sharded network is never whole on its device
        self.model = make_network(problem, recipe, origin, start=start, processes=ranks.size)
        if shard:
            spread(self.model, ranks, device, None if shard is True else shard)
        self.augment = make_augment(recipe, self.train)
        self.initial = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer = build(
            recipe,
            self.model,
            updates_in=partial(updates_in, self.plan, recipe),
            loss=problem.loss.name,
            average=ranks.average if ranks.size > 1 else None,
        )
        take_up(self.optimizer, memory)
        self.in_progress = [one for one in plain_optimizers(self.optimizer) if isinstance(one, RmspropWarmup)]
        self.update, self.gradient = make_update(self.model, problem.loss, self.optimizer, recipe, ranks=ranks)
        if recipe.micro_batch == "auto":
            self.gradient.limit_pieces(fitting_piece(self.gradient, self.train, memory_limit))
        self.noise = None
        if noise is not None:
            self.noise = NoiseReadings(self.gradient, self.optimizer, most=noise, clock=self._training_clock)
            self.update = self.noise.around(self.update)
        check_meetings(recipe, self.plan.steps)
        self.evaluation = ShardedEvaluation(problem, ranks, self.model, device) if shard else Evaluation(problem, ranks)
        self.history: list[Point] = []
        self.pending: list[tuple[Tensor, int]] = []
        self.outcome: Outcome | None = None
        self.interrupted = False
        self.step = self.samples = self.epoch = self.position = self.stale = self.looked = 0
        self.epoch_loss, self.best = 0.0, math.inf
        self.seconds = self.evaluation_seconds = 0.0
        self.lr = self._scheduled_lr()
        set_lr(self.optimizer, self.lr)
        self.block = BLOCK
        torch.manual_seed(dropout_seed(recipe, ranks))

    def begin(self) -> None:
        """Measure the untrained network; refuse one whose loss is not finite."""
        if self.history:
            return
        if rule := told(self.recipe):
            self.listen(Message(rule))
        for text in told_of_sharing(self.recipe, self.ranks, self.gradient.micro_batch):
            self.listen(Message(text))
        if is_sharded(self.model):
            self.listen(Message(told_of_parts(self.model)))
        self._evaluate()
        check_start(self.history[0])
        self._show_if_due()

    def run(self, stop: StopRequest, pause: Callable[[], None]) -> None:
        """Train until the budget is used, the loss is not finite, or somebody asks to stop.

        Args:
            stop: looked at after every update.
            pause: called between blocks of updates, when the state is whole: the place to write a checkpoint.
        """
        while self.outcome is None and not stop.made:
            self._epoch(stop, pause)
        self.interrupted = stop.made
        self.listen(self._progress())

    def _epoch(self, stop: StopRequest, pause: Callable[[], None]) -> None:
        """Go through the rest of the current epoch."""
        self._begin_epoch()
        constant, clock = is_constant(self.recipe), time.perf_counter()
        for batch in self._batches():
            if not constant:
                self.lr = self._scheduled_lr()
                set_lr(self.optimizer, self.lr, corrected=self.recipe.momentum_correction)
            for inner in self.in_progress:
                inner.set_progress(
                    epochs_of(self.recipe, self.samples, training=len(self.train), total=self.plan.samples)
                )
            size = batch.total
            self.pending.append((self.update(batch), size))
            self.step += 1
            self.samples += size
            self.position += size
            if len(self.pending) >= self.block or stop.made or self.step in {self._next_due(), self.showing.next}:
                self._look()
                self.seconds += self._agree(stop, time.perf_counter() - clock)
                if self.outcome is None:
                    self._measure_if_due()
                if self.outcome is not None or stop.made:
                    return
                pause()
                clock = time.perf_counter()
        self._look()
        self.seconds += self._agree(stop, time.perf_counter() - clock)
        self._end_epoch()

    def _agree(self, stop: StopRequest, spent: float) -> float:
        """Let all processes hear when one is asked to stop, about once a second; return the seconds spent."""
        if self.ranks.size > 1:
            wanted = max(1, round(self.looked / max(spent, 1e-9) * AGREE_SECONDS))
            asked, block = self.ranks.largest([stop.asked, min(wanted, BLOCK)])
            stop.made, self.block = bool(asked), int(block)
        return spent

    def _begin_epoch(self) -> None:
        """Do what an optimizer or the quirks of a code want done before an epoch's first update."""
        if self.position:
            return
        if self.recipe.quirks and self.epoch:
            self.optimizer.state.clear()
        method = self.recipe.method
        if method and method.name == "svrg" and self.epoch % method.epochs == 0:
            self.optimizer.snapshot(self._full_gradient)  # type: ignore[attr-defined]

    def _full_gradient(self) -> Tensor:
        share = whole_set(self.train, self.recipe, epoch=self.epoch, ranks=self.ranks, augment=self.augment)
        return self.gradient.over(share)

    def _batches(self) -> Iterator[Minibatch]:
        return rest_of_epoch(
            self.train,
            self.recipe,
            epoch=self.epoch,
            position=self.position,
            step=self.step,
            current=self.batch_size,
            ranks=self.ranks,
            augment=self.augment,
        )

    def _next_due(self) -> int:
        return self.due[0] if self.due else -1

    def _look(self) -> None:
        """Read the losses of the last updates; find a divergence."""
        self.looked = len(self.pending)
        if self.pending:
            values = torch.stack([loss for loss, _ in self.pending]).double().tolist()
            first = self.step - len(self.pending)
            for i, (value, (_, size)) in enumerate(zip(values, self.pending, strict=True)):
                if not math.isfinite(value):
                    self.outcome = diverged(first + i, value)
                    return
                self.epoch_loss += value * size
            self.pending.clear()
        self.listen(self._progress())

    def _measure_if_due(self) -> None:
        if self.step == self._next_due():
            self._evaluate()
        if self.outcome is None and self.step == self.plan.steps and self.plan.by_steps:
            self.outcome = Outcome("finished", self.step)
        self._show_if_due()

    def _end_epoch(self) -> None:
        """Count the epoch, and decide whether it was the last."""
        if self.outcome is not None:
            return
        last = used_up(self.recipe, self.plan, step=self.step, epoch=self.epoch)
        self.best, self.stale, reason = plateau(
            self.recipe.budget.converged,
            self.epoch_loss / self.position,
            best=self.best,
            stale=self.stale,
            last=last,
        )
        if reason or last:
            if self.history[-1].step != self.step:
                self._evaluate()
            self.outcome = self.outcome or Outcome("finished", self.step, reason)
            self.showing.end_at(self.step)
            self._show_if_due()
        self.epoch += 1
        self.position, self.epoch_loss = 0, 0.0
        self._grow()

    def _grow(self) -> None:
        """Let a dynamic schedule choose the next epoch's batch."""
        schedule = self.recipe.batch_schedule
        if self.gradient.halves is None or not isinstance(schedule, BatchDynamic):
            return
        trace, norm = self.gradient.halves.take()
        self.batch_size = wanted_size(
            schedule, self.batch_size, trace=trace, squared_norm=norm, training=len(self.train)
        )

    def _evaluate(self) -> None:
        """Measure loss and accuracy on every split, and note them."""
        clock = time.perf_counter()
        params = {name: p.detach() for name, p in self.model.named_parameters()}
        buffers = dict(self.model.named_buffers())
        scores = self.evaluation(params, buffers)
        point = Point(
            step=self.step,
            samples=self.samples,
            epoch=self.samples / len(self.train),
            lr=self.lr,
            seconds=self.seconds,
            batch_loss=self.epoch_loss / self.position if self.step else None,
            **scored(self.problem.splits, scores),
        )
        self.history.append(point)
        if self.noise and self.step:
            self.noise.note()
        self.due = [step for step in self.due if step > self.step]
        if self.step and not math.isfinite(point.train_loss):
            self.outcome = diverged(self.step, point.train_loss)
        self.evaluation_seconds += time.perf_counter() - clock

    def _training_clock(self) -> float:
        return time.perf_counter() - self.evaluation_seconds

    def _show_if_due(self) -> None:
        """Show the probe copies of the weights; what it draws at random does not count for the run."""
        if self.step != self.showing.next or (self.outcome and self.outcome.kind == "diverged"):
            return
        clock = time.perf_counter()
        shown = Snapshot(
            step=self.step,
            samples=self.samples,
            params=whole(self.model.named_parameters()),
            initial_params=whole(self.initial.items()),
            buffers=whole(self.model.named_buffers()),
            run=f"{self.recipe.key}/{self.problem.fingerprint}",
            memory=copy.deepcopy(self.optimizer.state_dict()) if self.showing.with_memory else None,
        )
        with kept():
            self.showing.show(shown)
        self.evaluation_seconds += time.perf_counter() - clock

    def _scheduled_lr(self) -> float:
        return learning_rate(self.recipe, self.samples, training=len(self.train), total=self.plan.samples)

    def _progress(self) -> Progress:
        what = f"batch {self.plan.batch_size:,}, seed {self.recipe.seed}"
        last = self.history[-1]
        note = f"train loss {last.train_loss:.3g}"
        if last.test_accuracy is not None:
            note += f", test accuracy {last.test_accuracy:.2f} %"
        total = self.plan.samples / len(self.train) if self.plan.samples else None
        return Progress(what, self.samples / len(self.train), total, "epochs", note)

    def result(self) -> Run:
        """Give the run as it stands."""
        stopped = Outcome("interrupted", self.step, "by Ctrl-C; with a checkpoint it can be resumed")
        return Run(
            problem=self.problem.name,
            recipe=self.recipe,
            outcome=stopped if self.interrupted or self.outcome is None else self.outcome,
            history=tuple(self.history),
            params=whole(self.model.named_parameters()),
            initial_params=whole(self.initial.items()),
            buffers=whole(self.model.named_buffers()),
            cost=Cost(
                self.seconds,
                self.evaluation_seconds,
                self.step,
                self.samples,
                ranks=self.ranks.size,
                micro_batch=self.gradient.micro_batch,
            ),
            noise_scale=tuple(self.noise.readings) if self.noise else (),
        )


def check_meetings(recipe: Recipe, steps: int) -> None:
    """Refuse workers that never meet: what they learnt would be lost."""
    method = recipe.method
    if isinstance(method, ElasticAveraging) and method.period > steps:
        raise BadInput(
            f"the workers of elastic-averaging meet every {method.period} updates, and there are only {steps}; choose a period "
            f"of at most {steps}"
        )
