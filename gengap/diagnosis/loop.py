"""The training function of somebody else, and what the doctor needs to run it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from gengap.core.errors import BadInput
from gengap.diagnosis.trace import Sizes

OPTIONAL = ("accumulate", "epochs")


@dataclass(frozen=True, slots=True)
class Loop:
    """Three functions.

    Attributes:
        train: `train(model, data, *, batch_size, accumulate, epochs)`, the last two optional.
        model: makes a fresh model; random draws from torch's global generator are seeded.
        data: makes the training data, a map-style data set.
    """

    train: Callable[..., object]
    model: Callable[[], nn.Module]
    data: Callable[[], Any]

    @property
    def name(self) -> str:
        """The name of the training function."""
        inner = getattr(self.train, "func", self.train)
        return getattr(inner, "__qualname__", type(inner).__name__)

    def takes(self, name: str) -> bool:
        """Tell whether the function has a parameter of this name."""
        known = inspect.signature(self.train).parameters
        return name in known or any(p.kind is p.VAR_KEYWORD for p in known.values())

    def check(self) -> None:
        """Check the parameters.

        Raises:
            BadInput: the function cannot be called with a model, data and batch_size.
        """
        try:
            named = {name: 1 for name in OPTIONAL if self.takes(name)}
            inspect.signature(self.train).bind(None, None, batch_size=1, **named)
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"{self.name} cannot be called as {self.name}(model, data, batch_size=4): {error}; give it the parameters "
                f"(model, data, *, batch_size, accumulate=1, epochs=1)"
            ) from error

    def call(self, model: nn.Module, data: Any, sizes: Sizes) -> None:
        """Train."""
        values = {"accumulate": sizes.accumulate, "epochs": sizes.epochs}
        named = {name: value for name, value in values.items() if self.takes(name)}
        self.train(model, data, batch_size=sizes.batch_size, **named)
