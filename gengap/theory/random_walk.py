"""A walker on a random potential: the farther it has come, the higher the barriers, so it moves ever more slowly."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_banded

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.least_squares import Floats

EDGE = 0.01  # share of the walkers that may be in the outer tenth of the line; later times are left out
FIRST, STEP = 0.1, 0.1  # implicit steps grow from a fiftieth to a tenth of the time so far


@dataclass(frozen=True, slots=True)
class UltraSlowWalk(Record):
    """The distance of walkers from their start over many decades of time, averaged over potentials.

    Attributes:
        times: t, in units in which a step without a barrier takes about 1, shape (T,).
        distances: mean over potentials of the root mean square distance, in sites, shape (T,).
        stderr: its standard error, shape (T,).
        alpha: E (V(x) - V(y))^2 = roughness^2 |x - y|^alpha.
        exponent: 2 / alpha, so that distance ~ (ln t)^exponent.
        potentials: over how many the mean is taken.
        left_out: times at the end that were left out because walkers felt the ends of the line.
    """

    times: Floats
    distances: Floats
    stderr: Floats
    alpha: float
    exponent: float
    potentials: int
    left_out: int


def ultra_slow_walk(
    times: npt.ArrayLike,
    *,
    alpha: float = 1.0,
    roughness: float = 2.0,
    sites: int = 1001,
    potentials: int = 100,
    seed: int = 0,
) -> UltraSlowWalk:
    r"""Walk on random potentials to times that no single walker could be followed to.

    The potential is fractional Brownian motion over a line of sites, :math:`E (V(x) - V(y))^2 = r^2 |x - y|^\alpha`. A walker
    steps to a neighbour at rate :math:`e^{-(V' - V)/2}`, which is Langevin motion at temperature 1. Instead of single
    walkers their density is followed, in implicit steps that grow with time.

    To come as far as d a barrier of about :math:`r\,d^{\alpha/2}` has to be climbed, which takes a time of
    :math:`\exp(r\,d^{\alpha/2})`. So :math:`d \sim (\ln t)^{2/\alpha}`, Sinai's walk for alpha = 1.

    Costs for each potential some 25 tridiagonal systems of `sites` for each decade of time: 20 ms for 1,001 sites and 12
    decades; and once a Cholesky factor of a (sites, sites) matrix.

    Args:
        times: moments t > 0, ascending, shape (T,); evenly spaced in ln t.
        alpha: exponent of the potential, above 0 and below 2, where it would be a slope and no potential to be trapped in.
        roughness: r > 0, standard deviation of a step of the potential in units of the temperature. Rougher potentials
            hold the walkers for more decades on the same line.
        sites: length of the line, odd, >= 11; walkers start in the middle.
        potentials: how many are drawn, >= 2.
        seed: of the potentials.

    Returns:
        The mean distance at the times at which hardly any walker has come near the ends.

    Raises:
        BadInput: an argument is out of range, or walkers reach the ends at the first time already.

    Source:
        Sinai 1982, Theory Probab. Appl. 27, 256; Bouchaud & Georges 1990, Phys. Rep. 195, 127; as a picture of training:
        Hoffer et al. 2017, arXiv:1705.08741, section 3.
    """
    t = np.asarray(times, dtype=np.float64)
    check_arguments(t, alpha, roughness, sites, potentials)
    away = np.abs(np.arange(sites) - sites // 2).astype(np.float64)
    found = np.empty((potentials, len(t)))
    outside = np.zeros(len(t))
    root = increments_root(sites, alpha)
    for k in range(potentials):
        rng = np.random.default_rng(stream(seed, "random potential", k))
        potential = np.concatenate([[0.0], np.cumsum(roughness * (root @ rng.standard_normal(sites - 1)))])
        density = densities(potential, t)
        found[k] = np.sqrt(density @ away**2)
        outside += density @ (away > 0.9 * (sites // 2)) / potentials
    inside = int(np.argmax(outside > EDGE)) if (outside > EDGE).any() else len(t)
    if not inside:
        raise BadInput(
            f"walkers reach the ends of {sites} sites before t = {t[0]:.3g}; give more sites or earlier times"
        )
    stderr = found[:, :inside].std(axis=0, ddof=1) / math.sqrt(potentials)
    distances = found[:, :inside].mean(axis=0)
    return UltraSlowWalk(t[:inside], distances, stderr, alpha, 2 / alpha, potentials, len(t) - inside)


def increments_root(sites: int, alpha: float) -> Floats:
    """Return a root of the covariance of the steps of fractional Brownian motion, shape (sites - 1, sites - 1)."""
    lag = np.abs(np.subtract.outer(np.arange(sites - 1), np.arange(sites - 1))).astype(np.float64)
    covariance = 0.5 * (np.abs(lag + 1) ** alpha + np.abs(lag - 1) ** alpha - 2 * lag**alpha)
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def densities(potential: Floats, times: Floats) -> Floats:
    """Return where walkers from the middle are at each time, shape (T, sites).

    Implicit steps in time cannot make a density negative, however long they are; their lengths grow with time.

    Args:
        potential: V at each site, in units of the temperature.
        times: t, ascending, shape (T,).

    Returns:
        The solution of the master equation with rates exp((V_here - V_there) / 2) between neighbours.
    """
    right, left = np.exp(-np.diff(potential) / 2), np.exp(np.diff(potential) / 2)
    leave = np.append(right, 0.0) + np.append(0.0, left)
    density = np.zeros(len(potential))
    density[len(potential) // 2] = 1.0
    found, now = np.empty((len(times), len(potential))), 0.0
    for i, until in enumerate(times):
        for step in growing_steps(now, float(until)):
            matrix = np.zeros((3, len(potential)))
            matrix[0, 1:], matrix[1], matrix[2, :-1] = -step * left, 1 + step * leave, -step * right
            density = solve_banded((1, 1), matrix, density)
            density /= density.sum()  # conserved, but for rounding
        found[i], now = density, float(until)
    return found


def growing_steps(now: float, until: float) -> Floats:
    """Cut a stretch of time into steps of a tenth of the time so far, and of a fiftieth at first."""
    first = max(now, FIRST)
    count = math.ceil(max(math.log(until / first), 0.0) / STEP) + 1
    ends = np.geomspace(first, until, count) if until > first else np.array([until])
    lead = np.linspace(now, ends[0], 6) if now < FIRST else np.array([now])
    return np.diff(np.unique(np.concatenate([lead, ends])))


def check_arguments(times: Floats, alpha: float, roughness: float, sites: int, potentials: int) -> None:
    """Refuse what cannot be walked on.

    Args:
        times: moments.
        alpha: exponent of the potential.
        roughness: its scale.
        sites: length of the line.
        potentials: how many.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    if (
        times.ndim != 1
        or not len(times)
        or not (times[0] > 0 and (np.diff(times) > 0).all() and np.isfinite(times).all())
    ):
        raise BadInput(f"times has shape {times.shape}; give a vector of ascending moments above 0")
    if not (0 < alpha < 2 and 0 < roughness < math.inf):
        raise BadInput(f"alpha is {alpha!r} and roughness {roughness!r}; give 0 < alpha < 2 and a positive roughness")
    if sites < 11 or sites % 2 == 0 or potentials < 2:
        raise BadInput(
            f"sites is {sites!r} and potentials {potentials!r}; give an odd number of at least 11, and at least 2"
        )
