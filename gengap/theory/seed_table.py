"""Observations over batch sizes and seeds as a table: its means, and what seeds alone scatter."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from gengap.core.errors import BadInput
from gengap.theory.least_squares import Floats, sum_of_squares

UNLIKELY = 0.01  # of scatters that are the same


@dataclass(frozen=True, slots=True)
class SeedTable:
    """Values by seed and batch size.

    Attributes:
        sizes: distinct batch sizes in ascending order, shape (b,).
        values: shape (S, b); nan where a seed has no value.
        paired: whether a row is one seed, whose values may share an offset.
    """

    sizes: Floats
    values: Floats
    paired: bool

    @property
    def counts(self) -> Floats:
        """Number of values of each batch size, shape (b,)."""
        return np.asarray(np.isfinite(self.values).sum(axis=0), dtype=np.float64)

    @property
    def means(self) -> Floats:
        """Mean over the values of each batch size, shape (b,)."""
        return np.asarray(np.nansum(self.values, axis=0) / self.counts)

    @property
    def n(self) -> int:
        """Number of values."""
        return int(np.isfinite(self.values).sum())

    @property
    def complete(self) -> bool:
        """Whether every seed has every batch size."""
        return self.paired and bool(np.isfinite(self.values).all())

    def errors_against(self, best: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Give standard errors of the differences between the means and one of them.

        Where the batch sizes scatter alike, their scatter is pooled. Where they do not (small batches near the limit of
        stability scatter a hundred times as much as large ones), each pair stands for itself: by its paired differences, or as
        Welch has it.

        Args:
            best: number of the batch size that others are compared with.

        Returns:
            Errors and degrees of freedom, each of shape (b,); those of the batch size itself, and of pairs with one value, are
            those of the pooled scatter.
        """
        variance, degrees = self.scatter()
        error = np.sqrt(variance * (1 / self.counts + 1 / self.counts[best]))
        freedom = np.full(len(self.sizes), max(degrees, 1), dtype=np.int64)
        if self.scatters_alike():
            return error, freedom
        for i in range(len(self.sizes)):
            own, number = self.pair_error(i, best) if i != best else (0.0, 0)
            if number:
                error[i], freedom[i] = own, number
        return error, freedom

    def pair_error(self, i: int, j: int) -> tuple[float, int]:
        """Give the standard error of a difference of two means by themselves, and its degrees of freedom; (0, 0) for too few."""
        pair = self.values[:, [i, j]]
        both = pair[np.isfinite(pair).all(axis=1)]
        if self.paired and len(both) == len(pair) > 1:
            return float((both[:, 0] - both[:, 1]).std(ddof=1) / np.sqrt(len(both))), len(both) - 1
        counts = self.counts[[i, j]]
        if counts.min() < 2:
            return 0.0, 0
        parts = np.nanvar(pair, axis=0, ddof=1) / counts
        if not parts.sum():
            return 0.0, int(counts.sum() - 2)
        return float(np.sqrt(parts.sum())), max(1, int(parts.sum() ** 2 / (parts**2 / (counts - 1)).sum()))

    def scatters_alike(self) -> bool:
        """Tell whether the scatter of all batch sizes may be the same: Bartlett's test at 1 %."""
        several = self.counts > 1
        degrees = self.counts[several] - 1
        variances = np.nanvar(self.values[:, several], axis=0, ddof=1)
        if len(variances) < 2 or not variances.all():
            return len(variances) < 2 or not variances.any()
        pooled = float(degrees @ variances / degrees.sum())
        k = len(variances)
        statistic = degrees.sum() * np.log(pooled) - float(degrees @ np.log(variances))
        correction = 1 + (float((1 / degrees).sum()) - 1 / degrees.sum()) / (3 * (k - 1))
        return float(chdtrc(k - 1, statistic / correction)) > UNLIKELY

    def scatter(self) -> tuple[float, int]:
        """Estimate the variance of one value about the mean of its batch size.

        Where every seed has every batch size, what a seed adds to all of them is taken out: it moves no difference.

        Returns:
            The variance and its degrees of freedom; (nan, 0) where no batch size has two values.
        """
        rest = self.values - self.means
        degrees = self.n - len(self.sizes)
        if self.complete:
            rest = rest - rest.mean(axis=1, keepdims=True)
            degrees = (len(self.values) - 1) * (len(self.sizes) - 1)
        if degrees <= 0:
            return float("nan"), 0
        return sum_of_squares(rest[np.isfinite(rest)]) / degrees, degrees

    def part(self, keep: npt.NDArray[np.bool_]) -> "SeedTable":
        """Keep some of the batch sizes."""
        return SeedTable(self.sizes[keep], self.values[:, keep], self.paired)


def seed_table(sizes: npt.ArrayLike, values: npt.ArrayLike, seeds: npt.ArrayLike | None = None) -> SeedTable:
    """Make the table of observations.

    Args:
        sizes: batch size of each observation, > 0, shape (n,).
        values: what was observed, shape (n,).
        seeds: of the runs, shape (n,), each at most once for a batch size; None: observations are not paired.

    Returns:
        The table.

    Raises:
        BadInput: the vectors do not fit each other, a size is not positive, a value is not finite, there is none, or a
            seed occurs twice at a batch size.
    """
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise BadInput(f"batch sizes have shape {x.shape} and values {y.shape}; give two vectors of equal length")
    if not (np.isfinite(x).all() and (x > 0).all()):
        raise BadInput(f"batch sizes hold {x.min():g}; give positive numbers")
    if not np.isfinite(y).all():
        raise BadInput("values hold a number that is not finite; leave out runs that diverged")
    names = turns(x) if seeds is None else np.asarray(seeds)
    if names.shape != x.shape:
        raise BadInput(f"seeds have shape {names.shape} and batch sizes {x.shape}; give one seed for each")
    columns, column = np.unique(x, return_inverse=True)
    rows, row = np.unique(names, return_inverse=True)
    table = np.full((len(rows), len(columns)), np.nan)
    for i, j, value in zip(row, column, y, strict=True):
        if np.isfinite(table[i, j]):
            raise BadInput(f"seed {rows[i]} occurs twice at batch {columns[j]:g}; give one value for each")
        table[i, j] = value
    return SeedTable(columns, table, paired=seeds is not None)


def turns(x: Floats) -> npt.NDArray[np.int64]:
    """Number the occurrences of each value, shape (n,)."""
    return np.array([int((x[:i] == each).sum()) for i, each in enumerate(x)])
