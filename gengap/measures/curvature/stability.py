"""The largest learning rate at which gradient descent does not leave a minimum."""

import math
from dataclasses import dataclass

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.measures.curvature.eigenvalues import Eigenvalues


@dataclass(frozen=True, slots=True)
class StableLr(Record):
    """A bound on the learning rate.

    Attributes:
        value: the learning rate, per mean gradient.
        low: with the largest eigenvalue increased by its error: certainly stable, as far as the error is right.
        high: with the largest eigenvalue decreased by its error.
        momentum: heavy-ball coefficient, undamped.
        curvature: the largest eigenvalue of the Hessian.
        bound: "upper": for the loss as a quadratic, full batch; noise and growing curvature lower it.
    """

    value: float
    low: float
    high: float
    momentum: float
    curvature: float
    bound: str = "upper"

    def __str__(self) -> str:
        return f"stable up to lr {self.value:.4g} with momentum {self.momentum:g} (top curvature {self.curvature:.4g})"


def max_stable_lr(eigenvalues: Eigenvalues, *, momentum: float = 0.0) -> StableLr:
    r"""Bound the learning rate of full-batch gradient descent by the top curvature.

    .. math:: \eta_{max} = 2 (1 + m) / \lambda_{max}

    Args:
        eigenvalues: top eigenvalues of the Hessian; only the first is used.
        momentum: m of the heavy ball v = m v + g, w = w - lr v, 0 <= m < 1.

    Returns:
        The bound with the error of the eigenvalue carried over. Costs nothing.

    Raises:
        BadInput: the eigenvalues are of another end or matrix, there is no positive curvature, or momentum is out of range.

    Source:
        Polyak 1964; Cohen et al. 2021, arXiv:2103.00065.
    """
    if not (math.isfinite(momentum) and 0 <= momentum < 1):
        raise BadInput(f"momentum is {momentum!r}; give a number from 0 up to, but not, 1")
    if eigenvalues.which != "top" or eigenvalues.matrix != "hessian":
        raise BadInput(
            f"the bound needs top eigenvalues of the hessian, not {eigenvalues.which} ones of the {eigenvalues.matrix}"
        )
    top, error = eigenvalues.values[0], eigenvalues.errors[0]
    if top <= 0:
        raise BadInput(f"the largest eigenvalue is {top!r}; where nothing curves upwards no learning rate is bounded")
    scale = 2 * (1 + momentum)
    high = scale / (top - error) if top > error else math.inf
    return StableLr(scale / top, scale / (top + error), high, momentum, top)
