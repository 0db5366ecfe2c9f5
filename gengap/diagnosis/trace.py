"""What one run of a training function did, as plain records that can be sent between processes."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Kind = Literal["norm", "bias", "weight"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """With which sizes the function was called."""

    batch_size: int
    accumulate: int = 1
    epochs: int = 2


@dataclass(frozen=True, slots=True)
class Pass:
    """One backward pass."""

    samples: tuple[int, ...] | None  # of the data, in order; None if they could not be told
    epoch: int
    training: bool  # the mode of the model in the forward pass
    gradient: Vector | None  # what it added to .grad, where that was asked for


@dataclass(frozen=True, slots=True)
class Clip:
    """One clipping of gradients."""

    passes: int  # of its window, before it
    scaled: bool  # whether gradients were still multiplied by the scale of the loss


@dataclass(frozen=True, slots=True)
class Update:
    """One step of the optimizer, and the window of backward passes before it."""

    gradient: Vector  # what the optimizer was given
    passes: tuple[Pass, ...]
    carried: bool  # whether .grad held something before the first of the passes
    lr: tuple[float, ...]  # of each parameter group
    schedulers: tuple[int, ...]  # steps that each scheduler had made
    clips: tuple[Clip, ...]
    scaled: bool  # whether the loss was scaled and the scaler had no say in the step

    @property
    def epoch(self) -> int:
        """The epoch of its last pass."""
        return self.passes[-1].epoch

    @property
    def samples(self) -> tuple[int, ...] | None:
        """The samples of all its passes."""
        each = [p.samples for p in self.passes]
        return None if None in each else tuple(i for own in each for i in own or ())


@dataclass(slots=True)
class Epoch:
    """One iteration over a loader."""

    drop_last: bool
    reads: list[int] = field(default_factory=list)
    passes: int = 0


@dataclass(frozen=True, slots=True)
class NormUse:
    """One way in which batch norm was called."""

    training: bool  # with the statistics of the batch
    learning: bool  # in a forward pass with gradients of a model in training mode
    rows: int
    ghost: int | None  # samples that are normalised together at most, whatever the batch
    synchronised: bool  # over all processes
    momentum: float


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """What became of one parameter of the model."""

    name: str
    kind: Kind
    size: int
    weight_decay: float | None  # None: in no optimizer
    frozen: bool  # it was trainable when the model was made
    gradient: bool  # whether any update had a gradient for it


@dataclass(slots=True)
class Trace:
    """One run of a training function."""

    sizes: Sizes
    updates: list[Update] = field(default_factory=list)
    discarded: list[Pass] = field(default_factory=list)  # passes whose gradient reached no update
    epochs: list[Epoch] = field(default_factory=list)
    norms: Counter[NormUse] = field(default_factory=Counter)
    parameters: list[ParameterFacts] = field(default_factory=list)
    foreign: int = 0  # parameters of the optimizers that the model does not have
    base_lr: tuple[float, ...] = ()  # initial_lr of each group, where a scheduler keeps it, else the highest lr
    randomness: tuple[str, ...] = ()  # fingerprints of torch's, numpy's and Python's generators at the first pass
    start: Vector | None = None  # the weights at the first pass
    distributed: bool = False  # whether the function asked anything of torch.distributed

    @property
    def passes(self) -> int:
        """Backward passes."""
        return sum(len(update.passes) for update in self.updates) + len(self.discarded)

    @property
    def training_epochs(self) -> list[Epoch]:
        """Iterations over a loader that backward passes came from."""
        return [epoch for epoch in self.epochs if epoch.passes]
