"""Schedules of the learning rate and of the batch as parts of anybody's own loop: a scheduler and a batch sampler."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Sampler

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.data.order import permutation
from gengap.schedules.batch import epoch_sizes
from gengap.schedules.budget import plan
from gengap.schedules.lr import learning_rate, scaled_lr, told
from gengap.training.ranks import Ranks

Spec = str | Mapping[str, Any]


class SampleLR(LRScheduler):
    """A schedule of the learning rate that counts samples and not steps, with scaling rule and warm-up.

    The rates of the optimizer's groups, as they are when this is made, are those of the reference batch. `step` is called
    after every update; a batch of another size says how many samples it had. It changes the rate only: a velocity that has
    the rate inside (LARS) is corrected by `gengap.correct_momentum`.

    Args:
        optimizer: whose rates are changed.
        training: size of the training set, N.
        batch_size: B of an update.
        epochs: of the whole training, for schedules that end with it, and for what is given in epochs.
        schedule: "constant", "cosine", "polynomial", "smith2020", "slow-start", or a table as in a recipe.
        warmup: {"epochs": 5, "start": 0.0 or "reference", "shape": "linear" or "constant"}, or None.
        lr_rule: {"name": "linear" or "sqrt", "reference_batch": 256}, or None. What it does is printed.
        regime_adaptation: a reference batch: everything in epochs is stretched by B / reference.

    Raises:
        BadInput: a setting cannot be used; one sentence.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        training: int,
        batch_size: int,
        epochs: int,
        schedule: Spec = "constant",
        warmup: Mapping[str, Any] | None = None,
        lr_rule: Mapping[str, Any] | None = None,
        regime_adaptation: int | None = None,
    ) -> None:
        momentum = float(optimizer.param_groups[0].get("momentum", 0.0))
        fields: dict[str, Any] = dict(
            lr=float(optimizer.param_groups[0]["lr"]),
            momentum=momentum,
            batch_size=batch_size,
            budget={"epochs": epochs},
            schedule=schedule,
            warmup=warmup,
            lr_rule=lr_rule,
            regime_adaptation=regime_adaptation,
        )
        self.recipe = Recipe(**fields)
        self.training, self.total = training, plan(self.recipe, training).samples
        self.samples = 0
        if rule := told(self.recipe):
            print(rule)
        super().__init__(optimizer)

    def step(self, samples: int | None = None) -> None:
        """Count an update.

        Args:
            samples: of its batch; None: `batch_size`.
        """
        if self._step_count:  # the base class steps once when it is made
            self.samples += int(self.recipe.batch_size) if samples is None else samples
        super().step()

    def get_lr(self) -> list[float | Tensor]:
        """Give the rate of every group for the update that comes."""
        rate = learning_rate(self.recipe, self.samples, training=self.training, total=self.total)
        return [float(base) * rate / self.recipe.lr for base in self.base_lrs]

    @property
    def scaled(self) -> float:
        """The rate of the first group after scaling, before schedule and warm-up."""
        return scaled_lr(self.recipe)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes."""
        return {
            name: value for name, value in super().state_dict().items() if name not in {"recipe", "training", "total"}
        }


class ScheduledBatchSampler(Sampler[list[int]]):
    """Batches without replacement, in an order that depends on (seed, epoch) alone, of a size that may change.

    For `DataLoader(dataset, batch_sampler=...)`. Two processes draw the batches of one, each its part of every batch. Call
    `set_epoch` before each epoch. A loop that stopped in the middle of one goes on after `load_state_dict`.

    Args:
        training: size of the training set, N.
        batch_size: B, of all processes together; with a schedule: the first.
        batch_schedule: {"name": "step", "milestones": [...], "factor": 5}, "switch" or "geometric" tables as in a recipe, or
            None. "dynamic" needs gradients: call `grow` with a new size at the end of an epoch instead.
        drop_last: leave out an epoch's last batch when it is smaller.
        seed: of the order.
        rank: of this process.
        ranks: how many processes there are.

    Attributes:
        position: samples of the epoch that were drawn, by all processes together.

    Raises:
        BadInput: a setting cannot be used; one sentence.
    """

    def __init__(
        self,
        training: int,
        batch_size: int,
        *,
        batch_schedule: Mapping[str, Any] | None = None,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        fields: dict[str, Any] = dict(
            lr=1,
            batch_size=batch_size,
            batch_schedule=batch_schedule,
            drop_last=drop_last,
            seed=seed,
            budget={"epochs": 1},
        )
        self.recipe, self.training, self.ranks = Recipe(**fields).resolved(training), training, Ranks(rank, ranks)
        self.epoch = self.position = 0
        self.size = batch_size

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; nothing changes where it is the one that `load_state_dict` is in the middle of."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def grow(self, size: int) -> None:
        """Choose the batch of the epochs to come.

        Args:
            size: B.

        Raises:
            BadInput: a batch_schedule decides it, or it is larger than the training set.
        """
        if self.recipe.batch_schedule:
            raise BadInput("the batch is that of a batch_schedule; make the sampler without one to set it by hand")
        self.recipe, self.size = self.recipe.changed(batch_size=size).resolved(self.training), size

    def __iter__(self) -> Iterator[list[int]]:
        """Give the rest of the epoch's batches: this process's part of each."""
        order = permutation(self.recipe.seed, self.epoch, self.training)
        if self.position >= self.training:
            self.position = 0
        for size in list(self._sizes()):
            start, stop = self.ranks.share(size)
            begin, self.position = self.position, self.position + size
            yield order[begin + start : begin + stop].tolist()
        self.position = 0

    def __len__(self) -> int:
        """Count the batches that are left of the epoch."""
        return sum(1 for _ in self._sizes())

    def _sizes(self) -> Iterator[int]:
        return epoch_sizes(self.recipe, self.epoch, training=self.training, position=self.position)

    def state_dict(self) -> dict[str, int]:
        """Everything that changes."""
        return {"epoch": self.epoch, "position": self.position, "size": self.size}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another one was."""
        if state["size"] != self.size:
            self.grow(state["size"])
        self.epoch, self.position = state["epoch"], state["position"]
