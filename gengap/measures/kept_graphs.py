"""Graphs of pieces of a loss, kept from one pass over the samples to the next for as many as there is room for."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from gengap.measures.memory import tree_bytes
from gengap.measures.protocols import Piece
from gengap.measures.session import Session

P = TypeVar("P", bound=Piece)
G = TypeVar("G")


class KeptGraphs(Generic[P, G]):
    """What is made of the pieces, the first ones kept.

    Args:
        session: tells what the graph of a sample takes; each graph has a gradient of its own as well.
        room: bytes for all of them.

    Attributes:
        kept: of the first pieces, in their order.
    """

    def __init__(self, session: Session, room: int) -> None:
        self.kept: list[G] = []
        self._per_sample, self._room, self._all_kept = session.memory.kept_per_sample, room, False
        self._gradient = tree_bytes(session.params)

    def each(self, pieces: Callable[[], Iterator[P]], make: Callable[[P], G]) -> Iterator[G]:
        """Go through the pieces once.

        Args:
            pieces: begins a pass over them, always the same ones.
            make: what is wanted of a piece.

        Yields:
            It, of each piece in order; the caller drops one before the next is made.
        """
        yield from list(self.kept)
        if self._all_kept:
            return
        count, known = 0, len(self.kept)
        for count, piece in enumerate(pieces(), 1):
            if count <= known:
                continue
            made = make(piece)
            cost = int(self._per_sample * piece.size) + self._gradient
            if cost <= self._room and count == len(self.kept) + 1:
                self._room -= cost
                self.kept.append(made)
            yield made
            del made  # the caller's is the last reference, unless it is kept
        self._all_kept = count == len(self.kept)
