"""What the evidence needs of a Hessian: sums over its eigenvalues, from all of them or estimated."""

import math
from typing import Protocol

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, solve_banded
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import mean
from gengap.core.events import Listener, Progress
from gengap.core.seeds import stream
from gengap.measures.curvature.eigenvalues import random_start
from gengap.measures.curvature.operators import Operator
from gengap.measures.curvature.quadrature import Rule, Vector, signs, tridiagonal
from gengap.measures.evidence.deflation import outliers
from gengap.measures.trees import norm
from gengap.theory.evidence import Curvature, Rule as Which, curvature_from_eigenvalues

PROBING = 20  # products for the Newton step, where the Hessian is not written out


class Spectrum(Protocol):
    """What is known of the Hessian of H, the loss summed over labels."""

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue found."""
        ...

    def curvature(self, l2: float, rule: Which) -> tuple[Curvature, float | None]:
        """Return what the evidence needs, and how far a finite number of steps may have moved the Occam term."""
        ...

    def newton_drop(self, slope: Tensor, l2: float) -> float:
        """Return half of slope' (H + l2)^-1 slope, over the directions in which C curves up."""
        ...


class Summed:
    """The Hessian of the summed loss: that of the mean, times the number of labels."""

    def __init__(self, operator: Operator, labels: int) -> None:
        self._operator, self._labels, self.products = operator, labels, 0
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply a vector of shape (P,).

        Args:
            vector: of the dtype and on the device of the weights.

        Returns:
            The product.

        Raises:
            FloatingPointError: it is not finite.
        """
        self.products += 1
        found = self._operator(vector) * self._labels
        if not math.isfinite(float(found.sum())):
            raise FloatingPointError("a product with the second derivative is not finite; look for overflow at params")
        return found


class Written:
    """All eigenvalues, of a Hessian that is written out column by column."""

    def __init__(self, operator: Operator, listen: Listener) -> None:
        P = operator.size
        matrix = torch.empty(P, P, dtype=torch.float64)
        unit = torch.zeros(P, dtype=operator.dtype, device=operator.device)
        for i in range(P):
            unit.zero_()[i] = 1
            matrix[i] = operator(unit).double().cpu()
            listen(Progress("evidence", i + 1, P, "products"))
        values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
        self._values, self._vectors = values.numpy(), vectors.numpy()
        self.range = float(self._values[0]), float(self._values[-1])

    def curvature(self, l2: float, rule: Which) -> tuple[Curvature, float | None]:
        """Sum up all eigenvalues."""
        return curvature_from_eigenvalues(self._values + l2, l2, rule=rule), None

    def newton_drop(self, slope: Tensor, l2: float) -> float:
        """Solve in the basis of the eigenvectors."""
        along, bent = self._vectors.T @ slope.cpu().numpy(), self._values + l2
        return float(0.5 * np.sum(along[bent > 0] ** 2 / bent[bent > 0]))


class Sampled:
    """Sums over eigenvalues: the outermost one by one, the others estimated from random starts.

    Where the Hessian has no negative eigenvalue, Gauss's rule gives too much of ln(1 + h / l2) and the rule of Gauss and Radau,
    one of whose nodes is put at 0, too little (Golub & Meurant 1994). The middle of the two is taken, and half of the gap
    is the bound of what the finite number of steps does to it. Both converge the faster the smaller the largest eigenvalue
    is beside l2, and outliers would scatter the starts: so those that can be had are taken out.

    Args:
        operator: the Hessian.
        l2: the smallest precision of a prior.
        steps: products of each start.
        starts: random starts.
        directions: products to find the outermost eigenvalues with; 0 leaves them in.
        seed: of all random vectors.
        listen: is told after every product.

    Attributes:
        range: smallest and largest eigenvalue found.
        known: how many eigenvalues were taken out.
    """

    def __init__(
        self, operator: Operator, l2: float, *, steps: int, starts: int, directions: int, seed: int, listen: Listener
    ) -> None:
        self._operator = operator
        first = random_start(operator, seed)
        self._outer, rest = outliers(operator, first, l2, directions=directions, listen=listen)
        self.known = len(self._outer)
        self._rules: list[tuple[float, Rule, Rule]] = []
        grain = torch.finfo(operator.dtype).eps
        for i in range(starts):

            def told(step: int, done: int = i * steps) -> None:
                listen(Progress("evidence", done + step, starts * steps, "products"))

            start = rest.orthogonal(signs(operator, stream(seed, "evidence", i)))
            diagonal, beside = tridiagonal(rest, start, steps, told)
            gauss = quadrature(diagonal, beside)
            low, high = gauss.nodes[0], max(np.abs(gauss.nodes).max(), self._outer.max(initial=0.0))
            whole = len(diagonal) < steps or steps >= operator.size  # nothing is left to be bounded
            below = min(0.0, low) - 100 * grain * high
            radau = gauss if whole else quadrature(*with_node(diagonal, beside, below))
            self._rules.append((norm(start) ** 2, gauss, radau))
        nodes = np.concatenate([self._outer, *(gauss.nodes for _, gauss, _ in self._rules)])
        self.range = float(nodes.min()), float(nodes.max())

    def curvature(self, l2: float, rule: Which) -> tuple[Curvature, float | None]:
        """Estimate the sums.

        Args:
            l2: precision of the prior.
            rule: as in `gengap.theory.evidence.curvature_from_eigenvalues`.

        Returns:
            The sums with their errors, and how far the finite number of steps may have moved the Occam term.

        Raises:
            BadInput: the rule is "all", and an eigenvalue of the Hessian of C is not positive.
        """
        lowest = self.range[0] + l2
        if rule == "all" and lowest <= 0:
            raise BadInput(
                f"the Hessian of C has an eigenvalue near {lowest:.4g}, so Laplace's integral does not exist there; train to "
                f"a minimum, raise l2, or take rule='at least l2'"
            )
        grain = 10 * torch.finfo(self._operator.dtype).eps * max(map(abs, self.range))
        some = rule == "at least l2" or (rule == "auto" and (self.range[0] < -grain or lowest <= 0))

        def entering(h: Vector) -> Vector:
            return np.maximum(h, 0 if some else min(0, self.range[0]))  # 0 adds nothing to either sum

        def terms(h: Vector) -> tuple[Vector, Vector]:
            return 0.5 * np.log1p(entering(h) / l2), entering(h) / (entering(h) + l2)

        known = np.array([term.sum() for term in terms(self._outer)])
        pairs = np.array([
            [[weight * rule.weights @ term for term in terms(rule.nodes)] for rule in (gauss, radau)]
            for weight, gauss, radau in self._rules
        ])  # (starts, rules, sums)
        occam, effective = (mean(column.tolist()) for column in (known + pairs.mean(1)).T)
        found = Curvature(
            occam=occam.value,
            stderr=occam.stderr,
            l2=l2,
            parameters=self._operator.size,
            rule="at least l2" if some else "all",
            smallest_eigenvalue=lowest,
            effective_parameters=effective.value,
            effective_stderr=effective.stderr,
        )
        return found, float(np.abs(pairs[:, 0, 0] - pairs[:, 1, 0]).mean() / 2)

    def newton_drop(self, slope: Tensor, l2: float) -> float:
        """Solve by Lanczos from the slope; Gauss's rule for 1/x gives less than the whole."""
        start = slope.to(self._operator.dtype)
        if not start.any():
            return 0.0
        rule = quadrature(*tridiagonal(self._operator, start, PROBING))
        bent = rule.nodes + l2
        up = bent > 0
        return 0.5 * float(slope @ slope) * float(rule.weights[up] @ (1 / bent[up]))


def quadrature(diagonal: Vector, beside: Vector) -> Rule:
    """Return Gauss's rule of a tridiagonal matrix."""
    nodes, turned = eigh_tridiagonal(diagonal, beside)
    return Rule(nodes, turned[0] ** 2)


def with_node(diagonal: Vector, beside: Vector, node: float) -> tuple[Vector, Vector]:
    """Change the last entry of a tridiagonal matrix so that it has a given eigenvalue below all others (Golub 1973)."""
    banded = np.zeros((3, len(diagonal) - 1))
    banded[0, 1:], banded[1], banded[2, :-1] = beside[:-1], diagonal[:-1] - node, beside[:-1]
    last = np.zeros(len(diagonal) - 1)
    last[-1] = beside[-1] ** 2
    moved = diagonal.copy()
    moved[-1] = node + solve_banded((1, 1), banded, last)[-1]
    return moved, beside
