"""Stochastic Lanczos quadrature: sums over all eigenvalues of an operator from a few random starts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, Progress, silent
from gengap.core.seeds import stream
from gengap.measures.curvature.operators import Operator
from gengap.measures.trees import dot, norm

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """The quadrature rule of one start.

    Attributes:
        nodes: ascending, shape (M,), M at most the number of steps.
        weights: non-negative, sum 1, shape (M,): the sum over nodes of weight times f is an unbiased estimate of the mean
            of f over eigenvalues, up to the error of the quadrature, which falls exponentially with M for smooth f.
    """

    nodes: Vector
    weights: Vector

    def mean(self, function: Callable[[Vector], Vector]) -> float:
        """Estimate the mean of a function over the eigenvalues."""
        return float(self.weights @ function(self.nodes))


def lanczos_quadrature(
    operator: Operator, *, steps: int, starts: int, seed: int, what: str = "spectrum", listen: Listener = silent
) -> list[Rule]:
    """Make a quadrature rule from each of several random starts.

    The vectors of a start are not orthogonalised against all that went before: in finite precision that repeats nodes
    and shares their weight out among the copies, and leaves the sums what they are (Greenbaum 1989; Chen 2024,
    arXiv:2407.21594). So three vectors are held, whatever the number of steps, and nothing but products costs time.

    Args:
        operator: multiplies vectors.
        steps: products for each start, >= 1.
        starts: random starts, >= 1.
        seed: of their signs.
        what: the task, for the listener.
        listen: told after every product.

    Returns:
        A rule for each start; their scatter is the error of what is computed with them.

    Source:
        Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. 38(4).
    """
    rules = []
    for i in range(starts):

        def told(step: int, done: int = i * steps) -> None:
            listen(Progress(what, done + step, starts * steps, "products"))

        diagonal, beside = tridiagonal(operator, signs(operator, stream(seed, "quadrature", i)), steps, told)
        nodes, turned = eigh_tridiagonal(diagonal, beside)
        rules.append(Rule(nodes, turned[0] ** 2))
    return rules


def tridiagonal(
    operator: Operator, start: Tensor, steps: int, told: Callable[[int], None] = lambda _: None
) -> tuple[Vector, Vector]:
    """Run the three-term recurrence of Lanczos.

    Args:
        operator: multiplies vectors.
        start: shape (P,), not zero.
        steps: products to make; fewer are made where the start spans an invariant subspace.
        told: called after every product.

    Returns:
        Diagonal, shape (M,), and off-diagonal, shape (M - 1,), of the tridiagonal matrix, in float64.
    """
    now, before = start / norm(start), torch.zeros_like(start)
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(min(steps, operator.size)):
        moved = operator(now)
        diagonal.append(dot(now, moved))
        moved = moved.sub_(now, alpha=diagonal[-1]).sub_(before, alpha=beside[-1] if beside else 0.0)
        moved.sub_(now, alpha=dot(now, moved))  # what rounding has left along the last vector
        length = norm(moved)
        told(step + 1)
        largest = max(map(abs, diagonal))
        if length <= 10 * torch.finfo(start.dtype).eps * max(largest, length):
            break
        beside.append(length)
        before, now = now, moved / length
    return np.array(diagonal), np.array(beside[: len(diagonal) - 1])


def signs(operator: Operator, seed: int) -> Tensor:
    """Draw a vector of random signs, shape (P,): the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, (operator.size,), generator=generator, dtype=torch.int8)
    return (2 * drawn - 1).to(operator.device, operator.dtype)


def mean_over_rules(rules: list[Rule], function: Callable[[Vector], Vector]) -> Estimate:
    """Estimate the mean of a function over the eigenvalues, with an interval from the scatter of the starts."""
    return mean([rule.mean(function) for rule in rules])
