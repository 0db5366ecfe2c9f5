"""Squared norms and inner products of the gradients of single samples, without writing those gradients out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, Message, Progress
from gengap.core.seeds import stream
from gengap.measures.noise.per_sample_capture import Use, capture
from gengap.measures.noise.per_sample_rest import Rows, along_of, looped, rows_in_blocks, squares_of
from gengap.measures.noise.per_sample_squares import squares
from gengap.measures.protocols import Chunked, SamplePiece, sample_pieces
from gengap.measures.sample_rows import select
from gengap.measures.session import Session
from gengap.measures.trees import dot, resolution

TRIED = 3  # samples on which shortcuts are compared with plain differentiation
BLOCK = 1 << 26  # bytes of written-out gradients at a time: more does not make it faster
WHAT = "the noise of single samples"

Metric = Mapping[str, Tensor] | None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the gradients g_i of N samples say about their noise.

    Attributes:
        squares: |g_i|^2, shape (N,), float64.
        along: g_i . S with S the sum of all, shape (N,), float64.
        gradient: S / N, by name, in the dtype of the weights.
        one_by_one: names of the weights that no shortcut was known for.
    """

    squares: Tensor
    along: Tensor
    gradient: dict[str, Tensor]
    one_by_one: tuple[str, ...]


class PerSample:
    """The samples of a loss, and quick ways to what their gradients have in common.

    Args:
        session: loss, weights and memory.
        quick: names of weights whose shortcut can be trusted: see `trusted`.
        metric: factors of the squared entries of a gradient, by name, for `squares`; None: all 1.
        listen: is told after every piece.
    """

    def __init__(self, session: Session, quick: frozenset[str], metric: Metric, listen: Listener) -> None:
        self._session, self._quick, self._metric, self._listen = session, quick, metric, listen
        self._rest = frozenset(session.params) - quick
        self._kept: list[list[Use]] = []
        self._room, self._done = session.memory.free, 0

    def first_pass(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return |g_i|^2, shape (N,), and the sum of the gradients.

        One forward and backward pass, and for weights without a shortcut another that writes their gradients out. What the
        second pass needs is kept while there is room.
        """
        total = {name: torch.zeros_like(p) for name, p in self._session.params.items()}
        found = []
        for index, piece in enumerate(self._pieces()):
            _, gradient, uses = capture(piece, self._session.params, self._quick)
            for name, g in gradient.items():
                total[name].add_(g)
            square = torch.zeros(piece.size, dtype=torch.float64)
            for use in uses:
                square += squares(use, self._metric)
            for part, rows in self._written(piece):
                square[part] += squares_of(rows, self._metric)
            found.append(square)
            self._keep(index, uses)
            self._said(piece.size)
        return torch.cat(found), total

    def second_pass(self, direction: Mapping[str, Tensor]) -> Tensor:
        """Return the inner products of all gradients with a direction, shape (N,), float64.

        One product with the weights where the first pass has kept what it saw, else another forward and backward pass.
        """
        found = []
        for index, piece in enumerate(self._pieces()):
            kept = index < len(self._kept)
            uses = self._kept[index] if kept else capture(piece, self._session.params, self._quick)[2]
            inner = torch.zeros(piece.size, dtype=torch.float64)
            for use in uses:
                inner += use.along(direction)
            for part, rows in self._written(piece):
                inner[part] += along_of(rows, direction)
            found.append(inner)
            self._said(piece.size)
        return torch.cat(found)

    def _pieces(self) -> Iterator[SamplePiece]:
        return sample_pieces(self._session.loss, self._session.params, WHAT)

    def _written(self, piece: SamplePiece) -> Iterator[tuple[slice, Rows]]:
        if self._rest:
            room = min(BLOCK, max(self._session.memory.free, 1))
            yield from rows_in_blocks(piece, self._session.params, self._rest, room)

    def _keep(self, index: int, uses: list[Use]) -> None:
        cost = sum(use.bytes for use in uses)
        if index == len(self._kept) and cost <= self._room:
            self._kept.append(uses)
            self._room -= cost

    def _said(self, count: int) -> None:
        self._done += count
        self._listen(Progress("gradient noise", self._done, None, "samples"))


def gather(session: Session, metric: Metric, listen: Listener) -> Gathered:
    """Go through the samples twice: for squared norms and the sum of the gradients, then for inner products with it.

    Shortcuts are compared with plain differentiation on a few samples first, and in the end the inner products must add up
    to the squared norm of the sum, which autograd made; where they do not, every gradient is written out.

    Args:
        session: loss and weights.
        metric: factors of the squared entries of a gradient, by name, or None.
        listen: is told how far it is, and of shortcuts that failed.

    Returns:
        What was found.

    Raises:
        BadInput: the loss has no samples, or mixes them.
    """
    first = next(sample_pieces(session.loss, session.params, WHAT))
    quick, each = trusted(first, session.params, metric, listen)
    make_room(session, each)
    for names in (quick, frozenset[str]()):
        reader = PerSample(session, names, metric, listen)
        norms, total = reader.first_pass()
        direction = total if metric is None else {name: g * metric[name] for name, g in total.items()}
        inner = reader.second_pass(direction)
        if adds_up(norms, inner, sum(dot(g, direction[name]) for name, g in total.items()), session.params):
            mean = {name: g / len(norms) for name, g in total.items()}
            return Gathered(norms, inner, mean, tuple(n for n in session.params if n not in names))
        if names:
            text = "per-sample gradients from single layers do not add up to the gradient; they are written out instead"
            listen(Message(text, warning=True))
    raise BadInput(
        "the gradients of single samples do not add up to that of all: the network or the loss mixes samples"
    )


def adds_up(norms: Tensor, inner: Tensor, square: float, params: Mapping[str, Tensor]) -> bool:
    """Tell whether inner products with the sum of the gradients add up to its square, but for rounding; not finite passes."""
    scale = math.sqrt(float(norms.sum()) * abs(square))
    return not abs(float(inner.sum()) - square) > tolerance(params) * scale


def tolerance(params: Mapping[str, Tensor]) -> float:
    """Return the relative difference that rounding explains: 1e-6 in float64, 1.2e-3 in float32."""
    return min(0.3, max(1e-6, 1e4 * resolution(params)))


def trusted(
    piece: SamplePiece, params: Mapping[str, Tensor], metric: Metric, listen: Listener
) -> tuple[frozenset[str], float]:
    """Try shortcuts on a few samples of a piece against one plain backward pass each.

    Args:
        piece: the samples.
        params: the weights that are measured.
        metric: factors of the squared entries of a gradient, by name, or None.
        listen: is told of a shortcut that is wrong.

    Returns:
        The names of the weights whose shortcut is right, and the bytes that all shortcuts hold for a sample.

    Raises:
        BadInput: the gradient of the samples together is not the mean of theirs alone.
    """
    few = some(piece)
    alone = looped(few, params, frozenset(params))
    _, gradient, uses = capture(few, params)
    check_apart(alone, gradient, tolerance(params))
    direction, peak = random_like(params), math.sqrt(float(squares_of(alone, metric).max()))
    quick: set[str] = set()
    for use in uses:
        own = {name: alone[name] for name in use.weights.values()}
        if is_right(use, own, metric, direction, peak * resolution(params)):
            quick.update(own)
            continue
        names = ", ".join(own)
        text = f"the layer of {names} is not used as usual; its per-sample gradients are written out, which is slower"
        listen(Message(text, warning=True))
    return frozenset(quick), sum(use.bytes for use in uses) / few.size


def make_room(session: Session, each: float) -> None:
    """Choose a smaller chunk where the memory limit does not allow for `each` more bytes a sample."""
    memory, loss = session.memory, session.loss
    if not (isinstance(loss, Chunked) and memory.per_sample):
        return
    room, cost = memory.free + loss.chunk_size * memory.per_sample, memory.per_sample + each
    chunk = max(1, min(loss.chunk_size, int(room / cost)))
    if chunk < loss.chunk_size:
        session.loss = loss.with_chunk(chunk)
    session.memory = replace(memory, free=max(0, int(room - chunk * cost)))


def some(piece: SamplePiece) -> SamplePiece:
    """Take a few samples, spread over a piece."""
    return select(piece, torch.linspace(0, piece.size - 1, min(TRIED, piece.size)).long())


def check_few_apart(session: Session, what: str) -> None:
    """Refuse a loss that mixes samples, as far as a few samples show it.

    Args:
        session: loss and weights.
        what: the measure, for the message where the loss has no samples.

    Raises:
        BadInput: the loss has no samples, or their gradient together is not the mean of theirs alone.
    """
    few = some(next(sample_pieces(session.loss, session.params, what)))
    alone = looped(few, session.params, frozenset(session.params))
    check_apart(alone, capture(few, session.params)[1], tolerance(session.params))


def is_right(use: Use, own: Rows, metric: Metric, direction: Mapping[str, Tensor], grain: float) -> bool:
    """Tell whether the shortcuts of a use agree with gradients written out, but for rounding.

    Args:
        use: of a layer.
        own: the gradients of its weights.
        metric: as in `squares`.
        direction: for inner products, of entries about 1.
        grain: length below which a gradient is rounding.

    Returns:
        Whether they agree.
    """
    allowed, exact = tolerance(own), squares_of(own, metric).sqrt()
    room = allowed * exact + 10 * grain
    square_off = (squares(use, metric).sqrt() - exact).abs()
    inner_off = (use.along(direction) - along_of(own, direction)).abs()
    return not bool(((square_off > room) | (inner_off > room)).any())


def check_apart(alone: Rows, together: Mapping[str, Tensor], allowed: float) -> None:
    """Refuse a loss whose gradient is not the mean of the gradients of single samples.

    Args:
        alone: gradients of single samples.
        together: the sum, as the loss of all of them has it.
        allowed: relative difference.

    Raises:
        BadInput: they differ.
    """
    off = math.sqrt(sum(dot(d, d) for d in (g.sum(0) - together[name] for name, g in alone.items())))
    scale = float(squares_of(alone, None).sqrt().sum())
    if off > allowed * scale:
        raise BadInput(
            f"the gradient of {len(next(iter(alone.values())))} samples together is off the sum of theirs alone by "
            f"{off:.2g}, of lengths {scale:.2g} in all: the network or the loss mixes samples (statistics of the batch, a "
            f"weighted mean, a loss over pairs); use two_batch_noise_scale, which needs no single samples"
        )


def random_like(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draw a normal direction, always the same."""
    generator = torch.Generator().manual_seed(stream(0, "direction"))
    return {name: torch.randn(p.shape, generator=generator).to(p) for name, p in params.items()}
