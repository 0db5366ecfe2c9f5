"""Which layer used which weight on which input, seen while a network is evaluated."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from gengap.measures.protocols import SamplePiece

CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
LAYERS: Mapping[Callable[..., Tensor], tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    F.conv1d: CONVOLUTION,
    F.conv2d: CONVOLUTION,
    F.conv3d: CONVOLUTION,
    F.embedding: ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """One call of a layer whose output depends linearly on weights that are measured.

    Attributes:
        function: the torch function that was called.
        arguments: what it was called with, by name of the argument.
        weights: names of measured weights, by name of the argument ("weight", "bias") that they were.
        slope: derivative of the sum of the samples' losses by the output, shape of the output, first axis samples.
    """

    function: Callable[..., Tensor]
    arguments: Mapping[str, Any]
    weights: Mapping[str, str]
    slope: Tensor

    @property
    def input(self) -> Tensor:
        """What the layer was applied to, first axis samples."""
        given: Tensor = self.arguments["input"]
        return given

    @property
    def bytes(self) -> int:
        """Memory of input and slope."""
        return self.input.nbytes + self.slope.nbytes

    def apply(self, direction: Mapping[str, Tensor]) -> Tensor:
        """Move the output: the layer with a direction in the place of measured weights, and nothing in that of others."""
        own: dict[str, Any] = dict(self.arguments)
        for place in ("weight", "bias"):
            if isinstance(own.get(place), Tensor):
                name = self.weights.get(place)
                own[place] = torch.zeros_like(own[place]) if name is None else direction[name]
        return self.function(**own)

    def along(self, direction: Mapping[str, Tensor]) -> Tensor:
        """Return the inner product of every sample's gradient with a direction, shape (size,), float64 on the CPU."""
        moved = self.apply(direction).mul_(self.slope)
        return moved.flatten(1).sum(1).to("cpu", torch.float64)

    def cut(self, start: int, stop: int) -> "Use":
        """Keep some samples."""
        arguments = {**self.arguments, "input": self.input[start:stop]}
        return replace(self, arguments=arguments, slope=self.slope[start:stop])


@dataclass(frozen=True, slots=True)
class Call:
    """A call before its slope is known."""

    function: Callable[..., Tensor]
    arguments: Mapping[str, Any]
    weights: Mapping[str, str]
    edge: GradientEdge


class Watch(TorchFunctionMode):
    """Notes every torch function that is given one of some weights, while it is entered.

    Args:
        leaves: the weights, by name; recognised by identity.

    Attributes:
        calls: of functions in `LAYERS` that had them as weight or bias.
        times: how often each weight was used by any function.
    """

    def __init__(self, leaves: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.times: Counter[str] = Counter()
        self._names = {id(p): name for name, p in leaves.items()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        used = [self._names[id(x)] for x in tensors([args, kwargs]) if id(x) in self._names]
        if used and any(x.requires_grad for x in tensors(out)):  # asking for a shape is no use
            self.times.update(used)
            if func in LAYERS:
                self._note(func, dict(zip(LAYERS[func], args, strict=False)) | kwargs, out)
        return out

    def _note(self, function: Callable[..., Tensor], arguments: dict[str, Any], out: Tensor) -> None:
        found = {place: self._names.get(id(arguments.get(place))) for place in ("weight", "bias")}
        weights = {place: name for place, name in found.items() if name is not None}
        if weights and is_linear(function, arguments):
            kept = {k: v.detach() if isinstance(v, Tensor) else v for k, v in arguments.items()}
            self.calls.append(Call(function, kept, weights, get_gradient_edge(out)))

    def alone(self) -> list[Call]:
        """Give the calls with the weights that no other call has used."""
        own = [
            replace(call, weights={place: n for place, n in call.weights.items() if self.times[n] == 1})
            for call in self.calls
        ]
        return [call for call in own if call.weights]


def is_linear(function: Callable[..., Tensor], arguments: Mapping[str, Any]) -> bool:
    """Tell whether a layer's output depends linearly on its weights, each sample's on nothing of the others."""
    if function is F.batch_norm:
        return arguments.get("training") is False
    if function is F.embedding:
        return arguments.get("max_norm") is None and not arguments.get("scale_grad_by_freq")
    return True


def tensors(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested arguments."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from tensors(part)


def capture(
    piece: SamplePiece, params: Mapping[str, Tensor], only: frozenset[str] | None = None
) -> tuple[float, dict[str, Tensor], list[Use]]:
    """Differentiate the loss of a piece, and keep what the gradients of its single samples are made of.

    One forward and one backward pass.

    Args:
        piece: of a loss that is the mean over its samples, none of which depends on the others.
        params: the weights that are measured.
        only: names of weights to keep uses of; None: all.

    Returns:
        The mean loss; the sum over samples of their gradients; and the uses of the weights that a single linear layer used
        once, with samples on the first axis.
    """
    own = {name: p.detach().requires_grad_() for name, p in params.items()}
    watch = Watch(own)
    with torch.enable_grad(), watch:
        outputs = piece.outputs(own)
    with torch.enable_grad():
        total = piece.mean(outputs) * piece.size
    calls = [c for c in watch.alone() if narrowed(c.weights, only)]
    sought: list[Any] = [*own.values(), *(c.edge for c in calls)]
    found = torch.autograd.grad(total, sought, allow_unused=True)
    gradient = {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(own.items(), found, strict=False)}
    uses = [
        Use(call.function, call.arguments, narrowed(call.weights, only), counted(call, slope.detach()))
        for call, slope in zip(calls, found[len(own) :], strict=True)
        if slope is not None and slope.ndim and slope.shape[0] == piece.size == call.arguments["input"].shape[0]
    ]
    return float(total.detach()) / piece.size, gradient, uses


def counted(call: Call, slope: Tensor) -> Tensor:
    """Take away the slopes at padding, of which an embedding gives its weight nothing."""
    padding = call.arguments.get("padding_idx") if call.function is F.embedding else None
    if padding is None:
        return slope
    row = padding % call.arguments["weight"].shape[0]
    return slope.masked_fill((call.arguments["input"] == row).unsqueeze(-1), 0)


def narrowed(weights: Mapping[str, str], only: frozenset[str] | None) -> dict[str, str]:
    """Keep the weights that are asked for."""
    return {place: name for place, name in weights.items() if only is None or name in only}
