"""SGD near a quadratic minimum: where it ends up spreading to, how fast, and up to which learning rate."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.least_squares import Floats
from gengap.theory.noise_scale import check_batch, check_rate
from gengap.theory.update_statistics import left_to_chance


@dataclass(frozen=True, slots=True)
class HeavyBall(Record):
    """SGD with momentum: v <- m v + gradient, w <- w - lr v. Plain SGD is m = 0.

    Attributes:
        lr: learning rate for the mean gradient of a batch, > 0.
        batch_size: B, samples in a batch.
        momentum: m, from 0 to below 1.
        samples: N, where batches are drawn without replacement from N samples; None where samples are independent.

    Raises:
        BadInput: a number is out of range.
    """

    lr: float
    batch_size: float = 1
    momentum: float = 0.0
    samples: int | None = None

    def __post_init__(self) -> None:
        check_rate(self.lr, self.momentum)
        if self.samples is not None:
            check_batch(self.batch_size, self.samples)
        elif not (math.isfinite(self.batch_size) and self.batch_size >= 1):
            raise BadInput(f"batch_size is {self.batch_size!r}; give a number of at least 1")

    @property
    def noise_share(self) -> float:
        """Variance of the gradient of a batch over that of a sample: 1/B, or (N - B) / (B (N - 1)) without replacement."""
        if self.samples is None:
            return 1 / self.batch_size
        return left_to_chance(self.batch_size, self.samples)


class Quadratic:
    """A minimum L(w) = (w - w0)' H (w - w0) / 2 with gradient noise that is the same everywhere.

    Attributes:
        curvatures: eigenvalues h of H, ascending, shape (P,).
        directions: its eigenvectors in columns, shape (P, P).
        covariance: of the gradient of one sample, shape (P, P).
    """

    def __init__(self, hessian: npt.ArrayLike, covariance: npt.ArrayLike) -> None:
        """Diagonalise the curvature.

        Args:
            hessian: H, positive definite, shape (P, P); a vector stands for a diagonal.
            covariance: of the gradient of one sample about its mean over samples, shape (P, P) or a diagonal.

        Raises:
            BadInput: one of them is not a symmetric matrix of finite numbers, H is not positive definite, or the
                covariance has a negative eigenvalue.
        """
        H, self.covariance = symmetric(hessian, "hessian"), symmetric(covariance, "covariance")
        if H.shape != self.covariance.shape:
            raise BadInput(f"hessian has shape {H.shape} and covariance {self.covariance.shape}; give equal shapes")
        self.curvatures, self.directions = np.linalg.eigh(H)
        if self.curvatures[0] <= 0:
            raise BadInput(
                f"hessian has an eigenvalue of {self.curvatures[0]:.4g}, and along it SGD spreads for ever; give the part of "
                "the Hessian that curves up"
            )
        lowest = float(np.linalg.eigvalsh(self.covariance)[0])
        if lowest < -1e-9 * float(np.trace(self.covariance)):
            raise BadInput(f"covariance has an eigenvalue of {lowest:.4g}; variances are at least 0")

    def excess(self, displacements: Floats) -> Floats:
        """Return L - L_min at displacements from the minimum, shape (..., P) -> (...)."""
        return np.asarray(0.5 * ((displacements @ self.directions) ** 2 @ self.curvatures))


@dataclass(frozen=True, slots=True)
class StationaryState(Record):
    """What SGD settles to around a quadratic minimum.

    Attributes:
        covariance: of the weights about the minimum, exact at this learning rate, shape (P, P).
        excess_loss: E[L] - L_min = tr(H covariance) / 2, exact.
        limit_covariance: that of the Ornstein-Uhlenbeck process, the limit of small learning rates.
        limit_excess_loss: lr tr(noise) / (4 B (1 - m)), its excess loss, which no longer depends on H.
        relaxation_steps: updates in which the slowest memory of the start falls by a factor e.
        stability_limit: learning rate from which there is no stationary state.
    """

    covariance: Floats
    excess_loss: float
    limit_covariance: Floats
    limit_excess_loss: float
    relaxation_steps: float
    stability_limit: float

    def __str__(self) -> str:
        return (
            f"excess loss {self.excess_loss:.4g} ({self.limit_excess_loss:.4g} for small learning rates), reached in about "
            f"{self.relaxation_steps:.4g} updates; stable below lr {self.stability_limit:.4g}"
        )


def stationary_state(minimum: Quadratic, rule: HeavyBall) -> StationaryState:
    r"""Compute the stationary state of SGD on a quadratic, exactly and in the limit of small learning rates.

    In the eigenbasis of H, with x = lr h and the covariance S of the noise of a batch, the pair (i, j) of

    .. math::
        w_{t+1} = (1 + m - x) w_t - m w_{t-1} - \varepsilon \xi_t \quad \text{has} \quad
        \langle w_i w_j \rangle = \frac{\varepsilon^2 (1 - m^2) S_{ij}}
        {(1 - m)^2 [(1 + m)(x_i + x_j) - x_i x_j] + m (x_i - x_j)^2}.

    For small x this is :math:`\varepsilon S_{ij} / ((1 - m)(h_i + h_j))`, the Ornstein-Uhlenbeck process, and
    :math:`E[L] - L_{min} = \frac{\varepsilon}{4 B (1 - m)} \mathrm{tr}\,\Sigma` whatever H is: learning rate, batch size
    and gradient variance are the three factors.

    Costs one eigendecomposition of H, already made.

    Args:
        minimum: its curvature, and the covariance Sigma of the gradient of one sample.
        rule: how SGD moves.

    Returns:
        Both forms with the time to get there.

    Raises:
        BadInput: the learning rate is at or above the stability limit.

    Source:
        Jastrzebski et al. 2017, arXiv:1711.04623 (limit); Mandt, Hoffman & Blei 2017, arXiv:1704.04289
        (Ornstein-Uhlenbeck); the exact form solves the second-order recursion above.
    """
    h, V, m = minimum.curvatures, minimum.directions, rule.momentum
    limit = check_stable(minimum, rule)
    noise = rule.noise_share * (V.T @ minimum.covariance @ V)
    x = rule.lr * h
    total = x[:, None] + x
    pull = (1 - m) ** 2 * ((1 + m) * total - np.outer(x, x)) + m * np.subtract.outer(x, x) ** 2
    exact = rule.lr**2 * (1 - m * m) * noise / pull
    small = rule.lr**2 * noise / ((1 - m) * total)
    return StationaryState(
        covariance=V @ exact @ V.T,
        excess_loss=float(h @ np.diag(exact)) / 2,
        limit_covariance=V @ small @ V.T,
        limit_excess_loss=rule.lr * rule.noise_share * float(np.trace(minimum.covariance)) / (4 * (1 - m)),
        relaxation_steps=max(relaxation_steps(c, rule.lr, rule.momentum) for c in (float(h[0]), float(h[-1]))),
        stability_limit=limit,
    )


def stability_limit(curvature: float, momentum: float = 0.0) -> float:
    """Return the learning rate 2 (1 + m) / h, at and above which a quadratic of curvature h is left for good.

    Args:
        curvature: h, the largest of the Hessian, > 0.
        momentum: m of heavy-ball SGD.

    Returns:
        The limit; with curvature in nats per squared weight, a learning rate for the mean gradient.

    Raises:
        BadInput: a number is out of range.
    """
    check_rate(1.0, momentum)
    if not (math.isfinite(curvature) and curvature > 0):
        raise BadInput(f"curvature is {curvature!r}; give a positive number, the largest eigenvalue of the Hessian")
    return 2 * (1 + momentum) / curvature


def relaxation_steps(curvature: float, lr: float, momentum: float = 0.0) -> float:
    """Return in how many updates the distance from a quadratic minimum falls by a factor e.

    Args:
        curvature: h along one direction, > 0.
        lr: learning rate.
        momentum: m.

    Returns:
        -1 / ln r, with r the larger root of z^2 - (1 + m - lr h) z + m in absolute value; near (1 - m) / (lr h) for small
        learning rates, 0 where one update lands in the minimum, and infinite from the stability limit on.

    Raises:
        BadInput: a number is out of range.
    """
    check_rate(lr, momentum)
    if lr >= stability_limit(curvature, momentum):
        return math.inf
    a = 1 + momentum - lr * curvature
    split = a * a - 4 * momentum
    radius = math.sqrt(momentum) if split < 0 else (abs(a) + math.sqrt(split)) / 2
    return -1 / math.log(radius) if radius else 0.0


@dataclass(frozen=True, slots=True)
class Simulated(Record):
    """Many runs of SGD on one quadratic.

    Attributes:
        displacements: of the weights from the minimum at the end, shape (K, P).
        steps: updates done at the moments that were recorded, shape (T,).
        excess_losses: L - L_min of every run there, shape (T, K).
    """

    displacements: Floats
    steps: npt.NDArray[np.int64]
    excess_losses: Floats


def simulate_sgd(
    minimum: Quadratic,
    rule: HeavyBall,
    *,
    steps: int,
    runs: int = 1000,
    start: npt.ArrayLike | None = None,
    records: int = 20,
    seed: int = 0,
) -> Simulated:
    """Run SGD on a quadratic with Gaussian gradient noise, many runs at once.

    Args:
        minimum: the quadratic.
        rule: how SGD moves; a learning rate above the stability limit is run as well, and diverges.
        steps: updates, >= 1.
        runs: K, side by side and independent.
        start: displacement from the minimum at the beginning, shape (P,) or (K, P); zero if left out.
        records: moments at which losses are kept, evenly spaced, the last at the end.
        seed: of the noise.

    Returns:
        End points and losses. Costs steps times K times P^2 multiplications and memory for three (K, P).

    Raises:
        BadInput: a number of steps, runs or records is not positive, or start has another shape.
    """
    if min(steps, runs, records) < 1:
        raise BadInput(f"steps is {steps!r}, runs {runs!r} and records {records!r}; give at least 1 of each")
    P = len(minimum.curvatures)
    rng = np.random.default_rng(stream(seed, "sgd on a quadratic"))
    hessian = (minimum.directions * minimum.curvatures) @ minimum.directions.T
    root = math.sqrt(rule.noise_share) * square_root(minimum.covariance)
    v = np.zeros((runs, P))
    begin = np.zeros(P) if start is None else np.asarray(start, dtype=np.float64)
    if begin.shape not in {(P,), (runs, P)}:
        raise BadInput(f"start has shape {begin.shape}; give ({P},) or ({runs}, {P})")
    when = np.unique(np.ceil(np.linspace(0, steps, records + 1)[1:]).astype(np.int64))
    w, losses, due = v + begin, [], set(when.tolist())
    for t in range(1, steps + 1):
        v = rule.momentum * v + w @ hessian + rng.standard_normal((runs, P)) @ root
        w = w - rule.lr * v
        if t in due:
            losses.append(minimum.excess(w))
    return Simulated(w, when, np.stack(losses))


def check_stable(minimum: Quadratic, rule: HeavyBall) -> float:
    """Refuse a learning rate with which SGD leaves the minimum.

    Args:
        minimum: the quadratic.
        rule: how SGD moves.

    Returns:
        The stability limit.

    Raises:
        BadInput: the learning rate is not below it.
    """
    limit = stability_limit(float(minimum.curvatures[-1]), rule.momentum)
    if rule.lr >= limit:
        raise BadInput(
            f"lr is {rule.lr!r}, but with curvature {minimum.curvatures[-1]:.4g} and momentum {rule.momentum!r} SGD leaves the "
            f"minimum from {limit:.4g} on; lower it"
        )
    return limit


def symmetric(matrix: npt.ArrayLike, name: str) -> Floats:
    """Take a symmetric matrix, or a vector as its diagonal.

    Args:
        matrix: shape (P, P) or (P,).
        name: what to call it.

    Returns:
        The matrix in float64, shape (P, P).

    Raises:
        BadInput: it is neither, or holds what is not finite.
    """
    found = np.asarray(matrix, dtype=np.float64)
    found = np.diag(found) if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not found.size:
        raise BadInput(f"{name} has shape {found.shape}; give a square matrix, or a vector for a diagonal one")
    if not np.isfinite(found).all():
        raise BadInput(f"{name} holds {int((~np.isfinite(found)).sum())} numbers that are not finite")
    if not np.allclose(found, found.T, rtol=1e-8, atol=1e-12 * float(np.abs(found).max())):
        raise BadInput(f"{name} is not symmetric; give (A + A.T) / 2 if rounding did that")
    return np.asarray((found + found.T) / 2)


def square_root(covariance: Floats) -> Floats:
    """Return the symmetric root of a covariance; what rounding put below zero is zero."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
