"""Features brought to mean zero and unit covariance, for which one Gaussian prior on all weights is a fair one."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.theory.least_squares import Floats

Form = Literal["symmetric", "principal"]


@dataclass(frozen=True, slots=True)
class Whitening(Record):
    """A linear map to features with <z> = 0 and <z z'> = 1.

    Attributes:
        centre: mean of the features, shape (D,).
        forward: z = (x - centre) forward, shape (D, R).
        backward: x = centre + z backward, shape (R, D).
        variances: of the principal directions that were kept, descending, shape (R,).
        form: "symmetric" (z is as near to x as whitened features can be, R = D) or "principal" (z are principal components).
        left_out: directions in which the features do not vary, D - R.
    """

    centre: Floats
    forward: Floats
    backward: Floats
    variances: Floats
    form: Form
    left_out: int

    def apply(self, inputs: npt.ArrayLike) -> Floats:
        """Whiten features.

        Args:
            inputs: shape (N, D).

        Returns:
            Whitened features, shape (N, R).

        Raises:
            BadInput: the number of features is another.
        """
        x = np.asarray(inputs, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.centre):
            raise BadInput(f"inputs has shape {x.shape}; the whitening was made for (N, {len(self.centre)})")
        return np.asarray((x - self.centre) @ self.forward)

    def undo(self, whitened: npt.ArrayLike) -> Floats:
        """Return the features behind whitened ones, shape (N, R) -> (N, D); what was left out comes back as its mean."""
        return np.asarray(self.centre + np.asarray(whitened, dtype=np.float64) @ self.backward)


def whitening(inputs: npt.ArrayLike, *, form: Form = "symmetric", tolerance: float = 1e-16) -> Whitening:
    r"""Find the map that whitens features over their samples.

    In a model that is linear in its weights, y = w.z, the derivative of the output by a weight is a feature, so whitening
    gives :math:`\langle \partial y / \partial w_i \rangle = 0` and
    :math:`\langle \partial y / \partial w_i \, \partial y / \partial w_j \rangle = \delta_{ij}`: each weight has the same say,
    and a prior that treats them alike is plausible.

    Directions without variance cannot be whitened: they are left out, and not blown up.

    Args:
        inputs: samples of the features, shape (N, D), N >= 2.
        form: "symmetric" or "principal".
        tolerance: variance below which a direction is left out, relative to the largest.

    Returns:
        The map. Costs one singular value decomposition of (N, D).

    Raises:
        BadInput: inputs cannot be used, do not vary, or an option is out of range; for "symmetric" also where a direction
            has no variance, because its result then has none either.

    Source:
        Smith & Le 2018, arXiv:1710.06451, appendix A; Kessy, Lewin & Strimmer 2018, arXiv:1512.00809 (the two forms).
    """
    x = np.asarray(inputs, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] < 2 or not x.size or not np.isfinite(x).all():
        raise BadInput(f"inputs has shape {x.shape}; give a matrix of finite numbers with at least two samples")
    if form not in get_args(Form):
        raise BadInput(f"form is {form!r}; choose one of {', '.join(get_args(Form))}")
    if not 0 <= tolerance < 1:
        raise BadInput(f"tolerance is {tolerance!r}; give a share of the largest variance, from 0 to below 1")
    centre = x.mean(axis=0)
    _, singular, rows = np.linalg.svd(x - centre, full_matrices=False)
    variances = singular**2 / len(x)
    kept = variances > max(tolerance, len(x) * float(np.finfo(np.float64).eps) ** 2) * variances[0]
    D, R = x.shape[1], int(kept.sum())
    if not R:
        raise BadInput("the features are the same in every sample; there is nothing to whiten")
    if form == "symmetric" and R < D:
        raise BadInput(
            f"the features vary in {R} of {D} directions only; take form='principal', which leaves the others out"
        )
    scale, V = np.sqrt(variances[kept]), rows[kept]
    turn = V if form == "symmetric" else np.eye(R)
    return Whitening(centre, (V.T / scale) @ turn, (turn.T * scale) @ V, variances[kept], form, D - R)


@dataclass(frozen=True, slots=True)
class FeatureCheck(Record):
    """How far features are from mean zero and unit covariance.

    Attributes:
        largest_mean: largest |<z_i>|.
        variance_range: smallest and largest <z_i^2>.
        largest_correlation: largest |<z_i z_j>| for i != j, over the root of both mean squares; 0 for one feature.
    """

    largest_mean: float
    variance_range: tuple[float, float]
    largest_correlation: float


def check_features(features: npt.ArrayLike) -> FeatureCheck:
    """Measure how far features are from white.

    Args:
        features: shape (N, D).

    Returns:
        The largest departures.

    Raises:
        BadInput: they are no matrix of finite numbers.
    """
    z = np.asarray(features, dtype=np.float64)
    if z.ndim != 2 or not z.size or not np.isfinite(z).all():
        raise BadInput(f"features has shape {z.shape}; give a matrix of finite numbers")
    moments = z.T @ z / len(z)
    squares = np.diag(moments)
    size = np.sqrt(np.where(squares > 0, squares, 1.0))
    off = np.abs(moments / np.outer(size, size))
    np.fill_diagonal(off, 0.0)
    return FeatureCheck(
        float(np.abs(z.mean(axis=0)).max()),
        (float(squares.min()), float(squares.max())),
        float(off.max()),
    )
