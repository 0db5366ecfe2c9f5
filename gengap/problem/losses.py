"""The losses that can be named, and how right answers are counted beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from gengap.core.catalogue import find
from gengap.core.errors import BadInput

MeanLoss = Callable[[Tensor, Tensor], Tensor]
Count = Callable[[Tensor, Tensor], Tensor | None]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and its companion count.

    Attributes:
        name: as the recipe book calls it.
        mean: (outputs, targets) to a scalar, the mean over samples, in nats where it is a likelihood.
        correct: (outputs, targets) to the number of right answers (a scalar tensor), or None where the question makes no
            sense.
        each: (outputs, targets) to the loss of every sample, shape (B,); None: `mean` is called on one sample at a time.
    """

    name: str
    mean: MeanLoss
    correct: Count
    each: MeanLoss | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # a named loss stays itself in another process, where fast code asks for it by identity
        if LOSSES.get(self.name) is self:
            return as_loss, (self.name,)
        return Loss, (self.name, self.mean, self.correct, self.each)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every sample, shape (B,), differentiable; their mean is `mean(outputs, targets)`."""
        if self.each is not None:
            return self.each(outputs, targets)

        def alone(output: Tensor, target: Tensor) -> Tensor:
            return self.mean(output.unsqueeze(0), target.unsqueeze(0))

        try:
            return vmap(alone)(outputs, targets)
        except RuntimeError:  # a user's loss may look at values, which vmap cannot follow
            return torch.stack([alone(o, t) for o, t in zip(outputs, targets, strict=True)])


def largest_is_target(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Count samples whose largest output is the target's; None where targets are no class numbers.

    Args:
        outputs: scores of shape (B, C), or (B, C, ...) where a sample has several positions.
        targets: class numbers of shape (B,) or (B, ...).

    Returns:
        The count; of a sample with several positions the share of those that are right counts.
    """
    if targets.is_floating_point() or outputs.ndim != targets.ndim + 1:
        return None
    right = (outputs.argmax(1) == targets).sum()
    return right if targets.ndim == 1 else right / targets[0].numel()


def sign_is_target(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Count samples whose output is positive exactly where the target is 1; None where a sample has several outputs."""
    if targets.numel() != targets.shape[0]:
        return None
    return ((outputs.reshape(targets.shape) > 0) == (targets > 0)).sum()


def none_correct(outputs: Tensor, targets: Tensor) -> None:
    """Say that right answers cannot be counted."""


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy over all logits, in nats: one per sample, or one for each of its pixels."""
    return F.binary_cross_entropy_with_logits(outputs.reshape(targets.shape), targets.to(outputs.dtype))


def mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean square error over all outputs; shapes must agree."""
    return F.mse_loss(outputs, targets.reshape(outputs.shape))


def each_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of every sample, in nats: the mean over its positions where it has several."""
    return over_samples(F.cross_entropy(outputs, targets, reduction="none"))


def each_binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of every sample, in nats: the mean over its logits where it has several."""
    logits = outputs.reshape(targets.shape)
    return over_samples(F.binary_cross_entropy_with_logits(logits, targets.to(outputs.dtype), reduction="none"))


def each_mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean square error over the outputs of every sample."""
    return over_samples((outputs - targets.reshape(outputs.shape)).square())


def over_samples(values: Tensor) -> Tensor:
    """Average everything but the first axis."""
    return values if values.ndim == 1 else values.flatten(1).mean(1)


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": Loss("cross_entropy", F.cross_entropy, largest_is_target, each_cross_entropy),
    "binary_cross_entropy": Loss(
        "binary_cross_entropy", binary_cross_entropy, sign_is_target, each_binary_cross_entropy
    ),
    "mean_square": Loss("mean_square", mean_square, none_correct, each_mean_square),
}


def as_loss(loss: str | MeanLoss) -> Loss:
    """Find a named loss, or take a user's function.

    Args:
        loss: a name of `LOSSES`, or a function of (outputs, targets) that returns the mean over samples.

    Returns:
        The loss with its count of right answers; for a user's function they are counted where targets are integers and
        outputs have one axis more.

    Raises:
        BadInput: the name is unknown, or it is neither a name nor callable.
    """
    if isinstance(loss, str):
        return find("loss", LOSSES, loss)
    if not callable(loss):
        raise BadInput(f"loss is {loss!r}; give a name ({', '.join(LOSSES)}) or a function of (outputs, targets)")
    return Loss(getattr(loss, "__qualname__", type(loss).__name__), loss, largest_is_target)


def check_scalar(value: Tensor, name: str) -> None:
    """Refuse a loss that does not return one number.

    Args:
        value: what the loss returned.
        name: what the loss is called.

    Raises:
        BadInput: it is not a scalar tensor.
    """
    if not isinstance(value, torch.Tensor) or value.ndim != 0:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise BadInput(f"the loss {name!r} returned {shape}; it must return one number, the mean over samples")
