"""Dropout of a fleet: every member draws the masks that it would draw alone.

Alone, the masks of a run come from one stream of random numbers, layer by layer in the order of the forward pass. A network
that is vectorised over its members cannot draw inside: masks are drawn before, each member's from its own stream, and the
dropout layers of the fleet's network take them in the order in which they are called.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Generator, Tensor, nn

from gengap.core.recipe import Recipe
from gengap.problem.trees import feed
from gengap.training.fleet_stack import buffers_kept
from gengap.training.ranks import ALONE
from gengap.training.sharing import dropout_seed


class Tape:
    """What dropout layers are given, or write down, one call after the other."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, float]] | None = None  # while shapes are written down
        self.masks: Iterator[Tensor] = iter(())

    def apply(self, x: Tensor, p: float) -> Tensor:
        """Multiply by the mask of this call."""
        if self.seen is not None:
            self.seen.append((torch.empty_like(x), p))
            return x
        return x * next(self.masks)


class Masked(nn.Module):
    """A dropout layer that takes its mask from a tape."""

    def __init__(self, p: float, tape: Tape) -> None:
        super().__init__()
        self.p, self.tape = p, tape

    def forward(self, x: Tensor) -> Tensor:
        """Drop what the mask drops."""
        return self.tape.apply(x, self.p)


class Masks:
    """The streams of masks of a fleet's members, on the CPU.

    Args:
        model: whose dropout layers have been replaced by those of `tape`.
        tape: theirs.
        recipes: of the members.
    """

    def __init__(self, model: nn.Module, tape: Tape, recipes: Sequence[Recipe]) -> None:
        self._model, self._tape = model, tape
        self._streams = [Generator().manual_seed(dropout_seed(recipe, ALONE)) for recipe in recipes]
        self._forms: dict[int, list[tuple[Tensor, float]]] = {}

    def draw(self, inputs: Any, size: int) -> list[Tensor]:
        """Draw the masks of one update.

        Args:
            inputs: those of one member, for the shapes of what passes the layers.
            size: samples among them, B.

        Returns:
            For each call of a dropout layer the masks of all members, shape (K, B, ...): 0 or 1 / (1 - p).
        """
        if size not in self._forms:
            self._forms[size] = self._observe(inputs)
        drawn = [[mask(form, p, stream) for form, p in self._forms[size]] for stream in self._streams]
        return [torch.stack(masks) for masks in zip(*drawn, strict=True)]

    def _observe(self, inputs: Any) -> list[tuple[Tensor, float]]:
        """Write down what passes the layers, in the order of their calls."""
        seen: list[tuple[Tensor, float]] = []
        self._tape.seen = seen
        with torch.no_grad(), buffers_kept(self._model):
            feed(self._model, inputs)
        self._tape.seen = None
        return seen

    def give(self, masks: Sequence[Tensor]) -> None:
        """Let the next forward pass take these masks."""
        self._tape.masks = iter(masks)

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all members but some."""
        self._streams = [self._streams[k] for k in rows]


def mask(form: Tensor, p: float, stream: Generator) -> Tensor:
    """Draw one mask as torch's dropout on the CPU does."""
    return torch.empty_like(form).bernoulli_(1 - p, generator=stream).div_(1 - p)


def drops(module: nn.Module) -> TypeGuard[nn.Dropout]:
    """Tell whether a module is a dropout layer that draws masks."""
    return type(module) is nn.Dropout and 0 < module.p < 1


def has_dropout(model: nn.Module) -> bool:
    """Tell whether a network has layers that draw masks."""
    return any(drops(module) for module in model.modules())


def with_masks(model: nn.Module, recipes: Sequence[Recipe]) -> Masks | None:
    """Replace the dropout layers of a network.

    Args:
        model: changed in place; other layers that draw at random are left as they are.
        recipes: of the members.

    Returns:
        The masks for it, or None where it has no dropout layer.
    """
    if not has_dropout(model):
        return None
    tape = Tape()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if drops(child):
                setattr(module, name, Masked(child.p, tape))
    return Masks(model, tape, recipes)
