"""The Kronecker factors of every layer, read by hooks while a network is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from gengap.core.errors import BadInput

Layer = nn.Linear | nn.Conv2d
Scores = Callable[[Tensor], list[Tensor]]  # outputs to the gradients of `kfac_scores.scores`


@dataclass(slots=True)
class Use:
    """One use of a layer in a pass.

    Attributes:
        layer: which.
        inputs: sum of the outer products of its input rows, shape (I, I).
        edge: where the gradient of its output is found.
    """

    layer: Layer
    inputs: Tensor
    edge: GradientEdge


@dataclass(slots=True)
class Sums:
    """What is added up for a layer between two steps.

    Attributes:
        inputs: sum of outer products of input rows, shape (I, I), a bias seen as an input that is 1.
        cases: predictions behind it: samples, or tokens of sequences.
        slopes: sum of outer products of output gradients, shape (O, O).
        rows: rows behind it: cases times positions.
    """

    inputs: Tensor
    cases: int
    slopes: Tensor
    rows: int

    def factors(self) -> tuple[Tensor, Tensor]:
        """Give A, shape (I, I), and G, shape (O, O); the layer's block of the Fisher matrix is about their Kronecker product."""
        return self.inputs / self.cases, self.slopes / self.rows


class FactorTap:
    """Hooks that read the factors of linear and convolutional layers in every pass that is wanted.

    A pass is a call of the whole model in training mode with gradients on. At its end gradients of `scores` go backward through
    the same graph to the layers' outputs; `.grad` is not touched. A convolution is seen as a linear layer on patches: A sums
    over positions and G is their mean (Grosse & Martens 2016). Linear layers on sequences are treated alike.

    Args:
        model: the network.
        layers: which of its modules.
        scores: makes gradients from outputs.
        wanted: tells whether a pass is to be read.
        axis: of the outputs, over which a prediction goes; `scores` is given it as the last one.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: list[Layer],
        scores: Scores,
        wanted: Callable[[], bool],
        *,
        axis: int = -1,
    ) -> None:
        self._model, self._scores, self._wanted, self._axis = model, scores, wanted, axis
        self._uses: list[Use] = []
        self._sums: dict[Layer, Sums] = {}
        self._handles: list[Any] = [layer.register_forward_hook(self._see_layer) for layer in layers]
        self._handles.append(model.register_forward_pre_hook(self._begin))
        self._handles.append(model.register_forward_hook(self._end))
        self._reading = False

    def take(self) -> dict[Layer, Sums]:
        """Give what was added up since the last call, and begin anew."""
        taken, self._sums = self._sums, {}
        return taken

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _begin(self, model: nn.Module, _inputs: Any) -> None:
        self._uses.clear()
        self._reading = model.training and torch.is_grad_enabled() and self._wanted()

    def _see_layer(self, layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._reading and output.requires_grad:
            rows = input_rows(layer, inputs[0].detach())
            # The edge, not the tensor: what follows may change the tensor in place.
            self._uses.append(Use(layer, rows.T @ rows, get_gradient_edge(output)))

    def _end(self, _model: nn.Module, _inputs: Any, outputs: Tensor) -> None:
        """Send the scores back to the layers."""
        if not (self._reading and self._uses):
            return
        self._reading = False
        if not isinstance(outputs, Tensor) or outputs.dim() < 2:
            raise BadInput("K-FAC reads a model that returns one tensor of at least two axes; wrap it in one that does")
        outputs = outputs.movedim(self._axis, -1)
        cases = outputs[..., 0].numel()
        edges = [use.edge for use in self._uses]
        back = [
            torch.autograd.grad(outputs, edges, score, retain_graph=True, allow_unused=True)
            for score in self._scores(outputs.detach())
        ]
        counted: set[Layer] = set()
        for use, slopes in zip(self._uses, zip(*back, strict=True), strict=True):
            # Several uses of a layer in one pass are positions of it, as in a convolution.
            self._add(use, [slope for slope in slopes if slope is not None], 0 if use.layer in counted else cases)
            counted.add(use.layer)
        self._uses.clear()

    def _add(self, use: Use, slopes: list[Tensor], cases: int) -> None:
        """Add one use of a layer to its sums."""
        if not slopes:
            return
        rows = [output_rows(use.layer, slope) for slope in slopes]
        outer, count = sum((row.T @ row for row in rows[1:]), rows[0].T @ rows[0]), rows[0].shape[0]
        if use.layer not in self._sums:
            self._sums[use.layer] = Sums(use.inputs, cases, outer, count)
            return
        sums = self._sums[use.layer]
        sums.inputs, sums.slopes = sums.inputs + use.inputs, sums.slopes + outer
        sums.cases, sums.rows = sums.cases + cases, sums.rows + count


def is_factored(module: nn.Module) -> TypeGuard[Layer]:
    """Tell whether a module is a layer whose Fisher block has the Kronecker form, and its weight is trained.

    Args:
        module: any.

    Returns:
        True for linear layers and for 2-D convolutions in one group with padding by zeros.
    """
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and module.weight.requires_grad
    return type(module) is nn.Linear and module.weight.requires_grad


def has_trained_bias(layer: Layer) -> bool:
    """Tell whether the layer's factor has a row for the bias."""
    return layer.bias is not None and layer.bias.requires_grad


def trained_weights(layer: Layer) -> list[Tensor]:
    """Give the weight of a factored layer and, where it is trained, the bias."""
    return [weight for weight in (layer.weight, layer.bias) if weight is not None and weight.requires_grad]


def input_rows(layer: Layer, inputs: Tensor) -> Tensor:
    """Give what a row of weights is multiplied with, in all samples and positions.

    Args:
        layer: linear, or a 2-D convolution.
        inputs: shape (B, ..., I), or (B, channels, height, width).

    Returns:
        Shape (B times positions, I), with a last column of ones for a trained bias.
    """
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(padded(layer, inputs), layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
        inputs = patches.transpose(1, 2)
    rows = inputs.reshape(-1, inputs.shape[-1])
    return F.pad(rows, (0, 1), value=1.0) if has_trained_bias(layer) else rows


def padded(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Surround images with the zeros that a convolution adds."""
    if layer.padding == "valid":
        return inputs
    if layer.padding == "same":
        whole = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return F.pad(inputs, [whole[1] // 2, whole[1] - whole[1] // 2, whole[0] // 2, whole[0] - whole[0] // 2])
    down, right = (int(side) for side in layer.padding)
    return F.pad(inputs, [right, right, down, down])


def output_rows(layer: Layer, slopes: Tensor) -> Tensor:
    """Give the gradients of a layer's outputs in all samples and positions, shape (B times positions, O)."""
    if isinstance(layer, nn.Conv2d):
        slopes = slopes.flatten(-2).transpose(-1, -2)
    return slopes.reshape(-1, slopes.shape[-1])
