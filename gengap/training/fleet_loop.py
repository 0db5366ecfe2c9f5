"""A fleet in progress: everything that changes while it trains, and the loop that changes it.

The counterpart of `gengap.training.loop` for many runs. Step, epoch and place in the epoch are the same for all members, so
that they are looked at, measured and ended at the same updates as alone.
"""

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gengap.core.events import Listener, Message, Progress
from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.schedules.batch import epoch_sizes
from gengap.schedules.budget import evaluation_steps, plan
from gengap.schedules.lr import is_constant, learning_rate, scaled_lr, told
from gengap.training.ending import check_start, diverged, plateau, used_up
from gengap.training.fleet_batches import fleet_batches, held
from gengap.training.fleet_dense import recognise
from gengap.training.fleet_evaluation import FleetEvaluation
from gengap.training.fleet_gradient import FleetGradient, MappedGradient
from gengap.training.fleet_losses import mappable
from gengap.training.fleet_member import Member
from gengap.training.fleet_optimizers import FleetOptimizer
from gengap.training.fleet_stack import FleetBatch, make_stack, row
from gengap.training.interrupt import StopRequest
from gengap.training.loop import BLOCK
from gengap.training.run import Outcome, Point, Run, scored


class Fleet:
    """Recipes at work on a problem, side by side.

    Args:
        problem: what is learnt, in memory.
        recipes: resolved, of one fleet.
        device: where stacked weights and batches are.
        evaluations: measurements on the way, at most.
        listen: told of the progress.
    """

    def __init__(
        self,
        problem: Problem,
        recipes: Sequence[Recipe],
        device: torch.device,
        *,
        evaluations: int,
        listen: Listener,
    ) -> None:
        first = recipes[0]
        dtype = torch.float64 if first.dtype == "float64" else torch.float32
        train = held(problem, "train").to(device, dtype)
        self.problem, self.recipe, self.listen, self.train = problem, first, listen, train
        self.plan = plan(first, len(train))
        self.due = evaluation_steps(self.plan, evaluations)
        model, self.stack = make_stack(problem, recipes, device)
        self.members = [Member(recipe, row(self.stack.params, k)) for k, recipe in enumerate(recipes)]
        self.alive = list(self.members)
        like = next(iter(self.stack.params.values()))
        self.optimizer = FleetOptimizer(model, recipes, like)
        self.gradient = self._make_gradient(model, first.label_smoothing)
        self.evaluation = FleetEvaluation(problem)
        self.base = torch.tensor([scaled_lr(recipe) for recipe in recipes], dtype=torch.float64)
        self.lr = self.base.to(like)
        self.pending: list[tuple[Tensor, int]] = []
        self.step = self.samples = self.epoch = self.position = self.rated = 0

    def _make_gradient(self, model: nn.Module, smoothing: float) -> FleetGradient:
        loss = self.problem.loss
        dense = recognise(model, loss, self.train, smoothing=smoothing)
        mean = mappable(loss, self.train.targets, smoothing)
        return dense or MappedGradient(model, mean, [member.recipe for member in self.members])

    def begin(self) -> None:
        """Measure the untrained networks; refuse them if a loss is not finite."""
        for text in dict.fromkeys(told(member.recipe) for member in self.members):
            if text:
                self.listen(Message(text))
        self._rate()
        self._evaluate(self.alive)
        for member in self.members:
            check_start(member.history[0])

    def run(self, stop: StopRequest) -> None:
        """Train until all members have ended, or somebody asks to stop."""
        while self.alive and not stop.made:
            self._epoch(stop)
        self._retire(everybody=True)

    def _epoch(self, stop: StopRequest) -> None:
        """Go through the rest of the current epoch, or as far as the same members go on."""
        clock = time.perf_counter()
        for batch in self._batches():
            self._update(batch)
            if len(self.pending) >= BLOCK or stop.made or self.step == self._next_due():
                self._look(time.perf_counter() - clock)
                self._measure_if_due()
                if self._retire() or stop.made:
                    return
                clock = time.perf_counter()
        self._look(time.perf_counter() - clock)
        if not self._retire():
            self._end_epoch()

    def _batches(self) -> Iterator[FleetBatch]:
        sizes = list(epoch_sizes(self.recipe, self.epoch, training=len(self.train), position=self.position))
        seeds = [member.recipe.seed for member in self.alive]
        return fleet_batches(self.train, seeds, sizes, epoch=self.epoch, position=self.position)

    def _update(self, batch: FleetBatch) -> None:
        """Train all members on a batch of each."""
        if not is_constant(self.recipe):
            self._rate()
        losses, gradients = self.gradient(self.stack, batch)
        self.optimizer.step(self.stack.params, gradients, self.lr)
        self.pending.append((losses, batch.size))
        self.step += 1
        self.samples += batch.size
        self.position += batch.size

    def _rate(self) -> None:
        """Set the learning rates of the update to come: the shape of the schedule is the same for all."""
        self.rated = self.samples
        self.lr = (self.base * (self._scheduled(self.recipe) / scaled_lr(self.recipe))).to(self.lr)

    def _scheduled(self, recipe: Recipe) -> float:
        return learning_rate(recipe, self.rated, training=len(self.train), total=self.plan.samples)

    def _next_due(self) -> int:
        return self.due[0] if self.due else -1

    def _look(self, spent: float) -> None:
        """Read the losses of the last updates; find divergences; share out the seconds."""
        for member in self.alive:
            member.seconds += spent / len(self.alive)
        if not self.pending:
            return
        values = torch.stack([losses for losses, _ in self.pending], 1).double().cpu()
        sums = (values @ torch.tensor([size for _, size in self.pending], dtype=torch.float64)).tolist()
        first = self.step - len(self.pending)
        for member, total, own in zip(self.alive, sums, values, strict=True):
            if math.isfinite(total):
                member.epoch_loss += total
            else:
                i = int((~own.isfinite()).nonzero()[0])
                member.outcome = diverged(first + i, float(own[i]))
        self.pending.clear()
        self.listen(self._progress())

    def _measure_if_due(self) -> None:
        if self.step != self._next_due():
            return
        self._evaluate([member for member in self.alive if member.outcome is None])
        self.due = self.due[1:]
        if self.step == self.plan.steps and self.plan.by_steps:
            for member in self.alive:
                member.outcome = member.outcome or Outcome("finished", self.step)

    def _end_epoch(self) -> None:
        """Count the epoch, and decide for whom it was the last."""
        last = used_up(self.recipe, self.plan, step=self.step, epoch=self.epoch)
        reasons = {id(member): self._plateau(member, last=last) for member in self.alive}
        ending = [member for member in self.alive if reasons[id(member)] or last]
        self._evaluate([member for member in ending if member.history[-1].step != self.step])
        for member in ending:
            member.outcome = member.outcome or Outcome("finished", self.step, reasons[id(member)])
        self._retire()
        for member in self.alive:
            member.epoch_loss = 0.0
        self.epoch += 1
        self.position = 0

    def _plateau(self, member: Member, *, last: bool) -> str:
        """Follow a member's mean loss; return the reason to stop, or ""."""
        member.best, member.stale, reason = plateau(
            self.recipe.budget.converged,
            member.epoch_loss / self.position,
            best=member.best,
            stale=member.stale,
            last=last,
        )
        return reason

    def _evaluate(self, members: Sequence[Member]) -> None:
        """Measure loss and accuracy of some members on every split, and note them."""
        if not members:
            return
        clock = time.perf_counter()
        rows = [k for k, member in enumerate(self.alive) if member in members]
        stack = self.stack if len(rows) == len(self.alive) else self.stack.at(self._rows(rows))
        for member, scores in zip(members, self.evaluation(stack), strict=True):
            point = Point(
                step=self.step,
                samples=self.samples,
                epoch=self.samples / len(self.train),
                lr=self._scheduled(member.recipe),
                seconds=member.seconds,
                batch_loss=member.epoch_loss / self.position if self.step else None,
                **scored(self.problem.splits, scores),
            )
            member.history.append(point)
            if self.step and not math.isfinite(point.train_loss):
                member.outcome = diverged(self.step, point.train_loss)
        spent = time.perf_counter() - clock
        for member in members:
            member.evaluation_seconds += spent / len(members)

    def _retire(self, *, everybody: bool = False) -> bool:
        """Let members leave that have ended; tell whether any did."""
        leaving = [k for k, member in enumerate(self.alive) if everybody or member.outcome]
        for k in leaving:
            self.alive[k].leave(
                row(self.stack.params, k), row(self.stack.buffers, k), steps=self.step, samples=self.samples
            )
        staying = [k for k in range(len(self.alive)) if k not in leaving]
        if leaving and staying:
            rows = self._rows(staying)
            self.stack, self.lr = self.stack.at(rows), self.lr[rows]
            self.base = self.base[rows.cpu()]
            self.optimizer.keep(rows)
            self.gradient.keep(staying)
        self.alive = [self.alive[k] for k in staying]
        return bool(leaving)

    def _rows(self, which: Sequence[int]) -> Tensor:
        return torch.tensor(which, device=self.lr.device)

    def _progress(self) -> Progress:
        what = f"{len(self.alive)} runs, batch {self.plan.batch_size:,}"
        total = self.plan.samples / len(self.train) if self.plan.samples else None
        losses = [member.history[-1].train_loss for member in self.alive]
        note = f"train loss {min(losses):.3g} to {max(losses):.3g}"
        return Progress(what, self.samples / len(self.train), total, "epochs", note)

    def results(self) -> list[Run]:
        """Give all runs, in the order of the recipes."""
        return [member.result(self.problem.name) for member in self.members]
