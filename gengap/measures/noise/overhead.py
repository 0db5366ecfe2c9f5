"""What measuring costs in a loop, and how often it may be done for a given share of the time."""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALIBRATIONS = 3  # observed steps at the start that are timed with the device idle before and after
RECALIBRATE = 50  # observed steps between later ones


class Overhead:
    """Seconds of one's own among the seconds of whole steps.

    On a CPU everything is timed as it happens. An accelerator works on after a call has returned; there some observed
    steps, the calibrations, wait for it before and after each section of one's own, which counts at least what the
    section costs, and the other observed steps are taken to cost as much.

    Args:
        limit: the share of the time that may be one's own, in (0, 1]; 1 is no limit.
        clock: returns seconds.
        synchronise: waits for the device, or None where calls return when their work is done.

    Attributes:
        observed: observed steps so far.
        observing: whether the present step is observed.
        own_seconds: spent on observing, and on deciding when to.
        all_seconds: of all steps, from the end of the first to the end of the latest.
    """

    def __init__(
        self,
        limit: float,
        clock: Callable[[], float] = time.perf_counter,
        synchronise: Callable[[], None] | None = None,
    ) -> None:
        self.limit, self._clock, self._synchronise = limit, clock, synchronise
        self.observed, self.observing = 0, False
        self.own_seconds = self.all_seconds = 0.0
        self._now_own = 0.0  # in the present step
        self._inside = False
        self._last: float | None = None
        self._costs: deque[float] = deque(maxlen=16)  # of observed steps
        self._steps: deque[float] = deque(maxlen=64)  # of whole steps, less one's own

    @property
    def calibrating(self) -> bool:
        """Whether the present step is observed and fully timed."""
        chosen = self.observed < CALIBRATIONS or self.observed % RECALIBRATE == 0
        return self.observing and (self._synchronise is None or chosen)

    @property
    def share(self) -> float:
        """One's own seconds over those of all steps; 0 before the second step."""
        return self.own_seconds / self.all_seconds if self.all_seconds else 0.0

    @contextmanager
    def own(self) -> Iterator[None]:
        """Count what happens inside as one's own, once where it is nested.

        Yields:
            Nothing.
        """
        if self._inside:
            yield
            return
        wait = self._synchronise if self.calibrating else None
        if wait:
            wait()
        began, self._inside = self._clock(), True
        try:
            yield
        finally:
            if wait:
                wait()
            self._now_own, self._inside = self._now_own + self._clock() - began, False

    def end_step(self) -> None:
        """Close the books on a step."""
        now, own, timed = self._clock(), self._now_own, self.calibrating
        if self.observing and not timed and self._costs:
            own = max(own, statistics.median(self._costs))
        if self._last is not None:  # how long the first step took is not known
            self.own_seconds += own
            self.all_seconds += now - self._last
            self._steps.append(max(now - self._last - own, 0.0))
        if timed:
            self._costs.append(own)
        self.observed += self.observing
        self._last, self._now_own = now, 0.0

    def period(self) -> int:
        """Choose how many steps there should be from one observed step to the next.

        A period of e steps of s seconds with one observation of c seconds spends the share c / (e s + c). It is longer
        where the share of all steps so far would else be above the limit after the next observation.

        Returns:
            At least 1, which is every step.
        """
        if self.limit >= 1 or not self._costs:
            return 1
        cost, step = statistics.median(self._costs), statistics.median(self._steps) if self._steps else 0.0
        debt = (self.own_seconds + cost) / self.limit - self.all_seconds
        seconds = max(cost / self.limit, debt) - cost
        return max(1, math.ceil(seconds / max(step, cost / 100, 1e-9)))  # a clock may be too coarse to see a step

    def pause(self) -> None:
        """Leave out what happens until the end of the next step."""
        self._last, self._now_own = None, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs: plain numbers and lists."""
        return {
            "observed": self.observed,
            "own_seconds": self.own_seconds,
            "all_seconds": self.all_seconds,
            "costs": list(self._costs),
            "steps": list(self._steps),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was; the time in between is left out."""
        self.observed = state["observed"]
        self.own_seconds, self.all_seconds = state["own_seconds"], state["all_seconds"]
        self._costs = deque(state["costs"], maxlen=16)
        self._steps = deque(state["steps"], maxlen=64)
        self.pause()
