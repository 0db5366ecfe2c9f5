"""How far to go along a line: sufficient decrease (Armijo) and the strong Wolfe conditions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from gengap.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Trial:
    """A point of the line.

    Attributes:
        step: how far along the line.
        value: of the function there.
        slope: derivative along the line there.
    """

    step: float
    value: float
    slope: float


@dataclass(frozen=True, slots=True)
class Found:
    """Where a search ended.

    Attributes:
        trial: the point to take; its step is 0 where no lower point was seen.
        evaluations: values and slopes computed, the start not counted.
        satisfied: whether the conditions hold there.
    """

    trial: Trial
    evaluations: int
    satisfied: bool


Line = Callable[[float], Trial]


def armijo(line: Line, start: Trial, step: float, *, decrease: float = 1e-4, most: int = 30) -> Found:
    r"""Shorten a step until :math:`f(t) \le f(0) + c_1 t f'(0)`.

    Args:
        line: value and slope at a step; a value that is not finite counts as too high.
        start: the point at step 0, with a negative slope.
        step: the first to try, > 0.
        decrease: :math:`c_1`.
        most: evaluations allowed.

    Returns:
        The first point that satisfies the condition, or `start`.

    Raises:
        BadInput: the slope at the start is not negative, or the step is not positive.

    Source:
        Nocedal & Wright 2006, algorithm 3.1, with the next step where a parabola through what is known is lowest.
    """
    check_line(start, step)
    for n in range(1, most + 1):
        trial = line(step)
        if not too_high(trial, start, decrease):
            return Found(trial, n, satisfied=True)
        step *= min(0.5, max(0.1, lowest_of_parabola(start, trial) / step))
    return Found(start, most, satisfied=False)


def strong_wolfe(
    line: Line, start: Trial, step: float, *, decrease: float = 1e-4, curvature: float = 0.9, most: int = 30
) -> Found:
    r"""Find a step with :math:`f(t) \le f(0) + c_1 t f'(0)` and :math:`|f'(t)| \le c_2 |f'(0)|`.

    Args:
        line: value and slope at a step; a value that is not finite counts as too high.
        start: the point at step 0, with a negative slope.
        step: the first to try, > 0.
        decrease: :math:`c_1`.
        curvature: :math:`c_2`, between c_1 and 1; the smaller, the nearer to the lowest point of the line.
        most: evaluations allowed.

    Returns:
        The point that satisfies both, or the lowest point seen with sufficient decrease.

    Raises:
        BadInput: the slope at the start is not negative, the step is not positive, or c_1 and c_2 are out of order.

    Source:
        Nocedal & Wright 2006, algorithms 3.5 and 3.6.
    """
    check_line(start, step)
    if not 0 < decrease < curvature < 1:
        raise BadInput(f"decrease {decrease} and curvature {curvature} must be in order: 0 < decrease < curvature < 1")
    return Search(line, start, decrease, curvature, most).bracket(step)


@dataclass(slots=True)
class Search:
    """One search for a strong Wolfe point: `low` is always the lowest point with sufficient decrease."""

    line: Line
    start: Trial
    decrease: float
    curvature: float
    most: int
    evaluations: int = 0
    low: Trial = field(init=False)

    def __post_init__(self) -> None:
        self.low = self.start

    def bracket(self, step: float) -> Found:
        """Go on in growing steps until a good point lies between the last two."""
        while self.evaluations < self.most:
            trial = self._try(step)
            if self._is_above(trial):
                return self._zoom(trial)
            before, self.low = self.low, trial
            if self._is_flat(trial):
                return Found(trial, self.evaluations, satisfied=True)
            if trial.slope > 0:
                return self._zoom(before)
            step = 2 * trial.step
        return Found(self.low, self.evaluations, satisfied=False)

    def _zoom(self, high: Trial) -> Found:
        """Shrink the interval between `low` and `high`, which has a good point inside."""
        while self.evaluations < self.most and high.step != self.low.step:
            trial = self._try(between(self.low, high))
            if self._is_above(trial):
                high = trial
                continue
            if self._is_flat(trial):
                return Found(trial, self.evaluations, satisfied=True)
            if trial.slope * (high.step - self.low.step) >= 0:
                high = self.low
            self.low = trial
        return Found(self.low, self.evaluations, satisfied=False)

    def _try(self, step: float) -> Trial:
        self.evaluations += 1
        return self.line(step)

    def _is_above(self, trial: Trial) -> bool:
        """Tell whether a point fails to be lower than the lowest one."""
        return too_high(trial, self.start, self.decrease) or (
            self.low is not self.start and trial.value >= self.low.value
        )

    def _is_flat(self, trial: Trial) -> bool:
        return abs(trial.slope) <= self.curvature * abs(self.start.slope)


def check_line(start: Trial, step: float) -> None:
    """Refuse a line that does not go down, or does not go."""
    if not start.slope < 0:
        raise BadInput(f"the slope at the start of a line search is {start.slope}; choose a direction that goes down")
    if not (step > 0 and math.isfinite(step)):
        raise BadInput(f"the first step of a line search is {step}; give a finite number above 0")


def too_high(trial: Trial, start: Trial, decrease: float) -> bool:
    """Tell whether a point lacks sufficient decrease; what is not finite does."""
    return not trial.value <= start.value + decrease * trial.step * start.slope


def lowest_of_parabola(low: Trial, high: Trial) -> float:
    """Give the signed distance from `low` to the lowest point of the parabola with its value and slope and the other's value."""
    width = high.step - low.step
    bend = high.value - low.value - low.slope * width
    return -low.slope * width**2 / (2 * bend) if bend > 0 and math.isfinite(bend) else width / 2


def between(low: Trial, high: Trial) -> float:
    """Choose a point inside an interval: where the cubic through values and slopes is lowest, a tenth away from the ends."""
    width = high.step - low.step
    away = lowest_of_parabola(low, high)
    if all(map(math.isfinite, (high.value, high.slope))):
        # Nocedal & Wright, eq. 3.59
        mean = low.slope + high.slope - 3 * (high.value - low.value) / width
        square = mean**2 - low.slope * high.slope
        root = math.copysign(math.sqrt(max(square, 0.0)), width)
        below = high.slope - low.slope + 2 * root
        if square >= 0 and below:
            away = width - width * (high.slope + root - mean) / below
    return low.step + width * min(0.9, max(0.1, away / width))
