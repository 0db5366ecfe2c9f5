"""The loss as a random potential: how its spread grows with the distance."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.least_squares import Floats, r_squared, straight_line

About = Literal["line", "mean", "zero"]
Counts = npt.NDArray[np.intp]

LEAST_IN_BIN = 5  # directions
LEAST_BINS = 3
ROUNDS = 100  # of the search for the exponent; three to ten are usual


@dataclass(frozen=True, slots=True)
class Bin(Record):
    """The draws of one range of distances.

    Attributes:
        low: smallest distance that belongs to it.
        high: largest distance.
        distance: the distance it stands for: the power mean of its draws with exponent 2 gamma, at which a potential of
            this exponent has the spread of the bin.
        spread: standard deviation of the loss differences about `about`, nats per sample.
        mean: their mean, nats per sample.
        n: number of draws.
    """

    low: float
    high: float
    distance: float
    spread: float
    mean: float
    n: int


@dataclass(frozen=True, slots=True)
class RoughnessFit(Record):
    """The law spread = factor distance^gamma.

    Attributes:
        gamma: the exponent.
        interval: its 95 % interval, percentiles of a bootstrap over directions.
        stderr: standard deviation of the bootstrap.
        alpha: 2 gamma, the exponent of the squared difference of the loss.
        factor: spread at distance 1, nats per sample.
        r_squared: of the line through the logarithms; low, no power law fits.
        bins: those that were used, by distance.
        n: number of draws in them.
        left_out: number of draws outside the edges, or in bins of fewer than five directions.
        directions: how many independent groups the draws fall into.
        about: what spreads were measured from: "line", "mean" or "zero".
    """

    gamma: float
    interval: tuple[float, float]
    stderr: float
    alpha: float
    factor: float
    r_squared: float | None
    bins: tuple[Bin, ...]
    n: int
    left_out: int
    directions: int
    about: About

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"spread of the loss = {self.factor:.4g} distance^{self.gamma:.4g} (exponent 95 % {low:.4g} to {high:.4g}), "
            f"alpha {self.alpha:.4g} (n={self.n} in {len(self.bins)} bins)"
        )


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws with the bin and the direction of each, both numbered from 0."""

    distance: Floats
    loss: Floats
    bin: Counts
    direction: Counts
    bins: int

    def at(self, rows: Counts) -> "Draws":
        """Take some of them, with repetition."""
        return Draws(self.distance[rows], self.loss[rows], self.bin[rows], self.direction[rows], self.bins)


def fit_roughness(
    distances: npt.ArrayLike,
    loss_differences: npt.ArrayLike,
    bins: int | npt.ArrayLike = 10,
    *,
    groups: npt.ArrayLike | None = None,
    about: About = "line",
    resamples: int = 1000,
    seed: int = 0,
) -> RoughnessFit:
    r"""Fit the exponent with which the spread of L(w) - L(w_0) grows with ||w - w_0||.

    A random potential has E (L(w_1) - L(w_2))^2 ~ ||w_1 - w_2||^alpha, and a walker in it moves as (ln t)^(2 / alpha). The
    standard deviation in bins of the distance is fitted by factor distance^gamma, gamma = alpha / 2, as a line through the
    logarithms in which a bin of n draws has the weight n - 1.

    Args:
        distances: ||w - w_0|| of each draw, > 0, shape (n,).
        loss_differences: L(w) - L(w_0) of each draw, nats per sample, shape (n,).
        bins: how many, each with as many draws as the next, or their edges, ascending.
        groups: a label of the direction that each draw lies on, shape (n,), where several draws share one: they are
            resampled together. Left out, every draw has a direction of its own.
        about: what the spread of a bin is measured from. "line": from a straight line in the distance, so that a loss that
            rises in all directions alike is no spread, however wide the bin. "mean": the plain standard deviation of a
            bin. "zero": root mean square, as the potential is defined, which counts such a rise as spread.
        resamples: of the bootstrap, >= 100.
        seed: of the resampling.

    Returns:
        The exponent with its interval, and the bins. The interval is over directions from one w_0 of one network. Costs
        `resamples` passes over the draws.

    Raises:
        BadInput: an option is unknown, the two do not fit each other, a distance is not positive, a number is not finite,
            fewer than three bins hold draws on five directions, or the loss does not vary in a bin.

    Source:
        Hoffer et al. 2017, arXiv:1705.08741, section 3 (alpha = 2 measured); the theory of such walks: Bouchaud & Georges
        1990, Physics Reports 195, 127.
    """
    if resamples < 100:
        raise BadInput(f"resamples is {resamples!r}; percentiles need at least 100")
    if about not in get_args(About):
        raise BadInput(f"about is {about!r}; choose one of {', '.join(get_args(About))}")
    given = take(distances, loss_differences, groups)
    drawn, edges = binned(given, bins)
    spread, mean, n = spreads(drawn, about)
    if not (spread > 0).all():
        raise BadInput("the loss does not vary in a bin; its differences may be below the resolution of the dtype")
    line = power_line(drawn, spread, n)
    repeats = bootstrap(drawn, about, resamples, near=line.gamma, seed=seed)
    low, high = np.percentile(repeats, [2.5, 97.5]).tolist()
    rows = zip(edges.tolist(), line.distance.tolist(), spread.tolist(), mean.tolist(), n.tolist(), strict=True)
    return RoughnessFit(
        gamma=line.gamma,
        interval=(low, high),
        stderr=float(repeats.std(ddof=1)),
        alpha=2 * line.gamma,
        factor=math.exp(line.log_factor),
        r_squared=r_squared(np.log(spread), np.log(spread) - (line.log_factor + line.gamma * np.log(line.distance))),
        bins=tuple(Bin(*edge, *numbers) for edge, *numbers in rows),
        n=len(drawn.loss),
        left_out=len(given.loss) - len(drawn.loss),
        directions=len(np.unique(drawn.direction)),
        about=about,
    )


def take(distances: npt.ArrayLike, differences: npt.ArrayLike, groups: npt.ArrayLike | None) -> Draws:
    """Take draws that have no bin yet.

    Args:
        distances: of each draw.
        differences: of the loss.
        groups: labels of directions, or None.

    Returns:
        The draws, all in bin 0.

    Raises:
        BadInput: they cannot be used; one sentence.
    """
    z, y = np.asarray(distances, dtype=np.float64), np.asarray(differences, dtype=np.float64)
    if z.ndim != 1 or z.shape != y.shape:
        raise BadInput(
            f"distances has shape {z.shape} and loss_differences {y.shape}; give two vectors of equal length"
        )
    if not (np.isfinite(z).all() and np.isfinite(y).all()):
        bad = int((~(np.isfinite(z) & np.isfinite(y))).sum())
        raise BadInput(f"{bad} of {len(z)} draws are not finite; draw within a smaller distance")
    if (z <= 0).any():
        raise BadInput(f"distances holds {z.min():g}; leave out draws at the start itself")
    labels = np.arange(len(z)) if groups is None else np.asarray(groups)
    if labels.shape != z.shape:
        raise BadInput(f"groups has shape {labels.shape} and distances {z.shape}; give one label for each draw")
    return Draws(z, y, np.zeros(len(z), dtype=np.intp), np.unique(labels, return_inverse=True)[1], 1)


def binned(draws: Draws, bins: int | npt.ArrayLike) -> tuple[Draws, Floats]:
    """Sort draws into bins and keep those of bins that are full enough.

    Args:
        draws: all of them.
        bins: how many, or their edges.

    Returns:
        The draws that are kept, and the edges of the bins that are, shape (bins, 2).

    Raises:
        BadInput: there are too few full bins.
    """
    edges = bin_edges(draws.distance, bins)
    index = np.searchsorted(edges, draws.distance, side="right") - 1
    index[draws.distance == edges[-1]] = max(len(edges) - 2, 0)
    inside = (index >= 0) & (index < len(edges) - 1)
    # a bin of few directions could come out empty in the bootstrap
    pairs = np.unique(np.stack([index[inside], draws.direction[inside]]), axis=1)
    full = np.bincount(pairs[0], minlength=len(edges) - 1) >= LEAST_IN_BIN
    if full.sum() < LEAST_BINS:
        raise BadInput(
            f"{int(full.sum())} of {len(full)} bins hold draws on at least {LEAST_IN_BIN} directions, but a line needs "
            f"{LEAST_BINS} such bins; make more draws than {len(index)}, or fewer bins"
        )
    rows = np.flatnonzero(inside)[full[index[inside]]]
    number = np.cumsum(full) - 1
    kept = Draws(draws.distance[rows], draws.loss[rows], number[index[rows]], draws.direction[rows], int(full.sum()))
    return kept, np.stack([edges[:-1], edges[1:]], axis=1)[full]


def bin_edges(distance: Floats, bins: int | npt.ArrayLike) -> Floats:
    """Give the edges of bins.

    Args:
        distance: of the draws.
        bins: how many, each with as many draws as the next, or the edges themselves.

    Returns:
        Ascending edges.

    Raises:
        BadInput: `bins` is neither a whole number above 0 nor ascending edges.
    """
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim == 0 and edges >= 1 and edges == np.floor(edges):
        edges = np.unique(np.quantile(distance, np.linspace(0, 1, int(edges) + 1)))
    elif edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise BadInput(f"bins is {bins!r}; give a number of bins, or ascending edges")
    return edges


def spreads(draws: Draws, about: About) -> tuple[Floats, Floats, Counts]:
    """Return spread, mean and number of the draws in each bin; the spread of too few to have one is 0."""
    n = np.bincount(draws.bin, minlength=draws.bins)

    def per_bin(values: Floats) -> Floats:
        return np.bincount(draws.bin, values, draws.bins) / np.maximum(n, 1)

    mean = per_bin(draws.loss)
    away, used = draws.loss, np.zeros(draws.bins)
    if about != "zero":
        away, used = away - mean[draws.bin], used + 1
    if about == "line":
        moved = draws.distance - per_bin(draws.distance)[draws.bin]
        room = per_bin(moved**2)
        slope = per_bin(moved * away) / np.where(room > 0, room, 1.0)
        away, used = away - slope[draws.bin] * moved, used + (room > 0)
    return np.sqrt(per_bin(away**2) * n / np.maximum(n - used, 1)), mean, n


@dataclass(frozen=True, slots=True)
class Line:
    """ln spread = log_factor + gamma ln distance, with the distance that each bin stands for."""

    gamma: float
    log_factor: float
    distance: Floats


def power_line(draws: Draws, spread: Floats, n: Counts, near: float = 1.0, close: float = 1e-10) -> Line:
    """Return the line through the logarithms of the spreads, its exponent sought from `near` until it stands still."""
    # the variance of a bin is the mean of factor^2 z^(2 gamma) over its draws, so the distance that it stands for depends
    # on gamma; with the middle of the bin instead, a wide first bin would tilt the line
    logs, spread_logs, gamma = np.log(draws.distance), np.log(spread), near
    for _ in range(ROUNDS):
        centre = power_mean(logs, draws, 2 * gamma, n)
        slope, level = straight_line(centre, spread_logs, (n - 1).astype(np.float64))
        step, gamma = abs(slope - gamma), slope
        if step < close:
            break
    return Line(gamma, level, np.exp(centre))


def power_mean(logs: Floats, draws: Draws, order: float, n: Counts) -> Floats:
    """Return the logarithm of the power mean of the distances in each bin."""
    level = np.bincount(draws.bin, logs, draws.bins) / n
    if abs(order) < 1e-6:
        return level
    away = np.exp(order * (logs - level[draws.bin]))
    return level + np.log(np.bincount(draws.bin, away, draws.bins) / n) / order


def bootstrap(draws: Draws, about: About, resamples: int, *, near: float, seed: int) -> Floats:
    """Return the exponents of resampled directions; a resample that leaves a bin without spread is drawn again."""
    rng = np.random.default_rng(stream(seed, "roughness"))
    order = np.argsort(draws.direction, kind="stable")
    names, first = np.unique(draws.direction[order], return_index=True)
    members = np.split(order, first[1:])
    found: list[float] = []
    while len(found) < resamples:
        chosen = rng.integers(len(names), size=len(names))
        alone = len(names) == len(order)
        again = draws.at(order[chosen] if alone else np.concatenate([members[i] for i in chosen]))
        spread, _, n = spreads(again, about)
        if (n > 1).all() and (spread > 0).all():
            found.append(power_line(again, spread, n, near, close=1e-3).gamma)
    return np.array(found)
