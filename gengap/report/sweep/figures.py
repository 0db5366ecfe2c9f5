"""Which pictures a sweep has: those whose data exist, the ones that prove the answer first."""

from gengap.report.shapes import Figure
from gengap.report.sweep import batches, budgets, heat, peaks, rates, targets
from gengap.report.sweep.view import Sweep

IN_FRONT = 3


def figures(sweep: Sweep) -> list[Figure]:
    """Draw every picture of a sweep.

    Args:
        sweep: the sweep.

    Returns:
        Test result and best learning rate against batch size and the grid first, then the others.
    """
    against, grids = batches.figures(sweep), heat.figures(sweep)
    found = [
        *against[:2],
        *grids[:1],
        *against[2:],
        *rates.figures(sweep),
        *peaks.figures(sweep),
        *budgets.figures(sweep),
    ]
    return [*found, *targets.figures(sweep), *grids[1:]]
