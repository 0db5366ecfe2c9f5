"""Learning rates that follow the batch, in optimizers and schedulers that are there, and a warm-up for them.

What a factor was applied to says so itself, in the parameter groups and in the scheduler, and so do the checkpoints of
both: a run that is resumed is not scaled twice, and one that is resumed with another batch is scaled by what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.hooks import RemovableHandle

from gengap.core.errors import BadInput
from gengap.core.recipe import Warmup
from gengap.core.recipe.schedules import LrRule
from gengap.schedules.lr import rule_factor, warmup_factor

SCALED = "lr_scaled_by"  # the mark in a parameter group and in a scheduler
WARMED = "lr_warmup_updates"  # updates made of a warm-up, in a parameter group
OF_GROUP = ("initial_lr", "max_lr", "min_lr", "swa_lr")  # learning rates that schedulers keep in a parameter group
OF_SCHEDULER = ("base_lrs", "max_lrs", "min_lrs", "eta_min", "_last_lr")  # and in themselves


@dataclass(frozen=True, slots=True)
class LrChange:
    """What was done to the learning rates; `str` says it in a sentence.

    Attributes:
        rule: "linear" or "sqrt".
        reference_batch: samples.
        batch: samples of an update, over all devices and passes.
        factor: what the learning rates of the reference batch are multiplied by.
        old: base learning rates before, one for each parameter group.
        new: and after.
        warmup_updates: in how many updates they are reached.
        warmup_start: share of them in the first update.
    """

    rule: str
    reference_batch: int
    batch: int
    factor: float
    old: tuple[float, ...]
    new: tuple[float, ...]
    warmup_updates: int
    warmup_start: float

    def __str__(self) -> str:
        became = f"becomes {listed(self.new)}" if self.old != self.new else "was scaled before and stays"
        warm = f"; warm-up of {self.warmup_updates:,} updates from {self.warmup_start:.3g} of it"
        return (
            f"lr {listed(self.old)} {became}: {self.rule} rule, batch {self.batch:,} for {self.reference_batch:,}"
            f"{warm if self.warmup_updates else ''}"
        )


@dataclass(slots=True)
class LrScaling:
    """A rule by which the learning rate follows the batch.

    Attributes:
        rule: "linear", or "sqrt".
        reference_batch: samples of the batch that the learning rates were chosen for.
        warmup_updates: the first updates, in which learning rates rise to what they should be.
        warmup_start: share of them at the first update; "reference" begins at the learning rate of the reference batch.

    Raises:
        BadInput: a value that cannot be used.

    Source:
        "linear" and the warm-up: Goyal et al. 2017, arXiv:1706.02677. "sqrt": Hoffer, Hubara & Soudry 2017,
        arXiv:1705.08741, eq. 7.
    """

    rule: Literal["linear", "sqrt"]
    reference_batch: int
    warmup_updates: int = 0
    warmup_start: float | Literal["reference"] = "reference"
    _hooks: list[RemovableHandle] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rule not in {"linear", "sqrt"}:
            raise BadInput(f"rule is {self.rule!r}; choose 'linear' or 'sqrt'")
        if self.reference_batch < 1:
            raise BadInput(
                f"reference_batch is {self.reference_batch}; give the samples that the lr was chosen for, >= 1"
            )
        if self.warmup_updates < 0:
            raise BadInput(f"warmup_updates is {self.warmup_updates}; give 0 for none, or more")
        if self.warmup_start != "reference" and not 0 <= float(self.warmup_start) <= 1:
            raise BadInput(f"warmup_start is {self.warmup_start}; give a share of the lr in [0, 1], or 'reference'")

    def apply(self, optimizers: Sequence[Optimizer], schedulers: Sequence[Any], batch: int) -> LrChange:
        """Scale, in place, once: what was scaled before gets only what is missing.

        Call it after optimizers and schedulers were made, and after a checkpoint was read into them.

        Args:
            optimizers: all of a training.
            schedulers: all that change them.
            batch: samples of an update, over all devices and passes.

        Returns:
            What was done.

        Raises:
            BadInput: batch below 1, or a scheduler that is not one of torch's kind. Nothing is changed then.
        """
        if batch < 1:
            raise BadInput(f"the batch is {batch}; give the samples of an update, >= 1")
        for scheduler in schedulers:
            if not isinstance(scheduler, LRScheduler):
                raise BadInput(
                    f"the scheduler is a {type(scheduler).__name__}, and what learning rates it keeps is not known; use one "
                    f"of torch.optim.lr_scheduler, or scale the learning rate before it is made"
                )
        factor = rule_factor(LrRule(name=self.rule, reference_batch=self.reference_batch), batch)
        old = base_lrs(optimizers)
        scale(optimizers, schedulers, factor)
        start = 1 / factor if self.warmup_start == "reference" else float(self.warmup_start)
        self._warm_up(optimizers, start)
        return LrChange(
            self.rule, self.reference_batch, batch, factor, old, base_lrs(optimizers), self.warmup_updates, start
        )

    def _warm_up(self, optimizers: Sequence[Optimizer], start: float) -> None:
        """Put the hooks of the warm-up in place of those that an earlier call left."""
        while self._hooks:
            self._hooks.pop().remove()
        for optimizer in optimizers if self.warmup_updates else ():
            warmup = UpdateWarmup(optimizer, self.warmup_updates, start)
            self._hooks += [
                optimizer.register_step_pre_hook(warmup.lower),
                optimizer.register_step_post_hook(warmup.restore),
            ]


class UpdateWarmup:
    """Multiplies learning rates while an optimizer steps, and only then: no scheduler sees it.

    The share rises linearly from `start` in the first update to 1 after `updates`; updates that a gradient scaler skips do
    not count. How many were made is kept in the parameter groups, and so in checkpoints of the optimizer.

    Args:
        optimizer: whose.
        updates: of the warm-up, >= 1.
        start: share in the first.
    """

    def __init__(self, optimizer: Optimizer, updates: int, start: float) -> None:
        self._warmup, self._start = Warmup(epochs=updates), start  # only a ratio is taken of its epochs
        self._kept: list[Any] = []
        for group in optimizer.param_groups:
            group.setdefault(WARMED, 0)

    def lower(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002 - as torch calls it
        """Set the learning rates of this update."""
        self._kept = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * warmup_factor(self._warmup, group.get(WARMED, 0), self._start)

    def restore(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        """Give back those of the schedule."""
        for group, lr in zip(optimizer.param_groups, self._kept, strict=True):
            group["lr"], group[WARMED] = lr, group.get(WARMED, 0) + 1


def scale(optimizers: Sequence[Optimizer], schedulers: Sequence[LRScheduler], factor: float) -> None:
    """Multiply every learning rate that optimizers and schedulers of torch hold, so that `factor` is applied once.

    Args:
        optimizers: changed in place.
        schedulers: changed in place, with those inside of them.
        factor: relative to what they were made with.
    """
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        missing = factor / group.get(SCALED, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].mul_(missing)  # a captured update reads this very tensor
        else:
            group["lr"] *= missing
        group.update({name: times(group[name], missing) for name in OF_GROUP if name in group})
        group[SCALED] = factor
    for scheduler in flat(schedulers):
        held = vars(scheduler)  # is what its state_dict keeps
        missing = factor / held.get(SCALED, 1.0)
        held.update({name: times(held[name], missing) for name in OF_SCHEDULER if name in held})
        held[SCALED] = factor


def flat(schedulers: Sequence[LRScheduler]) -> list[LRScheduler]:
    """List schedulers and, after each, those that it runs."""
    return [one for scheduler in schedulers for one in (scheduler, *flat(getattr(scheduler, "_schedulers", ())))]


def times(value: Any, factor: float) -> Any:
    """Multiply a learning rate, or each of several, into new numbers."""
    return type(value)(times(one, factor) for one in value) if isinstance(value, list | tuple) else value * factor


def base_lrs(optimizers: Sequence[Optimizer]) -> tuple[float, ...]:
    """Give the learning rate that schedules multiply, of each parameter group."""
    return tuple(float(g.get("initial_lr", g["lr"])) for optimizer in optimizers for g in optimizer.param_groups)


def listed(values: tuple[float, ...]) -> str:
    """Write different numbers one after the other, each once."""
    return ", ".join(dict.fromkeys(f"{value:.4g}" for value in values))


def unwrapped(wrapper: Any) -> Any:
    """Give the optimizer or scheduler of torch inside one of Accelerate's, or what was given."""
    name = {"AcceleratedOptimizer": "optimizer", "AcceleratedScheduler": "scheduler"}.get(type(wrapper).__name__)
    return getattr(wrapper, name) if name else wrapper
