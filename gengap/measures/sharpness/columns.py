"""A random matrix with as many rows as there are weights, drawn in blocks from a seed so that it need not be kept."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.measures.trees import Vector

Law = Literal["normal", "unit columns", "uniform"]
Block = npt.NDArray[np.float32]
ROWS = 4096  # of a block: with a hundred columns it stays in the cache while it is used


class Columns:
    r"""The matrix A of shape (P, p), its products, and :math:`A^+ v = (A^T A)^{-1} A^T v`.

    Its entries are float32 numbers, the same on every machine and for every dtype of the weights; sums are float64.
    A product costs 2 P p operations, and drawing the blocks again about ten times as long.

    Args:
        rows: P.
        dim: p, at most P.
        law: "normal" for independent N(0, 1) entries; "unit columns" for the same with each column divided by its norm;
            "uniform" for independent entries in [0, 1), whose columns share a mean direction.
        seed: of the entries.
        room: bytes that it may keep; it is drawn again at every use where that is not enough.

    Attributes:
        stored: whether it is kept.
        gram: A^T A, shape (p, p).

    Raises:
        BadInput: its columns are not independent.
    """

    def __init__(self, rows: int, dim: int, *, law: Law, seed: int, room: int) -> None:
        self._rows, self._dim, self._law, self._seed = rows, dim, law, seed
        self.stored = self.bytes(rows, dim) <= room
        self._kept: list[Block] | None = list(self._drawn()) if self.stored else None
        self._scale = np.ones(dim)
        self.gram = sum((b.T @ b for _, b in self._blocks()), np.zeros((dim, dim)))
        if law == "unit columns":
            self._scale = 1 / np.sqrt(self.gram.diagonal())
            self.gram *= np.outer(self._scale, self._scale)
        try:
            self._factor = cho_factor(self.gram)
        except LinAlgError:
            raise BadInput(
                f"{dim} random columns in a space of {rows} weights are not independent; give fewer"
            ) from None

    @staticmethod
    def bytes(rows: int, dim: int) -> int:
        """Return what keeping such a matrix takes."""
        return 4 * rows * dim

    def times(self, z: Vector) -> Vector:
        """Return A z, shape (P,)."""
        out, scaled = np.empty(self._rows), self._scale * z
        for rows, block in self._blocks():
            out[rows] = block @ scaled
        return out

    def transposed(self, v: Vector) -> Vector:
        """Return A^T v, shape (p,)."""
        total = np.zeros(self._dim)
        for rows, block in self._blocks():
            total += v[rows] @ block
        return self._scale * total

    def pseudo_inverse(self, v: Vector) -> Vector:
        """Return A^+ v, shape (p,): the coordinates of the point of the subspace that is nearest to v."""
        return np.asarray(cho_solve(self._factor, self.transposed(v)), dtype=np.float64)

    def _blocks(self) -> Iterator[tuple[slice, Vector]]:
        """Give the blocks of rows in float64, and where they stand."""
        start = 0
        for block in self._drawn() if self._kept is None else self._kept:
            yield slice(start, start + len(block)), block.astype(np.float64)
            start += len(block)

    def _drawn(self) -> Iterator[Block]:
        for i, start in enumerate(range(0, self._rows, ROWS)):
            rng = np.random.default_rng(stream(self._seed, "columns", i))
            shape = (min(ROWS, self._rows - start), self._dim)
            yield rng.random(shape, np.float32) if self._law == "uniform" else rng.standard_normal(shape, np.float32)
