"""Random displacements of the weights, and the units in which weights are displaced."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from gengap.core.seeds import stream
from gengap.measures.trees import dot

Unit = Literal["absolute", "element", "filter"]
Directions = Literal["corner", "box", "sphere", "filter"]
Tree = dict[str, Tensor]


def units(tree: Mapping[str, Tensor], unit: Unit) -> Tree:
    """Return in which unit each weight is displaced.

    Args:
        tree: the weights.
        unit: "absolute": 1; "element": its own size; "filter": the norm of the weights that make one output (all axes but
            the first), and its own size for a weight of a vector, such as a bias. A rescaling of the layers of a ReLU
            network rescales the last two as it does the weights.

    Returns:
        Tensors that broadcast against the weights.
    """
    if unit == "absolute":
        return {name: torch.ones_like(p) for name, p in tree.items()}
    if unit == "element":
        return {name: p.abs() for name, p in tree.items()}
    return {name: filter_norms(p) if p.ndim > 1 else p.abs() for name, p in tree.items()}


def filter_norms(p: Tensor) -> Tensor:
    """Return the norm over all axes but the first, which are kept with length 1; summed in float64."""
    axes = tuple(range(1, p.ndim))
    return p.square().sum(axes, keepdim=True, dtype=torch.float64).sqrt().to(p.dtype)


def normal(tree: Mapping[str, Tensor], seed: int) -> Tree:
    """Draw independent N(0, 1) entries of the shapes of a tree: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=drawn_dtype(p)).to(p.device, p.dtype)
        for name, p in tree.items()
    }


def uniform(tree: Mapping[str, Tensor], seed: int) -> Tree:
    """Draw independent entries in [-1, 1) of the shapes of a tree: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (2 * torch.rand(p.shape, generator=generator, dtype=drawn_dtype(p)) - 1).to(p.device, p.dtype)
        for name, p in tree.items()
    }


def drawn_dtype(p: Tensor) -> torch.dtype:
    """Choose in which dtype to draw: half precision is drawn in float32 and rounded."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def displacement(tree: Mapping[str, Tensor], directions: Directions, radius: float, seed: int, index: int) -> Tree:
    """Draw one displacement of the weights.

    Args:
        tree: the weights x.
        directions: "corner": every weight by +-radius (|x_i| + 1), the signs random: a corner of the box of
            `gengap.sharpness`; "box": uniform in that box; "sphere": in a direction uniform over all, by radius times
            the norm of x; "filter": every filter in a random direction, by radius times its norm, vectors
            not at all (Li et al. 2018, arXiv:1712.09913).
        radius: no unit.
        seed: of the draws.
        index: which draw.

    Returns:
        The displacement by name.
    """
    drawn = stream(seed, "directions", index)
    if directions in {"corner", "box"}:
        raw = uniform(tree, drawn)
        if directions == "corner":
            raw = {name: torch.where(r < 0, -1.0, 1.0).to(r) for name, r in raw.items()}
        return {name: radius * (p.abs() + 1) * raw[name] for name, p in tree.items()}
    raw = normal(tree, drawn)
    if directions == "sphere":
        factor = radius * length(tree) / length(raw)
        return {name: factor * r for name, r in raw.items()}
    return {name: filterwise(p, raw[name], radius) for name, p in tree.items()}


def filterwise(p: Tensor, raw: Tensor, radius: float) -> Tensor:
    """Give the filters of a random tensor the lengths of those of p, times radius; a vector does not move."""
    return radius * raw * (filter_norms(p) / filter_norms(raw)) if p.ndim > 1 else torch.zeros_like(raw)


def length(tree: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of a tree, summed in float64."""
    return float(sum(dot(p.reshape(-1), p.reshape(-1)) for p in tree.values()) ** 0.5)


def displaced(tree: Mapping[str, Tensor], by: Mapping[str, Tensor], factor: float = 1.0) -> Tree:
    """Return the weights moved by `factor` times a displacement."""
    return {name: p + factor * by[name] for name, p in tree.items()}
