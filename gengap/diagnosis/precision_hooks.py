"""Mixed precision and clipping under observation: computed in full precision and not clipped, but noted."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad

from gengap.diagnosis.watch import Watch

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def precision(watch: Watch) -> Iterator[tuple[Any, str, Wrap]]:
    """Say what is replaced."""
    yield torch.autocast, "__init__", full_precision
    yield torch.amp.GradScaler, "__init__", idle_scaler
    yield torch.amp.GradScaler, "scale", lambda original: scale(watch, original)
    yield torch.amp.GradScaler, "unscale_", lambda original: unscale(watch, original)
    yield torch.amp.GradScaler, "step", lambda original: step(watch, original)
    yield clip_grad, "_clip_grads_with_norm_", lambda _: lambda *_, **__: watch.clip()
    yield nn.utils, "clip_grad_value_", lambda _: lambda *_, **__: watch.clip()


def full_precision(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make contexts of autocast that change nothing."""

    def init(self: Any, device_type: str, dtype: Any = None, *_: Any, **__: Any) -> None:
        original(self, device_type, dtype=dtype, enabled=False)

    return init


def idle_scaler(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make scalers that do nothing and remember whether they would."""

    def init(self: Any, device: str = "cuda", *args: Any, enabled: bool = True, **kwargs: Any) -> None:
        self.was_enabled = enabled
        original(self, device, *args[:4], enabled=False, **kwargs)

    return init


def scale(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    """Note that a loss is scaled."""

    def noted(self: Any, outputs: Any) -> Any:
        watch.scaled = watch.scaled or self.was_enabled
        return original(self, outputs)

    return noted


def unscale(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    """Note that gradients are unscaled."""

    def noted(self: Any, optimizer: Any) -> Any:
        watch.unscaled = True
        return original(self, optimizer)

    return noted


def step(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    """Note that the scaler has its say in a step."""

    def noted(*args: Any, **kwargs: Any) -> Any:
        watch.scaler_steps = True
        try:
            return original(*args, **kwargs)
        finally:
            watch.scaler_steps = False

    return noted
