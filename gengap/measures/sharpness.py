"""Keskar's sharpness: how far the loss climbs in a box around a minimum."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import finite
from gengap.core.events import Listener, silent
from gengap.core.seeds import stream
from gengap.measures.box_search import Box, Found, Height, Surface, Trail, quasi_newton, sign_ascent, tie_broken
from gengap.measures.determinism import check_deterministic
from gengap.measures.protocols import Params, PlainFunction, as_loss_function, measured_on
from gengap.measures.trees import as_tree, dtype_name, flatten, is_finite, resolution

Search = Literal["robust", "paper"]


@dataclass(frozen=True, slots=True)
class Start:
    """What one of the searches found.

    Attributes:
        name: "point", "corner", "random corner" (L-BFGS-B from there) or "sign ascent".
        percent: the climb it found, 100 * (peak - base) / (1 + base); negative where it never met the base again, nan
            where it met no finite loss.
        iterations: iterations of the optimiser, or ascent steps.
        evaluations: loss-and-gradient evaluations it spent.
        share_at_bound: share of coordinates on a face of the box at its peak, 0 to 1.
    """

    name: str
    percent: float
    iterations: int
    evaluations: int
    share_at_bound: float


@dataclass(frozen=True, slots=True)
class Sharpness:
    """The sharpness of one point; `percent` is the number papers quote.

    Attributes:
        percent: 100 * (peak - base) / (1 + base), no unit, >= 0.
        base: loss at the point, nats per sample.
        peak: highest finite loss met in the box, nats per sample.
        radius: eps of the box, no unit.
        search: "robust" or "paper".
        starts: every search made, in order.
        evaluations: loss-and-gradient evaluations in all; the two plain evaluations of the check are not counted.
        share_at_bound: share of coordinates on a face of the box at the peak, 0 to 1.
        agreement: second best percent over the best, 0 to 1; None for a single search, and where nothing climbed.
        nonfinite: evaluations whose loss or gradient was not finite; where there are some, the true maximum is
            infinite or unknown.
        seconds: wall clock.
        dtype: of the weights, in which the loss was evaluated.
        batch_norm: which statistics batch norm used; they change the value by a factor up to 100.
        data: which split.
        samples: how many of them, or None where unknown.
        bound: always "lower": the search may have missed a higher point of the box.
    """

    percent: float
    base: float
    peak: float
    radius: float
    search: str
    starts: tuple[Start, ...]
    evaluations: int
    share_at_bound: float
    agreement: float | None
    nonfinite: int
    seconds: float
    dtype: str
    batch_norm: str
    data: str
    samples: int | None
    bound: str = "lower"

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form; what is not a finite number is null."""
        return {key: json_safe(value) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        if self.percent == 0:
            return (
                f"sharpness 0 found at radius {self.radius:g}: in {self.evaluations} evaluations ({self.search} search) the "
                f"loss never exceeded {self.base:.4g}, its value at the point; {self.dtype} may not resolve the climb"
            )
        agreement = "" if self.agreement is None else f", searches agree to {self.agreement:.2g}"
        odd = f", {self.nonfinite} of them not finite" if self.nonfinite else ""
        samples = "" if self.samples is None else f" ({self.samples} samples)"
        return (
            f"sharpness >= {self.percent:.4g} % at radius {self.radius:g}: "
            f"loss {self.base:.4g} climbs to {self.peak:.4g} nats; "
            f"{self.search} search, {self.evaluations} evaluations{odd}, "
            f"{100 * self.share_at_bound:.3g} % of weights at the bound{agreement}; "
            f"data {self.data}{samples}, batch norm {self.batch_norm}, {self.dtype}"
        )


def sharpness(
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    radius: float = 1e-3,
    search: Search = "robust",
    iterations: int = 10,
    seed: int = 0,
    check: bool = True,
    listen: Listener = silent,
) -> Sharpness:
    r"""Measure the relative climb of `loss` in a box that scales with the weights.

    .. math::
        \phi = 100\,\frac{\max_{|z_i| \le b_i} L(x + z) - L(x)}{1 + L(x)},
        \qquad b_i = \varepsilon\,(|x_i| + 1).

    The maximum is searched, so `percent` is a lower bound, and the best of everything evaluated counts.

    - "robust" divides the loss by its largest gradient entry at the point, and runs L-BFGS-B from the point and from
      the corner along the signs of the gradient, then sign ascent as a check. Entries whose gradient is zero get random
      signs; where no entry can be divided by, only the corner is left as a start. Usually about 32
      evaluations, up to 60 where a line search fails for want of digits.
    - "paper" runs L-BFGS-B from the point on the loss as it is, both tolerances open. Near a converged minimum it
      hardly moves: its value tells how far training had converged as much as how sharp the minimum is. Usually 11 to 23
      evaluations.

    Both searches run in float64; the loss is evaluated in the dtype of `params`. A loss whose gradient is zero in every
    bit all over the box gives 0: use float64 where float32 saturates. Memory: about 50 float64
    vectors of shape (P,); a search adds some 4 s on 1.5 million weights beside its evaluations.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor in nats per sample; deterministic, and
            differentiable once. A `LossFunction` is evaluated in chunks.
        params: the weights x, P floating numbers in all, by name or as one tensor; not modified.
        radius: half-width eps of the box relative to |x_i| + 1, no unit, > 0.
        search: "robust" or "paper".
        iterations: L-BFGS-B iterations from each start, and ascent steps, >= 1.
        seed: of the signs that break ties.
        check: evaluate twice first and refuse a loss that is not deterministic. Switch it off only for one that differs
            in its last bits; noise larger than that is reported as sharpness.
        listen: is told after every evaluation.

    Returns:
        The climb with its searches and its cost.

    Raises:
        BadInput: an argument is out of range, or the loss is not deterministic, or not finite or not above -1 at the
            point.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, Metric 2.1 with A = I. The paper says L-BFGS-B, 10 iterations; start,
        scaling and tolerances are not given there.
    """
    began = time.perf_counter()
    tree = as_tree(params)
    check_arguments(tree, radius, search, iterations)
    function = as_loss_function(loss, params)
    if check:
        check_deterministic(function, tree)
    centre = flatten(tree)
    box, surface = Box.around(centre, radius), Surface(function, tree, listen)
    first = surface.at(centre)
    check_base(first.value)
    if search == "paper":
        found = [quasi_newton(Trail(surface, box, "point"), box, centre, first, scale=1.0, iterations=iterations)]
    else:
        found = robust_search(surface, box, first, iterations, seed)
    return Sharpness(
        **summary(found, first.value),
        radius=radius,
        search=search,
        evaluations=surface.evaluations,
        nonfinite=surface.nonfinite,
        seconds=time.perf_counter() - began,
        dtype=dtype_name(tree),
        **measured_on(function),
    )


def check_arguments(tree: Params, radius: float, search: str, iterations: int) -> None:
    """Refuse what cannot be searched.

    Args:
        tree: the weights.
        radius: of the box.
        search: its name.
        iterations: of each search.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    if search not in get_args(Search):
        raise BadInput(f"search is {search!r}; choose one of {', '.join(get_args(Search))}")
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise BadInput(f"iterations is {iterations!r}; give a whole number of at least 1")
    if not (math.isfinite(radius) and radius > 0):
        raise BadInput(f"radius is {radius!r}; give a positive number, for example 1e-3")
    if not is_finite(tree):
        raise BadInput("params holds a weight that is not finite; measure a run that did not diverge")
    if radius < 4 * resolution(tree):
        raise BadInput(
            f"radius is {radius!r}, which {dtype_name(tree)} cannot resolve (its relative spacing is "
            f"{resolution(tree):.2g}); convert params to a finer dtype or give a larger radius"
        )


def check_base(base: float) -> None:
    """Refuse a point whose loss cannot be compared with.

    Args:
        base: the loss there, nats per sample.

    Raises:
        BadInput: it is not finite, or 1 + base is not positive.
    """
    if not math.isfinite(base):
        raise BadInput(f"the loss is {base!r} at params; sharpness needs a point where it is finite")
    if base <= -1:
        raise BadInput(f"the loss is {base!r} at params; sharpness is relative to 1 + loss, which must be positive")


def robust_search(surface: Surface, box: Box, first: Height, iterations: int, seed: int) -> list[Found]:
    """Search from the point and from a corner, with the loss scaled by its gradient; then check by sign ascent."""
    rng = np.random.default_rng(stream(seed, "sharpness"))
    signs = tie_broken(first.gradient, rng)
    known = bool(np.any(signs == np.sign(first.gradient)))
    start, corner = box.corner(signs), Trail(surface, box, "corner" if known else "random corner")
    there = corner.visit(start)
    found = []
    if first.scale:
        point = Trail(surface, box, "point")
        found.append(quasi_newton(point, box, box.centre, first, scale=first.scale, iterations=iterations))
    scale = first.scale or there.scale
    if scale:
        found.append(quasi_newton(corner, box, start, there, scale=scale, iterations=iterations))
    else:
        found.append(corner.found(0))
    found.append(sign_ascent(Trail(surface, box, "sign ascent"), box, first, rng, iterations))
    return found


def summary(found: list[Found], base: float) -> dict[str, Any]:
    """Turn the peaks of the searches into percentages, the best of them, and how well they agree."""

    def percent(peak: float) -> float:
        return 100 * (peak - base) / (1 + base)

    finite_first = sorted(found, key=lambda f: -math.inf if math.isnan(f.peak) else f.peak, reverse=True)
    best, climb = finite_first[0], finite_first[0].peak - base  # one search always includes the point: climb >= 0
    agreement = None
    if len(found) > 1 and climb > 0:
        second = finite_first[1].peak
        agreement = 0.0 if math.isnan(second) else max(0.0, second - base) / climb
    return {
        "percent": percent(best.peak),
        "base": base,
        "peak": best.peak,
        "starts": tuple(Start(f.name, percent(f.peak), f.iterations, f.evaluations, f.share_at_bound) for f in found),
        "share_at_bound": best.share_at_bound if climb > 0 else 0.0,
        "agreement": agreement,
    }


def json_safe(value: Any) -> Any:
    """Replace numbers that JSON has no word for by None, and tuples by lists."""
    if isinstance(value, dict):
        return {key: json_safe(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [json_safe(part) for part in value]
    return finite(value) if isinstance(value, float) else value
