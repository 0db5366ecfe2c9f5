"""The loss along a path between two minima."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, get_args

from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.landscape.loss_table import column_names, loss_table
from gengap.measures.landscape.path_summary import PathSummary, summarised
from gengap.measures.landscape.positions import Curve
from gengap.measures.landscape.survey import (
    Losses,
    Manner,
    Values,
    accuracies_of,
    check_positions,
    losses_of,
    surveying,
)
from gengap.measures.protocols import Params
from gengap.measures.session import DEFAULT_LIMIT, Names, divided
from gengap.measures.trees import as_tree

ALPHAS = tuple(-1 + i / 8 for i in range(25))  # 25 points in [-1, 2], as in the published plots
EXACT = "exact on the given data"
CurveName = Literal["linear", "sine"]


@dataclass(frozen=True, slots=True)
class Path(Record):
    r"""Loss and accuracy along a path between two sets of weights.

    Attributes:
        alphas: positions; 0 is a and 1 is b.
        losses: for each loss function the loss at each alpha, nats per sample; None where it is not finite.
        accuracies: for each loss function the accuracy at each alpha in percent, or None where it counts none.
        descriptions: for each loss function what it was measured on (data, samples, batch_norm).
        curve: "linear", :math:`(1 - \alpha)\,a + \alpha\,b`, or "sine",
            :math:`\cos(\alpha\pi/2)\,a + \sin(\alpha\pi/2)\,b`.
        forward_samples: samples that went through the network, without what recomputed statistics need; None where a
            loss function does not say how many it has. Points from a file count as if they were made now.
        seconds: wall clock.
        dtype: of the weights.
        bound: what the numbers are: exact values, no estimates.
        summaries: for each loss function the barrier and the surroundings of the ends.
        resumed: points that came from a file.
        memory_limit: bytes the measure was allowed.
        peak_memory: bytes it was seen to take; None where the system does not tell.
    """

    alphas: tuple[float, ...]
    losses: tuple[Values, ...]
    accuracies: tuple[Values | None, ...]
    descriptions: tuple[dict[str, Any], ...]
    curve: str
    forward_samples: int | None
    seconds: float
    dtype: str
    bound: str = EXACT
    summaries: tuple[PathSummary, ...] = ()
    resumed: int = 0
    memory_limit: int | None = None
    peak_memory: int | None = None

    def __str__(self) -> str:
        names = column_names(self.descriptions)
        rows = loss_table("alpha", names, self.alphas, self.losses)
        below = [f"{name}: {summary}" for name, summary in zip(names, self.summaries, strict=False)]
        return "\n".join([f"loss in nats along the {self.curve} path", *rows, *below])


def interpolate(  # noqa: PLR0913 - options, by keyword only
    losses: Losses,
    *,
    a: Params | Tensor,
    b: Params | Tensor,
    alphas: Sequence[float] | None = None,
    curve: CurveName = "linear",
    a_buffers: Params | None = None,
    b_buffers: Params | None = None,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    resume: str | PathLike[str] | None = None,
    listen: Listener = silent,
) -> Path:
    r"""Evaluate losses along :math:`(1 - \alpha)\,a + \alpha\,b`, or along the sine curve through the same ends.

    At alpha 0 and 1 the weights are those of a and b, bit for bit. One set of tensors is filled in place at every
    point; a loss must not keep it. Costs one forward pass of each loss at each alpha, less where the network begins with
    a linear layer: its outputs are linear in alpha too, so that they are blended instead of multiplied anew, as far as the
    memory limit has room for them. Differences from the plain way are rounding (about 1e-7 in float32).

    Batch norm in the modes "batch" and "recompute" has no state to interpolate. In mode "running" the buffers of the
    loss are used as they are, unless `a_buffers` and `b_buffers` are given: then floating buffers follow the same curve
    and others are those of a. Nothing is clamped: outside [0, 1] a running variance may become negative, and the loss
    there is nan and recorded as None.

    Args:
        losses: one loss or several (train and test); each maps weights by name to a scalar tensor in nats per sample.
        a: weights at alpha 0, by name or as one tensor; not modified.
        b: weights at alpha 1, of the same names and shapes.
        alphas: positions; by default 25 in [-1, 2], a step of 1/8 apart.
        curve: "linear", or "sine", :math:`\cos(\alpha\pi/2)\,a + \sin(\alpha\pi/2)\,b`.
        a_buffers: buffers at alpha 0; the losses must then have the method `with_buffers`.
        b_buffers: buffers at alpha 1, of the same names and shapes.
        only: patterns of names; the weights they match follow the path, the others stay those of a. None: all do.
        check: refuse a loss that is not deterministic, after two evaluations of its first chunk at a.
        memory_limit: bytes for a forward pass and for what is kept; chunks are made to fit.
        resume: a file that keeps every finished point, by its alpha: run again, only missing points are evaluated.
        listen: is told after every point.

    Returns:
        Losses and accuracies in the order of `alphas`.

    Raises:
        BadInput: a and b do not fit each other, there is no loss or no alpha, an alpha is not finite, buffers are given
            for one end only or to a loss that takes none, a loss is not deterministic, the limit is too small, or the
            file holds another measurement.
        Interrupted: Ctrl-C, where `resume` keeps the points that are done.

    Source:
        Goodfellow et al. 2015, arXiv:1412.6544; as in Keskar et al. 2017, arXiv:1609.04836, figures 3 (linear) and 7
        (sine).
    """
    positions = check_positions(ALPHAS if alphas is None else alphas, "alphas")
    if curve not in get_args(CurveName):
        raise BadInput(f"curve is {curve!r}; choose one of {', '.join(get_args(CurveName))}")
    first, second = as_tree(a, "a"), as_tree(b, "b")
    line = Curve(first, held_back(first, second, only), ("a", "b"), curve=curve)
    manner = Manner(check, memory_limit, resume, listen)
    with surveying(
        losses,
        a,
        line,
        base=(0.0,),
        points=len(positions),
        settings={"measure": f"{curve} path"},
        manner=manner,
        buffers=buffer_curve(a_buffers, b_buffers, curve),
    ) as survey:
        rows = survey.visit([(alpha,) for alpha in positions], "path", listen, axis="alpha")
        account = survey.conditions()
    values = losses_of(rows)
    return Path(
        alphas=positions,
        losses=values,
        accuracies=accuracies_of(rows),
        descriptions=account.descriptions,
        curve=curve,
        forward_samples=account.forward_samples,
        seconds=account.seconds,
        dtype=account.dtype,
        summaries=tuple(summarised(positions, column) for column in values),
        resumed=account.resumed,
        memory_limit=account.memory_limit,
        peak_memory=account.peak_memory,
    )


def held_back(a: dict[str, Tensor], b: dict[str, Tensor], only: Names) -> dict[str, Tensor]:
    """Give b with the weights that `only` does not match put back to those of a."""
    if only is None:
        return b
    _, held = divided(a, only, frozenset())
    return {name: held.get(name, p) for name, p in b.items()}


def buffer_curve(a: Params | None, b: Params | None, curve: str) -> Curve | None:
    """Give the curve that buffers follow.

    Args:
        a: buffers at alpha 0, or None to leave the losses as they are.
        b: buffers at alpha 1.
        curve: as of the weights.

    Returns:
        The curve, or None.

    Raises:
        BadInput: only one of a and b is given, or they do not fit each other.
    """
    if a is None and b is None:
        return None
    if a is None or b is None:
        raise BadInput("a_buffers and b_buffers belong together; give both or neither")
    return Curve(a, b, ("a_buffers", "b_buffers"), curve=curve)
