"""Callbacks for the `Trainer` of Hugging Face: noise scale, ghost batch norm, learning rates that follow the batch."""

from collections.abc import Callable
from typing import Any, Literal

from gengap.adapters.lr_scaling import LrChange, LrScaling, unwrapped
from gengap.adapters.noise_watch import NoiseScaleWatch, samples_of
from gengap.adapters.required import required
from gengap.measures.noise.monitor import NoiseScaleMonitor
from gengap.nets.norm_conversion import convert_ghost_batch_norm
from gengap.nets.norms import checked_ghost_size

TrainerCallback: Any = required("transformers").TrainerCallback


class NoiseScaleCallback(TrainerCallback):  # type: ignore[misc]
    """Writes the gradient noise scale into the trainer's logs, with gradient accumulation or several processes.

    It needs the trainer: `trainer.add_callback(NoiseScaleCallback(trainer))`. Callbacks see gradients only after they were
    clipped, so while it trains, the trainer's `training_step` is wrapped and gradients are read where the last one of an
    update ends. The training stays bit for bit as it is. Logged are, under `noise_scale/`, `simple` with `low` and `high`,
    `at_least`, `trace_covariance`, `squared_gradient_norm`, `observations`, `overhead`.

    A sample is a row of the batch, also of tokens; where losses are means over tokens, sequences are taken to have equally
    many.

    Args:
        trainer: whose callback it is.
        every: updates from one logging to the next, >= 1.
        max_overhead: share of the time that observing may take, in (0, 1].
        samples: counts the samples of a batch; by default the length of its first tensor.

    Raises:
        BadInput: where training begins: one pass in one process, or parameters that the monitor refuses.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """

    def __init__(
        self,
        trainer: Any,
        every: int = 50,
        *,
        max_overhead: float = 0.03,
        samples: Callable[[Any], int] = samples_of,
    ) -> None:
        self._trainer, self._every, self._max_overhead, self._samples = trainer, every, max_overhead, samples
        self._watch: NoiseScaleWatch | None = None
        self._training_step: Callable[..., Any] | None = None
        self._found: dict[str, float] = {}

    @property
    def monitor(self) -> NoiseScaleMonitor | None:
        """The monitor of the latest training."""
        return self._watch.monitor if self._watch else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Make the monitor, of the model that was wrapped for several processes."""
        self._give_back()
        self._watch = NoiseScaleWatch(
            self._trainer.model_wrapped,
            every=self._every,
            max_overhead=self._max_overhead,
            passes=args.gradient_accumulation_steps,
            scaler=self._trainer.accelerator.scaler,
        )
        self._training_step, self._trainer.training_step = self._trainer.training_step, self._observed_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Log."""
        if self._found:
            self._trainer.log(self._found)
            self._found = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Take hooks and wrapper away."""
        self._give_back()

    def _observed_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Make a pass, and read the gradients after the last one of an update."""
        assert self._watch
        assert self._training_step
        samples = self._samples(inputs)  # before the step, which may take labels out
        loss = self._training_step(model, inputs, num_items_in_batch)
        self._watch.saw(samples)
        if self._trainer.accelerator.sync_gradients:
            counted = self._trainer.model_accepts_loss_kwargs or self._trainer.compute_loss_func is not None
            by_items = counted and num_items_in_batch is not None
            self._found = self._watch.end_update(self._watch.shares() if by_items else None)
        return loss

    def _give_back(self) -> None:
        """Leave the trainer as it was."""
        if self._training_step and self._watch:
            self._trainer.training_step, self._training_step = self._training_step, None
            self._watch.close()


class GhostBatchNormCallback(TrainerCallback):  # type: ignore[misc]
    """Turns every batch norm into ghost batch norm when training begins.

    Optimizers and checkpoints go on, as parameters and their names stay. A ghost size above the samples of a pass on one
    device changes nothing.

    Args:
        ghost_size: samples in a ghost batch, >= 1.

    Raises:
        BadInput: the ghost size; or, where training begins, a model without batch norm, or with one of another class.

    Source:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1.
    """

    def __init__(self, ghost_size: int) -> None:
        self._ghost_size = checked_ghost_size(ghost_size)

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Convert."""
        convert_ghost_batch_norm(model, self._ghost_size)


class LrScalingCallback(TrainerCallback):  # type: ignore[misc]
    """Scales every learning rate by the batch of all devices and passes when training begins, and prints old and new.

    The scheduler is scaled with the optimizer, and the trainer logs what it makes. What was scaled is marked, so a training
    that is resumed is not scaled twice, and one that is resumed with another batch is scaled by the difference. In a warm-up
    of this callback, learning rates are lower while the optimizer steps only: what is logged is what they rise to. The
    trainer has a warm-up of its own (`warmup_steps`), which begins at zero; use one of the two.

    Args:
        rule: "linear" or "sqrt".
        reference_batch: samples of the batch that the learning rate was chosen for.
        batch: samples of an update, over all devices and passes; by default what the trainer's arguments make it:
            `train_batch_size` x `gradient_accumulation_steps` x `world_size`. Give it where processes share samples
            (tensor, context or sequence parallelism).
        warmup_updates: the first updates, in which learning rates rise to what they should be.
        warmup_start: share of them in the first; "reference": the learning rate of the reference batch.

    Attributes:
        change: what was done, or None before.

    Raises:
        BadInput: a value that cannot be used; or, where training begins, an unknown scheduler.

    Source:
        Goyal et al. 2017, arXiv:1706.02677; "sqrt": Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, eq. 7.
    """

    def __init__(
        self,
        rule: Literal["linear", "sqrt"] = "linear",
        *,
        reference_batch: int,
        batch: int | None = None,
        warmup_updates: int = 0,
        warmup_start: float | Literal["reference"] = "reference",
    ) -> None:
        self._scaling = LrScaling(rule, reference_batch, warmup_updates, warmup_start)
        self._batch = batch
        self.change: LrChange | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Scale, now that a checkpoint was read."""
        per_device = state.train_batch_size if args.auto_find_batch_size else args.train_batch_size
        batch = self._batch or per_device * args.gradient_accumulation_steps * args.world_size
        optimizer, scheduler = (unwrapped(kwargs[name]) for name in ("optimizer", "lr_scheduler"))
        self.change = self._scaling.apply([optimizer], [scheduler], batch)
        if state.is_world_process_zero:
            print(self.change)
