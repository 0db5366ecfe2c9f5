"""The loss along the straight line between two minima."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import finite
from gengap.core.events import Listener, Progress, silent
from gengap.measures.protocols import LossFunction, Params, PlainFunction, Rebuffered, Scored, as_loss_function
from gengap.measures.trees import as_tree, check_same_layout, dtype_name, empty_like

ALPHAS = tuple(-1 + i / 8 for i in range(25))  # 25 points in [-1, 2], as in the published plots
EXACT = "exact on the given data"

Row = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Path:
    """Loss and accuracy along a path between two sets of weights.

    Attributes:
        alphas: positions; 0 is a and 1 is b.
        losses: for each loss function the loss at each alpha, nats per sample; None where it is not finite.
        accuracies: for each loss function the accuracy at each alpha in percent, or None where it counts none.
        descriptions: for each loss function what it was measured on (data, samples, batch_norm).
        curve: "linear", (1 - alpha) a + alpha b.
        forward_samples: samples that went through the network, without what recomputed statistics need; None where a
            loss function does not say how many it has.
        seconds: wall clock.
        dtype: of the weights.
        bound: what the numbers are: exact values, no estimates.
    """

    alphas: tuple[float, ...]
    losses: tuple[Row, ...]
    accuracies: tuple[Row | None, ...]
    descriptions: tuple[dict[str, Any], ...]
    curve: str
    forward_samples: int | None
    seconds: float
    dtype: str
    bound: str = EXACT

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {key: listed(value) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        names = [str(d.get("data", "unknown")) for d in self.descriptions]
        rows = ["alpha   " + "  ".join(f"{name:>10}" for name in names)]
        for alpha, *values in zip(self.alphas, *self.losses, strict=True):
            shown = ["not finite" if v is None else f"{v:.4g}" for v in values]
            rows.append(f"{alpha:<8.4g}" + "  ".join(f"{text:>10}" for text in shown))
        return "\n".join([f"loss in nats along the {self.curve} path", *rows])


def interpolate(
    losses: PlainFunction | Sequence[PlainFunction],
    *,
    a: Params | Tensor,
    b: Params | Tensor,
    alphas: Sequence[float] | None = None,
    a_buffers: Params | None = None,
    b_buffers: Params | None = None,
    listen: Listener = silent,
) -> Path:
    r"""Evaluate losses along :math:`(1 - \alpha)\,a + \alpha\,b`.

    At alpha 0 and 1 the weights are those of a and b, bit for bit. One set of tensors is filled in place at every
    point; a loss must not keep it. Costs one forward pass of each loss at each alpha.

    Batch norm in the modes "batch" and "recompute" has no state to interpolate. In mode "running" the buffers of the
    loss are used as they are, unless `a_buffers` and `b_buffers` are given: then floating buffers follow the same line
    and others are those of a. Nothing is clamped: outside [0, 1] a running variance may become negative, and the loss
    there is nan and recorded as None.

    Args:
        losses: one loss or several (train and test); each maps weights by name to a scalar tensor in nats per sample.
        a: weights at alpha 0, by name or as one tensor; not modified.
        b: weights at alpha 1, of the same names and shapes.
        alphas: positions; by default 25 in [-1, 2], a step of 1/8 apart.
        a_buffers: buffers at alpha 0; the losses must then have the method `with_buffers`.
        b_buffers: buffers at alpha 1, of the same names and shapes.
        listen: is told after every point.

    Returns:
        Losses and accuracies in the order of `alphas`.

    Raises:
        BadInput: a and b do not fit each other, there is no loss or no alpha, an alpha is not finite, or buffers are
            given for one end only or to a loss that takes none.

    Source:
        Goodfellow et al. 2015, arXiv:1412.6544; as in Keskar et al. 2017, arXiv:1609.04836, figure 3.
    """
    began = time.perf_counter()
    functions = [as_loss_function(f, a) for f in (losses if isinstance(losses, Sequence) else [losses])]
    positions = tuple(float(x) for x in (ALPHAS if alphas is None else alphas))
    check_positions(functions, positions)
    line = Line(as_tree(a, "a"), as_tree(b, "b"), ("a", "b"))
    with moving_buffers(functions, a_buffers, b_buffers) as move:
        scores = []
        for done, alpha in enumerate(positions, 1):
            line.move(alpha)
            scores.append([f.score(line.point) for f in move(alpha)])
            note = ", ".join(f"{s.loss:.4g}" for s in scores[-1])
            listen(Progress("path", done, len(positions), "points", f"alpha {alpha:g}: loss {note}"))
    columns = tuple(zip(*scores, strict=True))
    descriptions = tuple(f.describe() for f in functions)
    return Path(
        alphas=positions,
        losses=tuple(tuple(finite(s.loss) for s in column) for column in columns),
        accuracies=tuple(accuracy_row(column) for column in columns),
        descriptions=descriptions,
        curve="linear",
        forward_samples=forward_samples(descriptions, len(positions)),
        seconds=time.perf_counter() - began,
        dtype=dtype_name(line.point),
    )


class Line:
    """The straight line through two trees, in one set of tensors.

    Attributes:
        point: the tree at the last alpha; the same dict and tensors at every alpha.
    """

    def __init__(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: tuple[str, str]) -> None:
        check_same_layout(a, b, names)
        self._a = {name: p.detach() for name, p in a.items()}
        self._b = {name: b[name].detach().to(p.device, p.dtype) for name, p in a.items()}
        self.point = empty_like(self._a)

    def move(self, alpha: float) -> None:
        """Fill `point` with (1 - alpha) a + alpha b; tensors that are not floating are those of a."""
        for name, out in self.point.items():
            if alpha == 0 or not out.is_floating_point():
                out.copy_(self._a[name])
            elif alpha == 1:  # not by arithmetic: an infinite entry of a would give nan
                out.copy_(self._b[name])
            else:
                torch.lerp(self._a[name], self._b[name], alpha, out=out)


@contextmanager
def moving_buffers(
    functions: list[LossFunction], a: Params | None, b: Params | None
) -> Iterator[Callable[[float], list[LossFunction]]]:
    """Give a function that returns the losses with the buffers of an alpha; the losses get back what they had.

    Args:
        functions: the losses.
        a: buffers at alpha 0, or None to leave the losses as they are.
        b: buffers at alpha 1.

    Yields:
        The function from alpha to losses.

    Raises:
        BadInput: only one of a and b is given, they do not fit each other, or a loss takes no buffers.
    """
    if a is None and b is None:
        yield lambda _: functions
        return
    if a is None or b is None:
        raise BadInput("a_buffers and b_buffers belong together; give both or neither")
    takers = [f for f in functions if isinstance(f, Rebuffered)]
    if len(takers) < len(functions):
        raise BadInput(
            "buffers were given, but a loss has no method with_buffers; leave them out or bind them in the loss"
        )
    line = Line(a, b, ("a_buffers", "b_buffers"))
    before = [{k: v.detach().clone() for k, v in getattr(f, "buffers", {}).items()} for f in takers]

    def move(alpha: float) -> list[LossFunction]:
        line.move(alpha)
        return [f.with_buffers(line.point) for f in takers]

    try:
        yield move
    finally:
        for f, own in zip(takers, before, strict=True):
            f.with_buffers(own)


def check_positions(functions: list[LossFunction], alphas: tuple[float, ...]) -> None:
    """Refuse a path without points or losses.

    Args:
        functions: the losses.
        alphas: the positions.

    Raises:
        BadInput: there are none, or an alpha is not finite.
    """
    if not functions:
        raise BadInput("losses is empty; give at least one loss")
    if not alphas:
        raise BadInput("alphas is empty; give at least one position, 0 for a and 1 for b")
    if odd := [x for x in alphas if not math.isfinite(x)]:
        raise BadInput(f"alphas holds {odd[0]!r}; give finite positions")


def accuracy_row(scores: Sequence[Scored]) -> Row | None:
    """List accuracies, or None where none was counted."""
    row = tuple(s.accuracy for s in scores)
    return None if all(x is None for x in row) else row


def forward_samples(descriptions: Sequence[Mapping[str, Any]], points: int) -> int | None:
    """Count samples over all points and losses, or None where a loss does not say how many it has."""
    sizes = [d.get("samples") for d in descriptions]
    return None if None in sizes else points * sum(size for size in sizes if size is not None)


def listed(value: Any) -> Any:
    """Turn tuples into lists, at any depth."""
    if isinstance(value, dict):
        return {key: listed(part) for key, part in value.items()}
    return [listed(part) for part in value] if isinstance(value, tuple | list) else value
