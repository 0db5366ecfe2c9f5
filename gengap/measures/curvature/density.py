"""The density of all eigenvalues of the Hessian, smoothed, with an error band."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, silent
from gengap.core.records import Record
from gengap.measures.curvature.eigenvalues import MATRICES, Matrix
from gengap.measures.curvature.quadrature import Rule, Vector, lanczos_quadrature, mean_over_rules
from gengap.measures.protocols import Params, PlainFunction
from gengap.measures.records import Conditions
from gengap.measures.session import DEFAULT_LIMIT, Names, measuring

Row = tuple[float, ...]
MARGIN = 4.0  # kernel widths shown beyond the outermost nodes
DEFAULT_WIDTH = 0.01  # of the kernel, as a share of the range of the nodes


@dataclass(frozen=True, slots=True)
class Density(Record):
    """The smoothed share of eigenvalues per unit of eigenvalue.

    Attributes:
        grid: eigenvalues at which the density is given.
        density: mean over the starts, per unit of eigenvalue; integrates to 1.
        low: lower end of the 95 % band at each point (Student's t over starts, not below 0).
        high: upper end.
        width: standard deviation of the Gaussian that smooths; finer structure cannot be seen. The band is for the
            smoothed density: smoothing itself is no part of it.
        nodes: of each start, ascending: the ends are close to the outermost eigenvalues.
        node_weights: of each start; the share of eigenvalues around each node.
        trace: sum of the eigenvalues, from the same rules.
        squared_norm: sum of their squares (squared Frobenius norm).
        negative: share of eigenvalues below minus one kernel width.
        near_zero: share of eigenvalues within one kernel width of 0.
        steps: products of each start.
        starts: random starts.
        products: in all.
        matrix: "hessian" or "gauss-newton".
        conditions: what it was measured on and what it cost.
    """

    grid: Row
    density: Row
    low: Row
    high: Row
    width: float
    nodes: tuple[Row, ...]
    node_weights: tuple[Row, ...]
    trace: Estimate
    squared_norm: Estimate
    negative: Estimate
    near_zero: Estimate
    steps: int
    starts: int
    products: int
    matrix: Matrix
    conditions: Conditions

    def share_above(self, value: float) -> Estimate:
        """Estimate the share of eigenvalues above a value, unsmoothed."""
        rules = [Rule(np.array(n), np.array(w)) for n, w in zip(self.nodes, self.node_weights, strict=True)]
        return mean_over_rules(rules, lambda x: (x > value).astype(float))

    def __str__(self) -> str:
        low, high = min(n[0] for n in self.nodes), max(n[-1] for n in self.nodes)
        return (
            f"spectrum of the {self.matrix} from {low:.4g} to {high:.4g}: {100 * self.near_zero.value:.4g} % of "
            f"{self.conditions.weights:,} eigenvalues within {self.width:.2g} of 0, {100 * self.negative.value:.3g} % below, "
            f"trace {self.trace}; {self.products} products, {self.conditions}"
        )


def spectral_density(  # noqa: PLR0913 - options, by keyword only
    loss: PlainFunction,
    params: Params | Tensor,
    *,
    steps: int = 80,
    starts: int = 8,
    width: float | None = None,
    points: int = 400,
    matrix: Matrix = "hessian",
    seed: int = 0,
    only: Names = None,
    check: bool = True,
    memory_limit: str | int = DEFAULT_LIMIT,
    listen: Listener = silent,
) -> Density:
    """Estimate the density of the eigenvalues of the second derivative of `loss`.

    Each start gives a quadrature rule of `steps` nodes by Lanczos; the density is their mean, each node smeared by a Gaussian.
    Few steps blur the bulk, not the ends; few starts widen the band. A single eigenvalue weighs 1 / P: the outliers that
    matter are far below what the linear axis of a density shows, use the nodes or `gengap.top_eigenvalues` for them.

    Costs steps times starts products, and memory for three vectors as long as the weights.

    Args:
        loss: maps the weights, a dict from name to tensor, to a scalar tensor; deterministic, twice differentiable.
        params: the weights, by name or as one tensor; not modified.
        steps: products of each start, >= 2.
        starts: random starts, >= 2: their scatter is the error band.
        width: standard deviation of the smoothing Gaussian; by default a hundredth of the range of the nodes.
        points: grid points, >= 2.
        matrix: "hessian" or "gauss-newton"; the second needs a loss made of samples.
        seed: of the starts.
        only: patterns of names; the matrix is restricted to the weights they match.
        check: refuse a loss that is not deterministic.
        memory_limit: bytes for graphs, chunks and vectors.
        listen: is told after every product.

    Returns:
        The density with its band, and the rules it was made from.

    Raises:
        BadInput: an argument is out of range, or the loss cannot be used.
        FloatingPointError: a product is not finite.

    Source:
        Lin, Saad & Yang 2016, SIAM Review 58(1); Ghorbani, Krishnan & Xiao 2019, arXiv:1901.10159.
    """
    check_arguments(steps, starts, width, points, matrix)
    with measuring(
        loss, params, passes="product", vectors=4, only=only, check=check, memory_limit=memory_limit
    ) as session:
        operator = MATRICES[matrix](session)
        rules = lanczos_quadrature(
            operator, steps=steps, starts=starts, seed=seed, what="spectral density", listen=listen
        )
        if not all(np.isfinite(rule.nodes).all() for rule in rules):
            raise FloatingPointError("a product with the second derivative is not finite; look for overflow at params")
        grid, sigma = axis(rules, width, points)
        curves = [mean([smeared(rule, x, sigma) for rule in rules]) for x in grid]
        return Density(
            grid=tuple(map(float, grid)),
            density=tuple(c.value for c in curves),
            low=tuple(max(0.0, c.interval[0]) if c.interval else c.value for c in curves),
            high=tuple(c.interval[1] if c.interval else c.value for c in curves),
            width=sigma,
            nodes=tuple(tuple(map(float, rule.nodes)) for rule in rules),
            node_weights=tuple(tuple(map(float, rule.weights)) for rule in rules),
            trace=mean([operator.size * rule.mean(lambda x: x) for rule in rules]),
            squared_norm=mean([operator.size * rule.mean(np.square) for rule in rules]),
            negative=mean_over_rules(rules, lambda x: (x < -sigma).astype(float)),
            near_zero=mean_over_rules(rules, lambda x: (np.abs(x) <= sigma).astype(float)),
            steps=steps,
            starts=starts,
            products=operator.products,
            matrix=matrix,
            conditions=session.conditions(),
        )


def axis(rules: list[Rule], width: float | None, points: int) -> tuple[Vector, float]:
    """Choose grid and kernel width: the grid covers all nodes, finer around 0 where most eigenvalues are."""
    low, high = min(float(r.nodes[0]) for r in rules), max(float(r.nodes[-1]) for r in rules)
    reach = high - low or abs(high) or 1.0
    sigma = width or DEFAULT_WIDTH * reach
    even = np.linspace(low - MARGIN * sigma, high + MARGIN * sigma, points - points // 2)
    bulk = np.linspace(max(even[0], -MARGIN * sigma), min(even[-1], MARGIN * sigma), points // 2)
    return np.unique(np.concatenate([even, bulk])), sigma


def smeared(rule: Rule, x: float, sigma: float) -> float:
    """Return the smoothed density of one rule at x."""
    return rule.mean(lambda nodes: np.exp(-0.5 * ((x - nodes) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi)))


def check_arguments(steps: int, starts: int, width: float | None, points: int, matrix: str) -> None:
    """Refuse what cannot be estimated.

    Args:
        steps: products of each start.
        starts: random starts.
        width: of the kernel, or None.
        points: of the grid.
        matrix: its name.

    Raises:
        BadInput: one of them is out of range; the message has its value.
    """
    for name, value in (("steps", steps), ("starts", starts), ("points", points)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise BadInput(f"{name} is {value!r}; give a whole number of at least 2")
    if width is not None and not (math.isfinite(width) and width > 0):
        raise BadInput(f"width is {width!r}; give a positive number, or None for a hundredth of the range")
    if matrix not in MATRICES:
        raise BadInput(f"matrix is {matrix!r}; choose one of {', '.join(MATRICES)}")
