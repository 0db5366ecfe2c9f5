r"""The trace of the Gauss-Newton matrix from squared gradients of single samples, which costs a few gradients in all.

With :math:`H_i = S_i S_i^T` the second derivative of the loss of sample i by the outputs and z random signs,

.. math:: \mathrm{tr}\, G = \frac1N \sum_i |J_i^T S_i|_F^2 = \frac1N \sum_i E |J_i^T S_i z_i|^2,

and the sum over samples averages the scatter of z away: no inner product between weights that do not belong together
ever enters, unlike in :math:`z^T H z`, whose variance is twice the squared Frobenius norm.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gengap.core.estimate import Estimate, mean
from gengap.core.seeds import stream
from gengap.measures.noise.per_sample_capture import Use, capture
from gengap.measures.noise.per_sample_squares import squares
from gengap.measures.protocols import SamplePiece

MOST_OUTPUTS = 256  # numbers a sample may have as outputs: their second derivative is made as a matrix
ROUNDING = 16 * torch.finfo(torch.float64).eps
FEWEST = 6  # passes before their scatter is believed


@dataclass(frozen=True, slots=True)
class Probed:
    """A piece whose loss is replaced by the inner product of its outputs with given numbers.

    Attributes:
        piece: the piece.
        size: its samples.
        weights: the numbers, shape of the outputs.
    """

    piece: SamplePiece
    size: int
    weights: Tensor

    def outputs(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs."""
        return self.piece.outputs(params)

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the inner product, divided by the samples."""
        return (outputs * self.weights).sum() / self.size


def roots(piece: SamplePiece, outputs: Tensor) -> Tensor | None:
    """Factorise the second derivative of every sample's loss by its outputs.

    Args:
        piece: the samples.
        outputs: their outputs, shape (size, ...) with C numbers a sample.

    Returns:
        S with S S^T the second derivatives, shape (size, C, C), float64; None where one is not positive semi-definite or C
        is too large.
    """
    at = outputs.detach().double().requires_grad_()
    width = at[0].numel()
    if width > MOST_OUTPUTS:
        return None
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(piece.losses(at).sum(), at, create_graph=True)
    if not slope.requires_grad:
        return at.detach().new_zeros(len(at), width, width)
    columns = [torch.autograd.grad(one.sum(), at, retain_graph=True)[0] for one in slope.flatten(1).T]
    bent = torch.stack([c.flatten(1) for c in columns], 2).detach()
    values, vectors = torch.linalg.eigh((bent + bent.mT) / 2)
    scale = values.abs().amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    # where one class has all the probability, what is left of the curvature is rounding of either sign
    if bool((values < -1e-6 * scale - ROUNDING).any()):
        return None
    root: Tensor = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
    return root


def probe(
    piece: SamplePiece, params: Mapping[str, Tensor], root: Tensor, seed: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make one probe of every sample of a piece: one forward and one backward pass.

    Args:
        piece: the samples.
        params: the weights, each used once by a linear layer.
        root: S of every sample, shape (size, C, C).
        seed: of the signs.

    Returns:
        The squared norm of every sample, shape (size,), and the sum over samples by weight name; float64, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = (2 * torch.randint(2, root.shape[::2], generator=generator) - 1).to(root)
    with torch.no_grad():
        shape = piece.outputs(params)
    weights = (root @ signs.unsqueeze(2)).view(shape.shape).to(shape)
    probed: Any = Probed(piece, piece.size, weights)
    _, _, uses = capture(probed, params)
    rows = {name: squares(narrow(use, place)) for use in uses for place, name in use.weights.items()}
    return torch.stack(list(rows.values())).sum(0), {name: row.sum() for name, row in rows.items()}


def narrow(use: Use, place: str) -> Use:
    """Keep one weight of a use."""
    return Use(use.function, use.arguments, {place: use.weights[place]}, use.slope)


class OuterTrace:
    """Passes over all samples, and what they say of the trace.

    Args:
        seed: of the signs.

    Attributes:
        passes: made so far.
        layers: the estimate of each pass by weight name.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self.passes = seed, 0
        self.layers: dict[str, list[float]] = {}
        self._sum = self._squares = torch.zeros(0, dtype=torch.float64)

    def add(self, pieces: list[SamplePiece], params: Mapping[str, Tensor], factors: list[Tensor]) -> None:
        """Make one more pass."""
        rows, total = [], sum(piece.size for piece in pieces)
        sums: dict[str, float] = {}
        for i, (piece, root) in enumerate(zip(pieces, factors, strict=True)):
            row, layers = probe(piece, params, root, stream(self._seed, "trace", self.passes, i))
            rows.append(row)
            for name, value in layers.items():
                sums[name] = sums.get(name, 0.0) + float(value) / total
        row = torch.cat(rows)
        self._sum = row if not self.passes else self._sum + row
        self._squares = row.square() if not self.passes else self._squares + row.square()
        self.passes += 1
        for name, estimate in sums.items():
            self.layers.setdefault(name, []).append(estimate)

    @property
    def stderr(self) -> float:
        """Standard error of the mean, from the scatter of each sample's probes about their own mean."""
        n, m = len(self._sum), self.passes
        scatter = (self._squares - self._sum.square() / m).clamp_min(0).sum() / (m - 1)
        return math.sqrt(float(scatter / m)) / n

    @property
    def value(self) -> float:
        """Mean over samples and passes."""
        return float(self._sum.mean()) / self.passes

    def estimates(self, names: list[str]) -> dict[str, Estimate]:
        """Give the part of every weight."""
        return {name: mean(self.layers[name]) for name in names}
