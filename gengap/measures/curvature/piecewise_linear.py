"""Whether a network is, around a point, linear in each weight tensor: then trace and Gauss-Newton trace are the same."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from gengap.measures.noise.per_sample_capture import LAYERS, Watch, tensors
from gengap.measures.protocols import SamplePiece

SHAPES = (
    "flatten",
    "view",
    "reshape",
    "unflatten",
    "transpose",
    "permute",
    "squeeze",
    "unsqueeze",
    "__getitem__",
    "contiguous",
)
SUMS = ("add", "sub", "mean", "sum", "__add__", "__radd__", "__sub__", "__rsub__", "__iadd__", "neg", "clone", "to")
LINEAR = frozenset(
    [f"torch.{name}" for name in (*SHAPES, *SUMS, "cat", "stack", "relu", "relu_", "clamp", "maximum", "max_pool2d")]
    + [f"torch.Tensor.{name}" for name in (*SHAPES, *SUMS, "relu", "relu_", "clamp")]
    + [f"torch.nn.functional.{name}" for name in ("relu", "leaky_relu", "hardtanh", "relu6", "pad", "linear")]
    + [
        f"torch.nn.functional.{kind}{d}d"
        for d in (1, 2, 3)
        for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "conv")
    ]
    + ["torch.nn.functional.dropout", "torch.nn.functional.batch_norm"]
)
SCALES = frozenset([
    "torch.Tensor.mul",
    "torch.mul",
    "torch.Tensor.div",
    "torch.Tensor.__mul__",
    "torch.Tensor.__rmul__",
])
UNLESS_TRAINING = (F.dropout, F.batch_norm)


class Kinds(TorchFunctionMode):
    """Notes every torch function whose result depends on the weights, and finds out those that bend.

    Attributes:
        bent: names of functions that are not piecewise linear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bent: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = resolve_name(func) or repr(func)
        if any(x.requires_grad for x in tensors(out)) and not straight(func, name, args, kwargs):
            self.bent.append(name)
        return out


def straight(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call is piecewise linear in those of its arguments that depend on weights."""
    if function in UNLESS_TRAINING:
        given = dict(zip(LAYERS.get(function, ("input", "p", "training")), args, strict=False)) | dict(kwargs)
        return given.get("training") is False
    if name in SCALES:
        own = list(tensors([args, dict(kwargs)]))
        return sum(x.requires_grad for x in own) == 1 and bool(own) and own[0].requires_grad
    return name in LINEAR


def uses_of_weights(piece: SamplePiece, params: Mapping[str, Tensor]) -> tuple[bool, bool]:
    """Look at how a network uses its weights.

    Where every weight tensor is used once, by a linear layer, a convolution or a normalisation, and everything from there to
    the outputs is piecewise linear, the outputs are linear in every single tensor as long as no unit switches: the second
    derivatives of the network by two entries of one tensor vanish.

    Args:
        piece: a few samples; one forward pass.
        params: the weights that are measured.

    Returns:
        Whether every weight is used once by such a layer; and whether the network is linear in each of them besides (False
        also where a function is not known to be piecewise linear).
    """
    own = {name: p.detach().requires_grad_() for name, p in params.items()}
    watch, kinds = Watch(own), Kinds()
    with torch.enable_grad(), kinds, watch:
        piece.outputs(own)
    alone = {name for call in watch.alone() for name in call.weights.values()}
    once = all(name in alone for name in own)
    return once, once and not kinds.bent
