"""What every measure does first and last: read its arguments, check the loss, bound the memory, and keep the account."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.measures import memory as m
from gengap.measures.determinism import check_deterministic
from gengap.measures.part import Rows, part
from gengap.measures.pass_cost import WORKING, Pass, pass_cost
from gengap.measures.product_check import check_second_derivative, in_float64
from gengap.measures.protocols import (
    Chunked,
    LossFunction,
    Params,
    PlainFunction,
    SamplePiece,
    as_loss_function,
    measured_on,
)
from gengap.measures.random_state import kept
from gengap.measures.records import Conditions
from gengap.measures.sample_rows import cut
from gengap.measures.second_order import consistent_kernels
from gengap.measures.trees import as_tree, dtype_name, is_finite, size
from gengap.problem.samples import parse_bytes

DEFAULT_LIMIT = "4 GiB"
TRIED = 8  # samples on which the loss is cut into pieces to see whether they add up
Names = str | Sequence[str] | None


@dataclass(slots=True)
class Session:
    """A measurement in progress.

    Attributes:
        loss: with the chunk that the memory limit asks for; takes `params`.
        params: the weights that are measured, by name, detached; weights held fixed are not among them.
        memory: what may be used.
        device: of the weights.
    """

    loss: LossFunction
    params: dict[str, Tensor]
    memory: m.Memory
    device: torch.device
    _began: float
    _peak: m.PeakMemory

    @property
    def weights(self) -> int:
        """How many numbers are measured, P."""
        return size(self.params)

    def conditions(self) -> Conditions:
        """Close the account: what was measured under which conditions, with the time and the memory until now."""
        if self._peak in m.PeakMemory.active:
            self._peak.__exit__(None, None, None)
        return Conditions(
            **measured_on(self.loss),
            chunk_size=self.loss.chunk_size if isinstance(self.loss, Chunked) else None,
            dtype=dtype_name(self.params),
            weights=self.weights,
            seconds=time.perf_counter() - self._began,
            memory_limit=self.memory.limit,
            peak_memory=self._peak.bytes,
        )


@contextmanager
def measuring(
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    passes: Pass,
    vectors: int = 0,
    only: Names = None,
    moves: bool = False,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
) -> Iterator[Session]:
    """Open a measurement; whatever happens in it, the global random generators are left as they were.

    Args:
        loss: a `LossFunction`, or any callable that maps the weights to a scalar tensor, the mean loss over samples.
        params: the weights by name, or one tensor; not modified.
        passes: what the measure does with the loss most: evaluate it, differentiate it once, or make products with its
            second derivative.
        vectors: how many vectors as long as the weights the measure holds at the same time.
        only: patterns of names ("*.weight", shell style); the weights they match are measured, the others held fixed.
            None: all that the model trains.
        moves: the measure evaluates at other weights than `params`; rows that an embedding does not train (padding_idx) then
            stay where they are, as they have no derivative either.
        check: evaluate twice first, and refuse a loss that is not deterministic; for products, also one of which torch
            makes wrong ones.
        memory_limit: bytes, or a text such as "2 GiB", that the measure may take beside what the process holds.

    Yields:
        The session.

    Raises:
        BadInput: weights, loss or limit cannot be used, no name matches, the loss is not deterministic, or its second
            derivative is wrong.
    """
    began, limit = time.perf_counter(), parse_bytes(memory_limit)
    tree = as_tree(params)
    if not is_finite(tree):
        raise BadInput("params holds a weight that is not finite; measure a run that did not diverge")
    function = as_loss_function(loss, params)
    active, held = divided(tree, only, getattr(function, "frozen", frozenset()))
    device = next(iter(active.values())).device
    with kept(), consistent_kernels(twice=passes == "product"):
        rows = untrained_rows(function, active) if moves else {}
        chosen = part(function, held, tuple(tree), rows) if held or rows else function
        fit, budget = fitted(chosen, active, limit, passes, vectors)
        peak = m.PeakMemory(device)
        peak.__enter__()
        try:
            if check:
                check_deterministic(fit, active)
                check_pieces_add_up(fit, active)
                if passes == "product":
                    check_second_derivative(fit, active, limit)
            yield Session(fit, active, budget, device, began, peak)
        finally:
            if peak in m.PeakMemory.active:
                peak.__exit__(None, None, None)


def check_pieces_add_up(loss: LossFunction, params: Params) -> None:
    """Refuse a loss whose value depends on how the samples are cut into pieces, where they are cut.

    Args:
        loss: with the chunk it will have; tried on a few samples.
        params: where.

    Raises:
        BadInput: it is a sum, or a mean that weighs samples unequally.
    """
    if not isinstance(loss, Chunked) or loss.describe().get("batch_norm") in {"batch", "recompute"}:
        return
    first = next(iter(loss.chunks(params)))
    if first.size < 2 or first.size == loss.describe().get("samples"):
        return
    few = first.head(min(TRIED, first.size))
    whole, halves = whole_and_halves(few, params)
    if apart(whole, halves):  # float32 rounds small losses otherwise in batches of another size
        double, tree = in_float64(few, params)
        with suppress(RuntimeError, TypeError):  # of a loss that holds numbers in float32, such as class weights
            if isinstance(double, SamplePiece):
                whole, halves = whole_and_halves(double, tree)
    if apart(whole, halves):
        raise BadInput(
            f"the loss of {few.size} samples is {whole:.6g}, but the mean over two halves of them is {halves:.6g}: it is no mean "
            f"over samples (a sum, class weights or ignored targets), and would depend on the chunks; give one that is, or "
            f"evaluate all samples at once by batch_size={loss.describe().get('samples')} and a larger memory_limit"
        )


def whole_and_halves(few: SamplePiece, params: Params) -> tuple[float, float]:
    """Return the loss of some samples, and the mean over two halves of them."""
    with torch.no_grad():
        halves = sum(float(half(params)) * half.size for half in cut(few, (few.size + 1) // 2))
        return float(few(params)), halves / few.size


def apart(whole: float, halves: float) -> bool:
    """Tell whether two losses differ by more than rounding."""
    return abs(whole - halves) > 1e-4 * (abs(whole) + abs(halves))


def untrained_rows(loss: LossFunction, params: Params) -> Rows:
    """Give the rows of the weights that the loss says are not trained, as they are."""
    places: Mapping[str, int] = getattr(loss, "untrained_rows", {})
    return {name: (index, params[name][index].clone()) for name, index in places.items() if name in params}


def divided(
    tree: Mapping[str, Tensor], only: Names, frozen: frozenset[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Divide weights into those to measure and those to hold.

    Args:
        tree: all of them.
        only: patterns, or None for all that are not frozen.
        frozen: names of weights that the model does not train.

    Returns:
        The weights to measure, and those held fixed.

    Raises:
        BadInput: nothing is left to measure, or `only` matches nothing.
    """
    if only is None:
        chosen = set(tree) - frozen
        if not chosen:
            raise BadInput("no weight is left to measure: all are frozen; name some by only, for example only='*'")
    else:
        chosen = matching(tree, [only] if isinstance(only, str) else only)
    return {n: p for n, p in tree.items() if n in chosen}, {n: p for n, p in tree.items() if n not in chosen}


def matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Choose names by patterns.

    Args:
        names: of all weights.
        patterns: as in a shell; case counts.

    Returns:
        The names that match at least one.

    Raises:
        BadInput: there is no pattern, or one matches no name.
    """
    every = list(names)
    if not patterns:
        raise BadInput("only is empty; give a pattern of names, for example '*.weight', or leave it out")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in every):
            shown = ", ".join(every[:6]) + (", ..." if len(every) > 6 else "")
            raise BadInput(f"only holds {pattern!r}, which no weight is called; there are {shown}")
    return {name for name in every if any(fnmatchcase(name, pattern) for pattern in patterns)}


def fitted(
    loss: LossFunction, params: dict[str, Tensor], limit: int, passes: Pass, vectors: int
) -> tuple[LossFunction, m.Memory]:
    """Choose the chunk that keeps a measure below its limit.

    Args:
        loss: the loss.
        params: the weights that are measured.
        limit: bytes.
        passes: the kind of pass.
        vectors: vectors as long as the weights that are held at once.

    Returns:
        The loss with a chunk that fits, and what is left. A plain function is taken as it is: its memory is its own.

    Raises:
        BadInput: not even one sample and the vectors fit, or batch norm forbids smaller chunks.
    """
    own = (vectors + WORKING[passes]) * m.tree_bytes(params)
    if not isinstance(loss, Chunked):
        return loss, m.Memory(limit, 0.0, m.plan(limit, 0.0, own, 1)[1])
    cost = pass_cost(loss, params, passes)
    chunk, free = m.plan(limit, cost.peak, own, loss.chunk_size)
    chosen = loss.with_chunk(chunk) if chunk < loss.chunk_size else loss
    return chosen, m.Memory(limit, cost.peak, free, cost.kept)
