"""The same function at other weights: which measures of a minimum are about the function, and which about the weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate
from gengap.core.events import Listener, Progress, silent
from gengap.core.records import Record
from gengap.measures.curvature.eigenvalues import top_eigenvalues
from gengap.measures.curvature.trace import trace
from gengap.measures.distance import distance
from gengap.measures.noise.noise_scale import noise_scale
from gengap.measures.protocols import Chunked, LossFunction, Params, Rebuffered, sample_pieces
from gengap.measures.rescalings import Rescaling, find_rescalings
from gengap.measures.sharpness.average_sharpness import average_sharpness
from gengap.measures.sharpness.ball_sharpness import ball_sharpness
from gengap.measures.sharpness.box_sharpness import sharpness
from gengap.measures.trees import as_tree
from gengap.problem.problem import Problem

Measure = Callable[[Any, Params], Any]
Verdict = Literal["invariant", "moves", "not resolvable", "no number"]

SAME = {"pair": 1e-4, "normalised": 1e-2}  # share of the largest output that counts as rounding, and as the work of eps
ROUNDING = 1e-3  # share of a value that a network in float32 may move it by
VAGUE = 0.1  # share of a value that its error may be for the value to be called invariant


@dataclass(frozen=True, slots=True)
class Compared(Record):
    """One measure before and after.

    Attributes:
        name: of the measure.
        before: its value at the weights.
        after: at the rescaled weights.
        ratio: after / before; None where before is 0.
        bound: change that its own error and rounding explain.
        verdict: "invariant" (the change is within the bound, or within rounding), "moves", "not resolvable" (within a bound of
            more than a tenth of the value) or "no number" (one of the two is not finite).
    """

    name: str
    before: float
    after: float
    ratio: float | None
    bound: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class RescalingCheck(Record):
    """Measures before and after a change of the weights that the function does not see.

    Attributes:
        rows: one for each measure.
        rescaling: what was multiplied and divided.
        alpha: by what.
        output_change: largest change of an output over the samples: 0 is the same function bit for bit.
        output_scale: largest output.
        others: rescalings of the network that were not used.
    """

    rows: tuple[Compared, ...]
    rescaling: Rescaling
    alpha: float
    output_change: float
    output_scale: float
    others: tuple[Rescaling, ...]

    def __getitem__(self, name: str) -> Compared:
        """Give the row of a measure."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        same = (
            "bit for bit"
            if self.output_change == 0
            else f"to {self.output_change / self.output_scale:.1g} of its scale"
        )
        lines = [f"{self.rescaling} (alpha = {self.alpha:g}); the function is the same {same}"]
        lines.append(f"{'':{width}}  {'before':>10}  {'after':>10}  {'ratio':>8}")
        for row in self.rows:
            ratio = "" if row.ratio is None else f"{row.ratio:.4g}"
            lines.append(f"{row.name:{width}}  {row.before:>10.4g}  {row.after:>10.4g}  {ratio:>8}  {row.verdict}")
        return "\n".join(lines)


def rescaling_check(
    model: Problem | nn.Module,
    params: Params,
    *,
    loss: LossFunction | None = None,
    buffers: Params | None = None,
    measures: Mapping[str, Measure] | None = None,
    rescaling: Rescaling | None = None,
    alpha: float = 4.0,
    listen: Listener = silent,
) -> RescalingCheck:
    r"""Measure before and after a rescaling of layers that leaves the function of the network as it is.

    For a positively homogeneous activation and alpha > 0 the weights :math:`(\alpha W_1, \alpha b_1, W_2 / \alpha)` make the
    function that :math:`(W_1, b_1, W_2)` make, at another place of weight space, where the loss may be as sharp as one
    likes. A measure that moves says something about the weights that the function alone does not decide. That the
    function is unchanged is verified on all samples of the loss.

    Costs every measure twice.

    Args:
        model: a problem, whose training loss is then used, or a module with its `loss`.
        params: the trained weights by name; not modified.
        loss: made of samples, for example `problem.loss_function(...)`; its buffers are changed and put back.
        buffers: of the trained network, for a problem without `loss`.
        measures: functions of (loss, params) by name, each returning a number, an `Estimate`, or (value, error) with an error
            that covers 95 %; None: `usual_measures()`.
        rescaling: one of `find_rescalings(model)`; None: the first of them.
        alpha: factor, > 0 and not 1. A power of two rounds nothing, so that a plain ReLU network keeps every bit.
        listen: is told before every measurement.

    Returns:
        The two values of each measure with their ratio and a verdict.

    Raises:
        BadInput: the network has no such pair of layers, an argument cannot be used, a measure returns no number, or the
            function did change.

    Source:
        Dinh, Pascanu, Bengio & Bengio 2017, arXiv:1703.04933, section 3.
    """
    if not (math.isfinite(alpha) and alpha > 0 and alpha != 1):
        raise BadInput(f"alpha is {alpha!r}; give a positive factor other than 1, for example 4")
    tree = as_tree(params)
    function = loss_of(model, loss, buffers)
    found = find_rescalings(model.model(0) if isinstance(model, Problem) else model)
    chosen = chosen_of(found, rescaling, tree)
    moved = chosen.applied(tree, alpha)
    checks = dict(usual_measures() if measures is None else measures)
    if not checks:
        raise BadInput("measures is empty; give at least one function of (loss, params)")
    outputs = outputs_at(function, tree)
    before = [reading(name, measure(function, tree)) for name, measure in progress(checks, listen, "before")]
    with rebuffered(function, chosen, alpha):
        change, scale = compare(outputs, outputs_at(function, moved), chosen)
        after = [reading(name, measure(function, moved)) for name, measure in progress(checks, listen, "after")]
    rows = tuple(judged(name, a, b) for name, a, b in zip(checks, before, after, strict=True))
    return RescalingCheck(rows, chosen, alpha, change, scale, tuple(one for one in found if one != chosen))


def usual_measures(initial_params: Params | None = None) -> dict[str, Measure]:
    """Give the measures that `rescaling_check` makes by itself, with small settings: they are to be compared, not quoted.

    Args:
        initial_params: the weights at the start, for the distance from them; None: no distance.

    Returns:
        Functions of (loss, params) by name.
    """
    found: dict[str, Measure] = {
        "loss": lambda loss, params: loss.value(params),
        "accuracy": lambda loss, params: loss.score(params).accuracy,
        "norm of the weights": lambda _, params: distance(params, params).norm,
        "sharpness in the box": in_the_box,
        "sharpness in a ball": lambda loss, params: in_a_ball(loss, params, 0.05, adaptive=False),
        "adaptive sharpness": lambda loss, params: in_a_ball(loss, params, 0.5, adaptive=True),
        "average sharpness": lambda loss, params: average_sharpness(loss, params).rise,
        "adaptive average sharpness": lambda loss, params: (
            average_sharpness(loss, params, sigma=0.05, unit="element").rise
        ),
        "top eigenvalue": top,
        "trace": lambda loss, params: trace(loss, params),
        "noise scale": lambda loss, params: noise_scale(loss, params).simple,
    }
    if initial_params is not None:
        found["distance from the start"] = lambda _, params: distance(params, initial_params).from_init
    return found


def in_the_box(loss: LossFunction, params: Params) -> tuple[float, float]:
    """Return Keskar's sharpness in percent, and by how much two searches differ."""
    found = sharpness(loss, params)
    return found.percent, found.percent * (1 - (1.0 if found.agreement is None else found.agreement))


def in_a_ball(loss: LossFunction, params: Params, radius: float, *, adaptive: bool) -> tuple[float, float]:
    """Return the highest rise in a ball, and by how much two searches differ."""
    found = ball_sharpness(loss, params, radius=radius, adaptive=adaptive)
    return found.rise, found.rise * (1 - (1.0 if found.agreement is None else found.agreement))


def top(loss: LossFunction, params: Params) -> tuple[float, float]:
    """Return the largest eigenvalue of the Hessian with its error."""
    found = top_eigenvalues(loss, params, k=1)
    return found.values[0], found.errors[0]


def loss_of(model: Problem | nn.Module, loss: LossFunction | None, buffers: Params | None) -> LossFunction:
    """Take the loss, or make it.

    Args:
        model: a problem or a module.
        loss: given by the user.
        buffers: for a problem.

    Returns:
        A loss that knows its samples.

    Raises:
        BadInput: a module came without its loss, or the loss is a plain function.
    """
    if not isinstance(model, Problem | nn.Module):
        raise BadInput(f"model is a {type(model).__name__}; give a gengap.Problem, or a module and its loss")
    if loss is None:
        if not isinstance(model, Problem):
            raise BadInput(
                "loss is missing; a module does not know its data, so give gengap.loss_function(...) beside it"
            )
        return model.loss_function("train", buffers=buffers)
    if not (isinstance(loss, Chunked) and isinstance(loss, LossFunction)):
        raise BadInput("loss is a plain function; a rescaling is verified on samples, so give problem.loss_function()")
    return loss


def chosen_of(found: tuple[Rescaling, ...], rescaling: Rescaling | None, tree: Params) -> Rescaling:
    """Choose a rescaling, and check that it is one of these weights.

    Args:
        found: all of the network.
        rescaling: the user's choice.
        tree: the weights.

    Returns:
        The rescaling.

    Raises:
        BadInput: there is none, or `params` has no such weights.
    """
    if rescaling is None and not found:
        raise BadInput(
            "the network cannot be rescaled: it has no two linear or convolutional layers with only positively homogeneous "
            "layers (ReLU, pooling, dropout) between them, and none in front of a normalisation"
        )
    chosen = rescaling or found[0]
    if f"{chosen.first}.weight" not in tree:
        raise BadInput(
            f"params lacks {chosen.first}.weight, which is to be rescaled; give the weights of this network by name"
        )
    return chosen


@contextmanager
def rebuffered(loss: LossFunction, rescaling: Rescaling, alpha: float) -> Iterator[None]:
    """Rescale the running statistics that a loss carries, and put them back when the block ends."""
    before = {name: b.clone() for name, b in getattr(loss, "buffers", {}).items()}
    if not (before and isinstance(loss, Rebuffered)):
        yield
        return
    try:
        loss.with_buffers(rescaling.applied(before, alpha))
        yield
    finally:
        loss.with_buffers(before)


def outputs_at(loss: LossFunction, params: Params) -> list[Tensor]:
    """Return the outputs of the network for all samples."""
    with torch.no_grad():
        return [piece.outputs(params).double() for piece in sample_pieces(loss, params, "the rescaling check")]


def compare(before: list[Tensor], after: list[Tensor], rescaling: Rescaling) -> tuple[float, float]:
    """Compare the outputs.

    Args:
        before: of the network as it was.
        after: of the rescaled network.
        rescaling: what was done.

    Returns:
        The largest change, and the largest output.

    Raises:
        BadInput: the function is another one.
    """
    change = max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
    scale = max(float(a.abs().max()) for a in before)
    if not change <= SAME[rescaling.kind] * scale:
        raise BadInput(
            f"the rescaling ({rescaling}) changed an output by {change:.3g}, with outputs up to {scale:.3g}: the weights are "
            f"used in another way too, or the factor overflows; choose another rescaling or an alpha nearer to 1"
        )
    return change, scale


def progress(measures: Mapping[str, Measure], listen: Listener, when: str) -> Iterator[tuple[str, Measure]]:
    """Go through the measures, telling of each."""
    for i, (name, measure) in enumerate(measures.items()):
        listen(Progress(f"rescaling check, {when}", i, len(measures), "measures", name))
        yield name, measure


def reading(name: str, result: Any) -> tuple[float, float]:
    """Take a value and its error from what a measure returned.

    Args:
        name: of the measure.
        result: a number, (value, error), or a record with `value` and an `interval` or `stderr`; None: no number.

    Returns:
        The value, and an error that covers 95 %.

    Raises:
        BadInput: it is none of these.
    """
    if result is None:
        return math.nan, 0.0
    if isinstance(result, tuple) and len(result) == 2:
        return float(result[0]), abs(float(result[1]))
    if isinstance(result, Estimate) or hasattr(result, "value"):
        interval = getattr(result, "interval", None)
        error = (interval[1] - interval[0]) / 2 if interval else 2 * (getattr(result, "stderr", None) or 0.0)
        return float(result.value), error
    if isinstance(result, int | float) or (isinstance(result, Tensor) and result.numel() == 1):
        return float(result), 0.0
    raise BadInput(
        f"the measure {name!r} returned a {type(result).__name__}; return a number, an Estimate or (value, error)"
    )


def judged(name: str, before: tuple[float, float], after: tuple[float, float]) -> Compared:
    """Compare the two values of a measure with their errors."""
    (a, error_a), (b, error_b) = before, after
    size, change = max(abs(a), abs(b)), abs(b - a)
    bound = math.hypot(error_a, error_b) + ROUNDING * size
    verdict: Verdict
    if not (math.isfinite(a) and math.isfinite(b)):
        verdict = "no number"
    elif change > bound:
        verdict = "moves"
    else:  # with errors larger than that, values agree to rounding only where the same draws meet the same function
        verdict = "invariant" if change <= ROUNDING * size or bound <= VAGUE * size else "not resolvable"
    return Compared(name, a, b, b / a if a else None, bound, verdict)
