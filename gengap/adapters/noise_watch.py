"""A noise-scale monitor for trainers that tell of every backward pass, and of the update after it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gengap.core.errors import BadInput
from gengap.measures.noise.monitor import NoiseScaleMonitor
from gengap.measures.noise.reading import NoiseScaleReading


class NoiseScaleWatch:
    """Gathers the passes of an update for a `NoiseScaleMonitor`, and gives numbers to log every so many updates.

    An update of a single pass in a single process, as the end of an epoch may leave, says nothing of the noise and is left
    out.

    Args:
        model: as for the monitor: under `DistributedDataParallel`, the wrapped one.
        every: updates from one logging to the next, >= 1.
        max_overhead: as for the monitor.
        passes: backward passes of an update, where the trainer knows it.
        scaler: a `torch.amp.GradScaler` or None.

    Attributes:
        monitor: a `NoiseScaleMonitor`.

    Raises:
        BadInput: every is below 1; one pass in one process; or what the monitor refuses.
    """

    def __init__(
        self, model: nn.Module, *, every: int, max_overhead: float, passes: int | None = None, scaler: Any = None
    ) -> None:
        if every < 1:
            raise BadInput(f"every is {every}; give the updates from one logging to the next, >= 1")
        self._ranks = model.process_group.size() if isinstance(model, DistributedDataParallel) else 1
        if passes == 1 == self._ranks:
            raise BadInput(
                "one backward pass in one process has gradients of one batch size only, which say nothing of the noise; "
                "accumulate at least 2 passes for an update, or train with several processes"
            )
        self._every, self._sizes = every, list[int]()
        self._closed: dict[str, Any] = {}
        self.monitor = NoiseScaleMonitor(model, max_overhead=max_overhead, scaler=scaler)

    def close(self) -> None:
        """Take the hooks away; what `state_dict` gives stays as it was, so that a later run can go on from it."""
        self._closed = self.state_dict()
        self.monitor.close()

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs."""
        return self._closed or self.monitor.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was."""
        self.monitor.load_state_dict(state)

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self.monitor.steps

    def saw(self, samples: int) -> None:
        """Count a backward pass of so many samples."""
        self._sizes.append(samples)

    def end_update(self, weights: float | Sequence[float] | None = None) -> dict[str, float]:
        """Read the gradients of an update; call it before they are clipped or unscaled.

        Args:
            weights: as for `NoiseScaleMonitor.step`; `shares()` where samples of uneven passes weigh the same.

        Returns:
            Numbers to log, if it is time to.
        """
        sizes, self._sizes = self._sizes, []
        if len(sizes) * self._ranks < 2:
            self.monitor.skip()
        else:
            self.monitor.step(sizes, weights=weights)
        return scalars(self.monitor.reading()) if self.updates % self._every == 0 else {}

    def shares(self) -> list[float]:
        """Give the samples of each pass since the last update over those of all."""
        return [size / sum(self._sizes) for size in self._sizes]


def scalars(reading: NoiseScaleReading) -> dict[str, float]:
    """Give the numbers of a reading that there are, by names for a log.

    Args:
        reading: of a monitor.

    Returns:
        Samples under `noise_scale` with the ends of its interval; `noise_scale/at_least` where there is no high end.
    """
    found: dict[str, float] = {
        "noise_scale/observations": reading.observations,
        "noise_scale/overhead": reading.overhead,
    }
    if reading.at_least is not None:
        found["noise_scale/at_least"] = reading.at_least
    if reading.simple and reading.simple.interval:
        low, high = reading.simple.interval
        found |= {"noise_scale/simple": reading.simple.value, "noise_scale/low": low, "noise_scale/high": high}
    for name in ("trace_covariance", "squared_gradient_norm"):
        if (estimate := getattr(reading, name)) is not None:
            found[f"noise_scale/{name}"] = estimate.value
    return found


def samples_of(batch: Any) -> int:
    """Give the samples of a batch: the length of the first tensor in it.

    Args:
        batch: a tensor, or collections of them in any depth.

    Returns:
        B.

    Raises:
        BadInput: there is no tensor in it.
    """
    if (found := length(batch)) is None:
        raise BadInput(
            f"a batch is a {type(batch).__name__} in which no tensor is found; give samples=, a function that counts"
        )
    return found


def length(batch: Any) -> int | None:
    """Look for the first tensor with an axis of samples."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else None
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((found for part in parts if (found := length(part)) is not None), None)
