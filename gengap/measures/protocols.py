"""What a measure needs to know about a loss, and how a plain function is brought into that form."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gengap.core.errors import BadInput

Params = Mapping[str, Tensor]
PlainFunction = Callable[..., Tensor]  # of the weights by name, or of one tensor
UNKNOWN: Mapping[str, Any] = {"data": "unknown", "samples": None, "batch_norm": "unknown"}


class Scored(Protocol):
    """How well weights do on a split."""

    @property
    def loss(self) -> float:
        """Mean over samples, nats."""
        ...

    @property
    def accuracy(self) -> float | None:
        """Percent, or None where right answers cannot be counted."""
        ...


@runtime_checkable
class LossFunction(Protocol):
    """A loss that can be evaluated in bounded memory and says what it is measured on."""

    def __call__(self, params: Any) -> Tensor:
        """Return the mean loss as a differentiable scalar, in nats per sample."""
        ...

    def value(self, params: Any) -> float:
        """Return the mean loss without a graph."""
        ...

    def value_and_grad(self, params: Any) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss and its gradient by name."""
        ...

    def score(self, params: Any) -> Scored:
        """Return mean loss and accuracy."""
        ...

    def describe(self) -> dict[str, Any]:
        """Say on what the loss is measured; known keys are data, samples, batch_norm."""
        ...


class Piece(Protocol):
    """A part of the samples; the loss is the mean of its pieces' losses, weighted by their sizes."""

    @property
    def size(self) -> int:
        """Number of samples."""
        ...

    def __call__(self, params: Params) -> Tensor:
        """Return the mean loss over the piece, a differentiable scalar."""
        ...


@runtime_checkable
class SamplePiece(Piece, Protocol):
    """A piece that knows its network and its samples."""

    @property
    def inputs(self) -> Any:
        """What the network takes: a tensor, or a tuple or dict of them, first axis samples."""
        ...

    @property
    def targets(self) -> Tensor:
        """First axis samples."""
        ...

    def network(self, params: Params, inputs: Any) -> Tensor:
        """Return the outputs of the network for inputs."""
        ...

    def outputs(self, params: Params) -> Tensor:
        """Return the outputs of the network for the piece, shape (size, ...)."""
        ...

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the mean loss of outputs, a scalar."""
        ...

    def losses(self, outputs: Tensor) -> Tensor:
        """Return the loss of every sample, shape (size,)."""
        ...

    def head(self, count: int) -> "SamplePiece":
        """Return the first `count` samples as a piece."""
        ...


@runtime_checkable
class Chunked(Protocol):
    """A loss that is made of pieces whose size can be chosen, so that it fits memory."""

    @property
    def chunk_size(self) -> int:
        """Samples that go through the network at once."""
        ...

    def with_chunk(self, size: int) -> LossFunction:
        """Return the same loss in smaller pieces, or refuse where they would be another loss."""
        ...

    def chunks(self, params: Params) -> Iterator[SamplePiece]:
        """Yield the pieces."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A loss of which no parts are known, as its only piece.

    Attributes:
        loss: the loss.
        size: 1: its share of the whole.
    """

    loss: LossFunction
    size: int = 1

    def __call__(self, params: Params) -> Tensor:
        """Return the loss."""
        return self.loss(params)


def pieces(loss: LossFunction, params: Params) -> Iterator[Piece]:
    """Go through a loss piece by piece; one that has none is its own only piece."""
    if isinstance(loss, Chunked):
        yield from loss.chunks(params)
    else:
        yield Whole(loss)


def sample_pieces(loss: LossFunction, params: Params, what: str) -> Iterator[SamplePiece]:
    """Go through the samples of a loss.

    Args:
        loss: any.
        params: weights by name.
        what: the measure, for the message.

    Yields:
        Its pieces.

    Raises:
        BadInput: the loss is a plain function, which knows no samples.
    """
    if not isinstance(loss, Chunked):
        raise BadInput(
            f"{what} needs the network and the samples behind the loss, which a plain function hides; make the loss with "
            f"gengap.loss_function(model, loss, data) or problem.loss_function()"
        )
    yield from loss.chunks(params)


@runtime_checkable
class Rebuffered(Protocol):
    """A loss that carries a network's buffers and can be given others."""

    def with_buffers(self, buffers: Any) -> LossFunction:
        """Return the loss evaluated with other buffers; it may be the same object, changed."""
        ...


@runtime_checkable
class Reread(Protocol):
    """A loss whose samples come from a data set that may give others when it is read again."""

    def changed_sample(self) -> int | None:
        """Return the index of a sample that differs between two readings, or None."""
        ...


@dataclass(frozen=True, slots=True)
class PlainScore:
    """The score of a plain function, which cannot count right answers."""

    loss: float
    accuracy: None = None


@dataclass(frozen=True, slots=True)
class Plain:
    """A user's function of the parameters with the methods of `LossFunction`, by autograd.

    Attributes:
        function: maps the parameters to a scalar tensor, the mean over samples in nats. It sees detached tensors, never
            the user's own, and the global random state is left to it.
    """

    function: PlainFunction

    def __call__(self, params: Params) -> Tensor:
        """Return the loss as a tensor.

        Args:
            params: weights by name.

        Returns:
            A floating scalar.

        Raises:
            BadInput: the function returned anything else.
        """
        value = self.function(dict(params))
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            shown = (
                f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            )
            raise BadInput(f"the loss returned {shown}; it must return a floating scalar tensor, the mean over samples")
        return value

    def value(self, params: Params) -> float:
        """Return the loss without a graph."""
        with torch.no_grad():
            return float(self({name: p.detach() for name, p in params.items()}))

    def value_and_grad(self, params: Params) -> tuple[float, dict[str, Tensor]]:
        """Differentiate the loss once.

        Args:
            params: weights by name, floating.

        Returns:
            The loss and the gradient by name; zero for weights that the loss does not use.
        """
        return differentiated(self, params)

    def score(self, params: Params) -> PlainScore:
        """Return the loss; right answers cannot be counted."""
        return PlainScore(self.value(params))

    def describe(self) -> dict[str, Any]:
        """Say that nothing is known about the data."""
        return dict(UNKNOWN)


def differentiated(function: Callable[[Params], Tensor], params: Params) -> tuple[float, dict[str, Tensor]]:
    """Evaluate a function and differentiate it once.

    Args:
        function: maps weights by name to a scalar.
        params: weights by name, floating.

    Returns:
        Value and gradient by name; zero for weights that the function does not use.
    """
    own = {name: p.detach().requires_grad_() for name, p in params.items()}
    with torch.enable_grad():
        value = function(own)
    check_differentiable(value)
    found = torch.autograd.grad(value, list(own.values()), allow_unused=True, materialize_grads=True)
    return float(value.detach()), dict(zip(own, found, strict=True))


def check_differentiable(value: Tensor) -> None:
    """Refuse a loss that depends on no weight that moves.

    Args:
        value: the loss, evaluated at weights that require a gradient.

    Raises:
        BadInput: no gradient can be taken.
    """
    if not value.requires_grad:
        raise BadInput(
            "the loss does not depend on params in a way torch can differentiate; compute it from the tensors "
            "passed in, without .detach(), .item() or torch.no_grad(), and measure weights that it uses"
        )


def as_loss_function(loss: Any, params: Any) -> LossFunction:
    """Take a loss in either form.

    Args:
        loss: a `LossFunction`, or any callable that maps parameters to a scalar tensor.
        params: the weights as the user gives them: a function of one tensor is called with one tensor.

    Returns:
        The loss itself where it has the methods, else a wrapper that uses autograd.

    Raises:
        BadInput: it cannot be called.
    """
    if not callable(loss):
        raise BadInput(f"loss is a {type(loss).__name__}; give a function that maps params to a scalar tensor")
    if isinstance(params, Tensor):
        return Plain(lambda tree: loss(*tree.values()))
    return loss if isinstance(loss, LossFunction) else Plain(loss)


def measured_on(loss: LossFunction) -> dict[str, Any]:
    """Return data, samples and batch_norm of a loss, whatever else it says of itself."""
    said = loss.describe()
    return {key: said.get(key, nothing) for key, nothing in UNKNOWN.items()}
