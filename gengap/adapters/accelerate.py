"""For loops with Hugging Face's Accelerate: noise scale, ghost batch norm, learning rates that follow the batch."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gengap.adapters.lr_scaling import LrChange, LrScaling, unwrapped
from gengap.adapters.noise_watch import NoiseScaleWatch, samples_of
from gengap.adapters.required import required
from gengap.measures.noise.monitor import NoiseScaleMonitor
from gengap.nets.norm_conversion import convert_ghost_batch_norm

required("accelerate")


def prepare_large_batch(
    accelerator: Any,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: Any = None,
    *,
    batch_size: int,
    scaling: LrScaling | None = None,
    ghost_size: int | None = None,
) -> LrChange | None:
    """Turn batch norm into ghost batch norm and scale learning rates by the batch of all processes and passes, in place.

    Call it once, before or after `accelerator.prepare`, and after `accelerator.load_state`: what was scaled is marked in
    checkpoints, so that a resumed run is not scaled twice. Old and new learning rates are printed by the main process.

    Args:
        accelerator: an `accelerate.Accelerator`.
        model: prepared or not.
        optimizer: prepared or not.
        scheduler: prepared or not, or None; one that is left out would set the old learning rates again.
        batch_size: of the dataloader: samples of a pass on one process (of all, with `split_batches`).
        scaling: the rule, or None to leave learning rates.
        ghost_size: samples in a ghost batch, or None to leave batch norm; above `batch_size` it changes nothing.

    Returns:
        What was done to the learning rates.

    Raises:
        BadInput: a size that cannot be used, no batch norm to convert, or a scheduler that is not of torch's kind.

    Source:
        Goyal et al. 2017, arXiv:1706.02677; Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1 and eq. 7.
    """
    if ghost_size is not None:
        convert_ghost_batch_norm(accelerator.unwrap_model(model), ghost_size)
    if scaling is None:
        return None
    processes = 1 if accelerator.split_batches else accelerator.num_processes
    change = scaling.apply(
        [unwrapped(optimizer)],
        [] if scheduler is None else [unwrapped(scheduler)],
        processes * accelerator.gradient_accumulation_steps * batch_size,
    )
    accelerator.print(change)
    return change


class NoiseScaleLogger:
    """Logs the gradient noise scale with `accelerator.log`.

    One line is added after the backward pass; it knows by `accelerator.sync_gradients` whether an update follows::

        noise = NoiseScaleLogger(accelerator, model)
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                accelerator.backward(loss(model(inputs), targets))
                noise.after_backward(inputs)
                optimizer.step()
                optimizer.zero_grad()

    Logged are, under `noise_scale/`, `simple` with `low` and `high`, `at_least`, `trace_covariance`,
    `squared_gradient_norm`, `observations`, `overhead`. The training stays bit for bit as it is.

    Args:
        accelerator: an `accelerate.Accelerator`.
        model: as `accelerator.prepare` returned it.
        every: updates from one logging to the next, >= 1.
        max_overhead: share of the time that observing may take, in (0, 1].
        samples: counts the samples of a batch; by default the length of its first tensor.

    Raises:
        BadInput: one pass in one process, or what the monitor refuses.

    Source:
        McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """

    def __init__(
        self,
        accelerator: Any,
        model: nn.Module,
        *,
        every: int = 50,
        max_overhead: float = 0.03,
        samples: Callable[[Any], int] = samples_of,
    ) -> None:
        self._accelerator, self._samples = accelerator, samples
        self._watch = NoiseScaleWatch(
            model,
            every=every,
            max_overhead=max_overhead,
            passes=accelerator.gradient_accumulation_steps,
            scaler=accelerator.scaler,
        )

    @property
    def monitor(self) -> NoiseScaleMonitor:
        """The monitor, with readings and their history."""
        return self._watch.monitor

    def after_backward(self, batch: Any) -> None:
        """Count a pass; after the last one of an update, read the gradients. Call it before clipping.

        Args:
            batch: what the pass was made with.
        """
        self._watch.saw(self._samples(batch))
        if self._accelerator.sync_gradients:
            found = self._watch.end_update(1 / self._accelerator.gradient_accumulation_steps)
            if found:
                self._accelerator.log(found, step=self._watch.updates)

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps; for `accelerator.register_for_checkpointing`."""
        return self._watch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was."""
        self._watch.restore(state)
