"""Losses on a rectangular grid of a plane."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gengap.core.errors import BadInput
from gengap.core.events import Listener
from gengap.core.records import Record
from gengap.measures.landscape.point_file import Row
from gengap.measures.landscape.survey import Survey, Values, accuracies_of, losses_of

POINTS = 15  # along each axis
MARGIN = 0.25  # of the extent, on every side

Surface = tuple[Values, ...]  # a row for each y


@dataclass(frozen=True, slots=True)
class Grid(Record):
    """Loss and accuracy on a grid.

    Attributes:
        x: positions along the first axis.
        y: positions along the second axis.
        losses: for each loss function `losses[k][j][i]`, the loss at (x[i], y[j]) in nats per sample; None where it is not
            finite.
        accuracies: the same in percent, or None for a loss function that counts none.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    losses: tuple[Surface, ...]
    accuracies: tuple[Surface | None, ...]

    def lowest(self, which: int = 0) -> tuple[float, float, float] | None:
        """Return x, y and loss of the lowest grid point of a loss function, or None where none is finite."""
        found = [
            (loss, x, y)
            for y, row in zip(self.y, self.losses[which], strict=True)
            for x, loss in zip(self.x, row, strict=True)
            if loss is not None
        ]
        return (lambda best: (best[1], best[2], best[0]))(min(found)) if found else None

    def __str__(self) -> str:
        lines = [f"{len(self.x)} x {len(self.y)} points"]
        for which, surface in enumerate(self.losses):
            values = [v for row in surface for v in row if v is not None]
            odd = len(self.x) * len(self.y) - len(values)
            found = self.lowest(which)
            seen = (
                "no finite loss"
                if found is None
                else f"loss {found[2]:.4g} at ({found[0]:.4g}, {found[1]:.4g}) to {max(values):.4g} nats"
            )
            lines.append(seen + (f", {odd} points not finite" if odd else ""))
        return "; ".join(lines)


def axis(low: float, high: float, points: int) -> tuple[float, ...]:
    """Divide an interval, widened by a margin on both sides, evenly.

    Args:
        low: smallest position of interest.
        high: largest.
        points: how many, >= 2.

    Returns:
        The positions.

    Raises:
        BadInput: there are too few points.
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise BadInput(f"points is {points!r}; give a whole number of at least 2, the grid points along each axis")
    margin = MARGIN * (high - low)
    return tuple(np.linspace(low - margin, high + margin, points).tolist())


def survey_grid(survey: Survey, x: Sequence[float], y: Sequence[float], what: str, listen: Listener) -> Grid:
    """Evaluate the losses of a survey on a grid, row by row."""
    rows = survey.visit([(i, j) for j in y for i in x], what, listen, axis="at")
    lines = [rows[start : start + len(x)] for start in range(0, len(rows), len(x))]
    return Grid(tuple(x), tuple(y), surfaces(lines), accuracy_surfaces(lines))


def surfaces(lines: Sequence[Sequence[Row]]) -> tuple[Surface, ...]:
    """List for each loss its values, a row for each line of the grid."""
    return tuple(zip(*(losses_of(line) for line in lines), strict=True))


def accuracy_surfaces(lines: Sequence[Sequence[Row]]) -> tuple[Surface | None, ...]:
    """List for each loss its accuracies, or None where none was counted anywhere."""
    found = []
    for surface in zip(*(accuracies_of(line) for line in lines), strict=True):
        width = len(lines[0])
        counted = tuple(line if line is not None else (None,) * width for line in surface)
        found.append(None if all(line is None for line in surface) else counted)
    return tuple(found)
