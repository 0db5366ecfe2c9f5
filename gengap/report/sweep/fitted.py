"""What was fitted, as lines of a picture: transitions, the cost of a target, proportions, powers of a budget, time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gengap.core.errors import BadInput
from gengap.report import numbers
from gengap.report.shapes import Guide, Role, Series
from gengap.report.sweep.fits import Fit, of_lines
from gengap.report.sweep.view import Line, Sweep, Way, interval, value
from gengap.theory.cost_points import CostPoint
from gengap.theory.critical_batch import CriticalBatch
from gengap.theory.least_squares import Coefficient
from gengap.theory.optimal_batch import Proportion
from gengap.theory.performance_model import Plan, plan_training
from gengap.theory.step_time import fit_step_time

POINTS = 60  # of a drawn curve
MOST_DEVICES = 1024
MOST_GUIDES = 2  # in one picture
FAR_APART = 4.0  # ratio of two positions whose words do not touch


def transitions(
    sweep: Sweep, lines: Sequence[Line], roles: Mapping[Way, Role], fit: str
) -> tuple[tuple[Guide, ...], str]:
    """Mark the batch where a line turns, its interval shaded.

    Args:
        sweep: the sweep.
        lines: of the picture.
        roles: their colours.
        fit: "regimes" or "lr_transition".

    Returns:
        The guides, and what the caption says of them.
    """
    guides: list[Guide] = []
    for line, group in of_lines(sweep, lines):
        found = group[fit]
        if value(found) is not None:
            apart = all(abs(math.log(found["value"] / other.x)) > math.log(FAR_APART) for other in guides)
            text = f"turns at {numbers.significant(found['value'])}" if apart else ""
            guides.append(Guide(found["value"], text, roles[line.way], interval(found)))
    guides = guides[:MOST_GUIDES]
    said = " Upright: where the line turns, shaded: its 95 % interval." if guides else ""
    return tuple(guides), said


@dataclass(frozen=True, slots=True)
class Cost:
    """Samples to a target against batch size, as fitted.

    Attributes:
        fit: the record, able to draw its curve again.
        b_crit: as in the document.
        e_min: samples that small batches need; None where there is no bound.
    """

    fit: CriticalBatch
    b_crit: Fit
    e_min: float | None

    def curves(self, what: str, sizes: Sequence[float], role: Role) -> list[Series]:
        """Draw the law with its band, and perfect scaling, in "samples" or "steps"."""
        x = np.geomspace(min(sizes), max(sizes), POINTS)
        per = x if what == "steps" else np.ones_like(x)
        low, high = self.fit.band(x)
        ends = zip((low / per).tolist(), (high / per).tolist(), strict=True)
        law = Series(
            f"law: {self.fit.law}",
            tuple(x.tolist()),
            points(self.fit.samples(x) / per),
            role,
            "solid",
            "left",
            tuple(ends),
        )
        if self.e_min is None:
            return [law]
        flat = Series("perfect scaling", tuple(x.tolist()), points(self.e_min / per), "ink", "dashed", strength=0.7)
        return [flat, law]


def points(y: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, ...]:
    """Give numbers as a series holds them."""
    return tuple(float(one) for one in y)


def cost_of(group: Fit | None) -> Cost | None:
    """Give what one group fitted of its target, or None."""
    found = group and group.get("critical_batch")
    if not group or not found or found["law"] is None:
        return None
    made = tuple(CostPoint(**{**point, "interval": ends(point["interval"])}) for point in found["points"])
    least = found["e_min"] and found["e_min"]["value"]
    fit = CriticalBatch(
        verdict=found["verdict"],
        reason=found["reason"],
        b_crit=None,
        e_min=None,
        s_min=None,
        law=found["law"],
        law_reason=found["law_reason"],
        laws=(),
        points=made,
        notes=tuple(found["notes"]),
    )
    return Cost(fit, group["b_crit"], least)


def ends(found: Sequence[float] | None) -> tuple[float, float] | None:
    """Give an interval that came back from JSON."""
    return None if found is None else (found[0], found[1])


def proportion_of(series: Fit | None) -> Proportion | None:
    """Give the fit of best batch sizes, able to predict, or None where there is none."""
    if not series or value(series) is None or series.get("centre") is None:
        return None
    slope = Coefficient(series["value"], series["stderr"], ends(series["interval"]), series["n"], series["method"])
    return Proportion(
        verdict=series["verdict"],
        reason=series["reason"],
        slope=slope,
        intercept=series["intercept"],
        constant=None,
        n=slope.n,
        bounds=0,
        centre=series["centre"],
        stderr=series["centre_stderr"],
    )


def proportion_lines(series: Fit | None, places: Sequence[float]) -> list[Series]:
    """Draw the fitted power with its band, and the line in proportion to x."""
    found = proportion_of(series)
    if found is None or series is None:
        return []
    x = np.geomspace(min(places), max(places), POINTS).tolist()
    middle, low, high = zip(*(found.predict(at) for at in x), strict=True)
    lines = [Series("fit", tuple(x), middle, "ink", "solid", intervals=tuple(zip(low, high, strict=True)))]
    constant = value(series.get("constant"))
    if constant is not None:
        straight = tuple(constant * at for at in x)
        lines.append(Series("in proportion", tuple(x), straight, "accuracy", "dashed", strength=0.7))
    return lines


def budget_lines(fit: Fit | None, places: Sequence[float]) -> list[Series]:
    """Draw the fitted powers of the budget."""
    if not fit:
        return []
    drawn: list[Series] = []
    roles: tuple[tuple[str, Role], ...] = (("train_loss", "loss"), ("metric", "accuracy"))
    for name, role in roles:
        found = fit[name]
        if value(found) is not None and found.get("factor"):
            x = np.geomspace(min(places), max(places), POINTS)
            y = found["factor"] * x ** found["value"]
            drawn.append(Series("fitted power", tuple(x.tolist()), points(y), role, "dashed", strength=0.7))
    return drawn


def plan_of(sweep: Sweep, line: Line, cost: Cost) -> tuple[Plan, str] | None:
    """Compute the time to the target for numbers of devices from the steps timed in the sweep; None where they do not tell."""
    timed = [
        (float(cell["batch_size"]), run["seconds"] / run["steps"])
        for cell in line.cells
        for run in sweep.runs[line.way, cell["batch_size"]]
        if run["outcome"] == "finished" and run["seconds"] and run["steps"]
    ]
    if not timed:
        return None
    largest = max(size for size, _ in timed)
    counts = [2**k for k in range(11) if 2**k <= min(MOST_DEVICES, largest)]
    try:
        step = fit_step_time(*zip(*timed, strict=True))
        plan = plan_training(cost.fit, step, devices=counts)
    except BadInput:
        return None
    return (plan, str(step)) if plan.fastest else None
