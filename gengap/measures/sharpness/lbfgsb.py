"""L-BFGS-B (Byrd et al. 1995) for millions of bounded variables: scipy's routine without the loops of its wrapper.

`scipy.optimize.minimize` turns bounds into a list of pairs and back and classifies each in Python: on a million and a half
variables that takes longer than the ten iterations that follow. The routine underneath takes arrays. Its interface is not
public, so it is used in the versions of scipy in which it is known, and the public function elsewhere; the points asked
for are the same in every bit.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import scipy
from scipy.optimize import Bounds, minimize

from gengap.measures.trees import Vector

Objective = Callable[[Vector], tuple[float, Vector]]  # value and gradient
PAIRS = 10  # curvature pairs, as in the published search; no more than iterations are ever used
LINE_SEARCH = 20  # evaluations before a line search is given up, scipy's default
BOTH_BOUNDS, EVALUATE, NEW_POINT = 2, 3, 1  # codes of the routine
KNOWN = ((1, 15), (1, 18))  # first version with this interface, first version not looked at


def lbfgsb(objective: Objective, start: Vector, lower: Vector, upper: Vector, *, iterations: int) -> int:
    """Minimise in a box, all tolerances open; what is found is what the objective was asked.

    Args:
        objective: value and gradient at x, shape (P,); x may be reused after it returns.
        start: shape (P,); clipped to the box.
        lower: shape (P,), finite.
        upper: shape (P,), finite.
        iterations: the most to make.

    Returns:
        Iterations made: fewer where a line search fails or the projected gradient is zero.
    """
    routine = known_routine()
    start = np.clip(start, lower, upper)
    if routine is None:
        return public(objective, start, lower, upper, iterations)
    return driven(routine, objective, start, lower, upper, iterations=iterations)


@cache
def known_routine() -> Callable[..., None] | None:
    """Find scipy's routine, or nothing where its interface may be another."""
    version = tuple(int(x) for x in scipy.__version__.split(".")[:2])
    if not KNOWN[0] <= version < KNOWN[1]:
        return None
    found: Callable[..., None] | None = getattr(import_module("scipy.optimize._lbfgsb"), "setulb", None)
    return found


def public(objective: Objective, start: Vector, lower: Vector, upper: Vector, iterations: int) -> int:
    """Minimise by the public function."""
    options: dict[str, Any] = {"maxiter": iterations, "maxcor": PAIRS, "maxls": LINE_SEARCH, "ftol": 0.0, "gtol": 0.0}
    done = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=Bounds(lower, upper), options=options)
    return int(done.nit)


def driven(
    routine: Callable[..., None], objective: Objective, start: Vector, lower: Vector, upper: Vector, *, iterations: int
) -> int:
    """Minimise by the routine, which hands control back whenever it wants an evaluation or has a new point."""
    size, pairs = len(start), min(PAIRS, iterations)
    x, value, gradient = start.copy(), 0.0, np.zeros(size)
    kinds = np.full(size, BOTH_BOUNDS, np.int32)
    work = np.zeros(2 * pairs * size + 5 * size + 11 * pairs**2 + 8 * pairs)
    marks, task, line_task = np.zeros(3 * size, np.int32), np.zeros(2, np.int32), np.zeros(2, np.int32)
    flags, counts, numbers = np.zeros(4, np.int32), np.zeros(44, np.int32), np.zeros(29)
    done, last = 0, np.full(size, np.nan)
    while done < iterations:
        routine(
            *(pairs, x, lower, upper, kinds, value, gradient, 0.0, 0.0, work, marks),
            *(task, flags, counts, numbers, LINE_SEARCH, line_task),
        )
        if task[0] == EVALUATE and not np.array_equal(x, last):  # a failed line search starts again where it was
            value, gradient[:] = objective(x)
            last[:] = x
        elif task[0] == NEW_POINT:
            done += 1
        elif task[0] != EVALUATE:
            break
    return done
