"""Callbacks for a Lightning `Trainer`: noise scale, ghost batch norm, learning rates that follow the batch."""

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from gengap.adapters.lr_scaling import LrChange, LrScaling
from gengap.adapters.noise_watch import NoiseScaleWatch, samples_of
from gengap.adapters.required import required
from gengap.core.errors import BadInput
from gengap.measures.noise.monitor import NoiseScaleMonitor
from gengap.nets.norm_conversion import convert_ghost_batch_norm, norms_of
from gengap.nets.norms import checked_ghost_size

Callback: Any = required("lightning.pytorch.callbacks").Callback


class NoiseScaleCallback(Callback):  # type: ignore[misc]
    """Logs the gradient noise scale of a training with gradient accumulation, or under DDP, or both.

    What is logged is under `noise_scale/`: `simple` with `low` and `high`, `at_least`, `trace_covariance`,
    `squared_gradient_norm`, `observations`, `overhead`. The training stays bit for bit as it is.

    Args:
        every: updates from one logging to the next, >= 1; the trainer's `log_every_n_steps` decides what a logger gets.
        max_overhead: share of the time that observing may take, in (0, 1].
        samples: counts the samples of a batch; by default the length of its first tensor.

    Raises:
        BadInput: where a fit starts: one pass in one process, several optimizers, or a precision with a gradient scaler
            (16-mixed), which Lightning unscales before callbacks see the gradient.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """

    def __init__(
        self, every: int = 50, *, max_overhead: float = 0.03, samples: Callable[[Any], int] = samples_of
    ) -> None:
        self._every, self._max_overhead, self._samples = every, max_overhead, samples
        self._watch: NoiseScaleWatch | None = None
        self._restored: dict[str, Any] = {}
        self._now = 0

    @property
    def monitor(self) -> NoiseScaleMonitor | None:
        """The monitor of the latest fit."""
        return self._watch.monitor if self._watch else None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the monitor, of the model that DDP wrapped."""
        if len(trainer.optimizers) != 1:
            raise BadInput(
                f"the module has {len(trainer.optimizers)} optimizers; the noise scale is that of a single one"
            )
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise BadInput(
                f"precision is {trainer.precision}, whose gradients are unscaled too early; use 'bf16-mixed'"
            )
        self._watch = NoiseScaleWatch(
            trainer.model,
            every=self._every,
            max_overhead=self._max_overhead,
            passes=trainer.accumulate_grad_batches if pl_module.automatic_optimization else None,
        )
        if self._restored:
            self._watch.restore(self._restored)
            self._restored = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Count samples."""
        self._now = self._samples(batch)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Count a pass."""
        if self._watch:
            self._watch.saw(self._now)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ARG002
        """Read the gradients, which are not clipped yet."""
        if self._watch:
            weights = 1 / trainer.accumulate_grad_batches if pl_module.automatic_optimization else None
            found = self._watch.end_update(weights)
            if found:
                pl_module.log_dict(found, on_step=True, on_epoch=False)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Take the hooks away."""
        if self._watch:
            self._watch.close()

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps of the monitor."""
        return self._watch.state_dict() if self._watch else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the monitor is made."""
        self._restored = state_dict


class GhostBatchNormCallback(Callback):  # type: ignore[misc]
    """Turns every batch norm into ghost batch norm before optimizers are made.

    Layers that the module makes in its own `setup` or `configure_model` are converted where the fit starts; parameters
    stay the same objects. A ghost size above the samples of a pass on one device changes nothing.

    Args:
        ghost_size: samples in a ghost batch, >= 1.

    Raises:
        BadInput: the ghost size; or, where the fit starts, no batch norm, or `sync_batchnorm=True`.

    Source:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1.
    """

    def __init__(self, ghost_size: int) -> None:
        self._ghost_size = checked_ghost_size(ghost_size)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Convert what is there."""
        if stage == "fit" and norms_of(pl_module):
            convert_ghost_batch_norm(pl_module, self._ghost_size)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Convert what came later."""
        if any(isinstance(norm, nn.SyncBatchNorm) for norm in norms_of(pl_module).values()):
            raise BadInput(
                "sync_batchnorm=True shares statistics that a ghost_size divides; leave out one of the two, or use "
                "gengap.nets.norm_conversion.convert_span_batch_norm"
            )
        convert_ghost_batch_norm(pl_module, self._ghost_size)


class LrScalingCallback(Callback):  # type: ignore[misc]
    """Scales every learning rate by the batch of all devices and passes when training starts, and prints old and new.

    Schedulers are scaled with the optimizers. What was scaled is marked, so a resumed fit is not scaled twice, and one that
    is resumed with another batch is scaled by the difference. In a warm-up, learning rates are lower while the optimizer
    steps only: what is logged of them is what they rise to.

    Args:
        rule: "linear" or "sqrt".
        reference_batch: samples of the batch that the learning rates were chosen for.
        batch_size: samples of a pass on one device, where the train dataloader does not say it.
        warmup_updates: the first updates, in which learning rates rise to what they should be.
        warmup_start: share of them in the first; "reference": the learning rate of the reference batch.

    Attributes:
        change: what was done, or None before.

    Raises:
        BadInput: a value that cannot be used; or, where training starts, an unknown batch size or scheduler.

    Source:
        Goyal et al. 2017, arXiv:1706.02677; "sqrt": Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, eq. 7.
    """

    def __init__(
        self,
        rule: Literal["linear", "sqrt"] = "linear",
        *,
        reference_batch: int,
        batch_size: int | None = None,
        warmup_updates: int = 0,
        warmup_start: float | Literal["reference"] = "reference",
    ) -> None:
        self._scaling = LrScaling(rule, reference_batch, warmup_updates, warmup_start)
        self._batch_size = batch_size
        self.change: LrChange | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Scale, now that a checkpoint was read."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        devices = (trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1)
        batch = devices * trainer.accumulate_grad_batches * (self._batch_size or of_loader(trainer.train_dataloader))
        self.change = self._scaling.apply(trainer.optimizers, schedulers, batch)
        if trainer.is_global_zero:
            print(self.change)


def of_loader(loader: Any) -> int:
    """Give the batch size of a dataloader.

    Args:
        loader: of torch, or a likeness.

    Returns:
        Samples of a pass on one device.

    Raises:
        BadInput: it does not say.
    """
    for place in (loader, getattr(loader, "batch_sampler", None)):
        if isinstance(size := getattr(place, "batch_size", None), int):
            return size
    raise BadInput(f"the {type(loader).__name__} does not say its batch size; give batch_size=")
