"""Weights at a position: on a curve between two sets of weights, or on a flat through one of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gengap.measures.memory import tree_bytes
from gengap.measures.trees import check_same_layout, empty_like

Position = tuple[float, ...]
Trees = Sequence[Mapping[str, Tensor]]


class Place(Protocol):
    """Sets of tensors that depend on a position; the same tensors are filled at every position.

    Attributes:
        point: the tensors at the last position, by name.
        parts: the trees that a point is blended from; a name that one of them lacks stands for zeros.
        blended: whether the last position was blended, rather than copied from weights that were given.
        bytes: memory of what it holds beside the user's tensors.
    """

    point: dict[str, Tensor]
    parts: Trees
    blended: bool
    bytes: int

    def move(self, at: Position) -> None:
        """Fill `point`."""
        ...

    def blend(self, parts: Sequence[Tensor | None], out: Tensor | None = None) -> Tensor:
        """Combine one tensor of each part as the last position says; linear in the parts."""
        ...


class Curve:
    r"""The curve through two trees at alpha 0 and 1.

    "linear" is :math:`(1 - \alpha)\,a + \alpha\,b`, "sine" is :math:`\cos(\alpha\pi/2)\,a + \sin(\alpha\pi/2)\,b`.

    Attributes:
        point: the tree at the last alpha; the same dict and tensors at every alpha.
        parts: a and b.
        blended: whether the last alpha was neither 0 nor 1.
        bytes: of the point.
    """

    def __init__(
        self, a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: tuple[str, str], *, curve: str = "linear"
    ) -> None:
        check_same_layout(a, b, names)
        first = {name: p.detach() for name, p in a.items()}
        second = {name: b[name].detach().to(p.device, p.dtype) for name, p in a.items()}
        self.parts: Trees = (first, second)
        self.point = empty_like(first)
        self.blended, self.bytes = False, tree_bytes(self.point)
        self._sine, self._alpha = curve == "sine", 0.0

    def move(self, at: Position) -> None:
        """Fill `point`; tensors that are not floating are those of a."""
        (self._alpha,) = at
        self.blended = self._alpha not in {0, 1}
        first, second = self.parts
        for name, out in self.point.items():
            if out.is_floating_point():
                self.blend((first[name], second[name]), out)
            else:
                out.copy_(first[name])

    def blend(self, parts: Sequence[Tensor | None], out: Tensor | None = None) -> Tensor:
        """Combine a tensor of a with one of b; at 0 and 1 the bits are theirs."""
        first, second = parts
        assert first is not None
        assert second is not None
        if not self.blended:  # not by arithmetic: an infinite entry of the other end would give nan
            end = second if self._alpha else first
            return end if out is None else out.copy_(end)
        if not self._sine:
            return torch.lerp(first, second, self._alpha, out=out)
        angle = self._alpha * math.pi / 2
        return torch.mul(first, math.cos(angle), out=out).add_(second, alpha=math.sin(angle))


class Flat:
    """An origin, and what lies at coordinates along one or more directions from it.

    Args:
        origin: the tree at coordinates zero.
        directions: trees of the origin's shapes; a name that one of them lacks does not move along it.
        given: trees that lie at these coordinates, whose bits are to be used there.

    Attributes:
        point: the tree at the last position; the same dict and tensors at every position.
        parts: the origin and the directions.
        blended: whether the last position was none of the given ones.
        bytes: of the point and the directions.
    """

    def __init__(
        self,
        origin: Mapping[str, Tensor],
        directions: Trees,
        given: Mapping[Position, Mapping[str, Tensor]] | None = None,
    ) -> None:
        start = {name: p.detach() for name, p in origin.items()}
        self.parts: Trees = (start, *directions)
        self.point = empty_like(start)
        self.bytes = tree_bytes(self.point) + sum(tree_bytes(d) for d in directions)
        self._given = dict(given or {})
        self._at: Position = (0.0,) * len(directions)
        self.blended = False

    def move(self, at: Position) -> None:
        """Fill `point`; tensors that are not floating are those of the origin."""
        self._at, known = at, self._given.get(at)
        self.blended = known is None
        for name, out in self.point.items():
            if known is not None:
                out.copy_(known[name])
            elif out.is_floating_point():
                self.blend([part.get(name) for part in self.parts], out)
            else:
                out.copy_(self.parts[0][name])

    def blend(self, parts: Sequence[Tensor | None], out: Tensor | None = None) -> Tensor:
        """Add to a tensor of the origin those of the directions, times the coordinates."""
        start, *along = parts
        assert start is not None
        found = start.clone() if out is None else out.copy_(start)
        for x, direction in zip(self._at, along, strict=True):
            if x and direction is not None:
                found.add_(direction, alpha=x)
        return found
