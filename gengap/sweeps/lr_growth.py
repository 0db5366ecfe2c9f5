"""Grids of learning rates that follow the optimum: where the best stands at the edge, the grid grows beyond it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gengap.fitting.cells import winner
from gengap.fitting.table import RunRecord
from gengap.studies.grid import snapped
from gengap.studies.sweep import Extension


class Growth(NamedTuple):
    """By how many values a grid has grown at its lower and at its upper end."""

    below: int = 0
    above: int = 0

    @property
    def total(self) -> int:
        """Values that were added."""
        return self.below + self.above

    def with_step(self, step: "Growth") -> "Growth":
        """Grow once more."""
        return Growth(self.below + step.below, self.above + step.above)


NOWHERE = Growth()


def grown(rates: Sequence[float], growth: Growth) -> list[float]:
    """Extend a grid by its own ratio.

    Args:
        rates: ascending and positive, at least two where it grows.
        growth: how many values more at either end.

    Returns:
        The larger grid, ascending; new values have 12 significant digits.
    """
    if not growth.total:
        return list(rates)
    down, up = rates[1] / rates[0], rates[-1] / rates[-2]
    lower = [snapped(rates[0] / down**i) for i in range(growth.below, 0, -1)]
    return [*lower, *rates, *(snapped(rates[-1] * up**i) for i in range(1, growth.above + 1))]


def wanted(records: Sequence[RunRecord], measure: str) -> Growth:
    """Say where a cell's grid should grow: where its best learning rate has no neighbour.

    Args:
        records: the cell's runs at every value of its grid.
        measure: what chooses: an accuracy (highest mean over seeds) or a loss (lowest). Where more than half of the seeds
            diverge a learning rate is not chosen.

    Returns:
        One value more at one end, or none.
    """
    found, rates = winner(records, measure), {record.lr for record in records}
    if len(rates) < 2:
        return NOWHERE
    if found.best_lr is None:  # where everything diverged smaller rates may not; what failed says nothing
        outcomes = {record.outcome for record in records}
        return Growth(below=1) if "diverged" in outcomes and "failed" not in outcomes else NOWHERE
    return Growth(below=int(found.lr_low is None), above=int(found.lr_high is None))


def next_growth(now: Mapping[str, Growth], steps: Mapping[str, Growth], rule: Extension) -> dict[str, Growth]:
    """Grow the grids of all cells by one round.

    Args:
        now: growth of each cell so far.
        steps: what each cell wants.
        rule: how far a grid may grow, and whether all grow with one.

    Returns:
        The growth after it; equal to `now` where the limit is reached or nothing is wanted.
    """
    if rule.all and now:
        below, above = (int(any(step[end] for step in steps.values())) for end in (0, 1))
        together = Growth(below, above)
        if next(iter(now.values())).total + together.total > rule.limit:  # room for one of the two ends
            together = Growth(below, 0) if not above else Growth(0, above)
        steps = dict.fromkeys(now, together)
    return {
        name: growth.with_step(steps[name]) if growth.total + steps[name].total <= rule.limit else growth
        for name, growth in now.items()
    }
