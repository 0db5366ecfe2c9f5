"""Observations over batch sizes and seeds as a table: its means, and what seeds alone scatter."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from gengap.core.errors import BadInput
from gengap.core.estimate import t_quantile
from gengap.theory.least_squares import Floats, sum_of_squares

UNLIKELY = 0.01  # of scatters that are the same
PRIOR = 2  # seeds' worth of trust in the scatter in between, where each batch size has its own


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

    @property
    def weights(self) -> Floats:
        """Weights of the means in a fit, shape (b,): the numbers of values, each over its own scatter where these are unlike.

        Few seeds tell a scatter badly. Each is drawn to the geometric mean of all, so that none makes its batch size decide.
        """
        own = self.variances()
        known = own[own > 0]
        if self.scatters_alike() or not len(known):
            return self.counts
        degrees, middle = np.maximum(self.counts - 1, 0), float(np.exp(np.log(known).mean()))
        shrunk = (degrees * np.nan_to_num(own) + PRIOR * middle) / (degrees + PRIOR)
        return np.asarray(self.counts * middle / shrunk)

    def variances(self) -> Floats:
        """Estimate the variance of one value of each batch size by itself.

        What a seed adds to all batch sizes is taken out by medians, which a batch size that scatters much does not move.

        Returns:
            Variances, shape (b,); nan where there is one value.
        """
        rest = self.values - self.means
        if self.complete:
            rest = rest - np.median(rest, axis=1, keepdims=True)
        found = np.full(len(self.sizes), np.nan)
        several = self.counts > 1
        found[several] = np.nanvar(rest[:, several], axis=0, ddof=1)
        return found

    def scatter_along(self, contrasts: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Estimate the variance of one value of unit weight, as it tells in contrasts of the means.

        Where batch sizes scatter alike that is the pooled one. Where they do not, it is what the contrast itself does from seed
        to seed, or as Welch and Satterthwaite have it.

        Args:
            contrasts: factors of the means that add up to zero in each row, shape (k, b), not all zero.

        Returns:
            Variances and degrees of freedom, each of shape (k,).
        """
        pooled, degrees = self.scatter()
        freedom = np.full(len(contrasts), degrees, dtype=np.int64)
        if self.scatters_alike():
            return np.full(len(contrasts), pooled), freedom
        if self.complete:
            variances = (self.values @ contrasts.T).var(axis=0, ddof=1) / len(self.values)
            freedom[:] = len(self.values) - 1
        else:
            own = self.variances()
            parts = contrasts**2 * np.where(np.isfinite(own), own, pooled) / self.counts
            variances = parts.sum(axis=1)
            freedom[:] = np.maximum(1, variances**2 / (parts**2 / np.maximum(self.counts - 1, 1)).sum(axis=1))
        return variances / (contrasts**2 / self.weights).sum(axis=1), freedom

    def errors(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Give standard errors of the means, of each by itself where batch sizes scatter unlike.

        What a seed adds to all batch sizes is left out, where every seed has every batch size; it moves no difference.

        Returns:
            Errors and degrees of freedom, each of shape (b,); (nan, 0) where no batch size has two values.
        """
        variance, degrees = self.scatter()
        error = np.sqrt(variance / self.counts)
        freedom = np.full(len(self.sizes), degrees, dtype=np.int64)
        if not self.scatters_alike():
            several = self.counts > 1
            error[several] = np.sqrt(self.variances()[several] / self.counts[several])
            freedom[several] = self.counts[several] - 1
        return error, freedom

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
        if len(variances) < 2 or not variances.any():
            return True
        # seeds that agree in all digits, as few test samples make them, are taken to scatter like the quietest of the others
        variances = np.where(variances > 0, variances, variances[variances > 0].min())
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


def room(errors: Floats, degrees: npt.NDArray[np.int64], level: float) -> Floats:
    """Return how far off chance alone may be, by Student's t at a two-sided level, shape (b,)."""
    return np.asarray(errors * [t_quantile(each, level) for each in degrees.tolist()])


def turns(x: Floats) -> npt.NDArray[np.int64]:
    """Number the occurrences of each value, shape (n,)."""
    return np.array([int((x[:i] == each).sum()) for i, each in enumerate(x)])
