"""A problem's loss as a function of its parameters: what every measure takes."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.core.errors import BadInput
from gengap.problem.losses import Loss
from gengap.problem.samples import Samples, Streamed
from gengap.problem.trees import arguments, map_tensors

Params = Mapping[str, Tensor]
BatchNormMode = Literal["running", "batch", "recompute"]
CHUNK = 500  # samples a forward pass takes at once when statistics do not depend on it
BATCH_STATISTICS = 5000  # the evaluation batch of Keskar's code, SPEC of "batch" and "recompute"


@dataclass(frozen=True, slots=True)
class Score:
    """What a network does on a split.

    Attributes:
        loss: mean over samples, nats.
        accuracy: percent, or None where right answers cannot be counted.
        samples: how many samples were scored.
    """

    loss: float
    accuracy: float | None
    samples: int


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some samples of a split, and what the loss makes of them as a function of the parameters.

    Attributes:
        size: number of samples.
        network: (params, inputs) to the outputs of the network: one tensor, or whatever the loss of a user takes.
        loss: what compares outputs with targets.
        inputs: of the samples.
        targets: of the samples.
    """

    size: int
    network: Callable[[Params, Any], Any]
    loss: Loss
    inputs: Any
    targets: Tensor

    def outputs(self, params: Params) -> Any:
        """Return what the network gives, shape (size, ...)."""
        return self.network(params, self.inputs)

    def mean(self, outputs: Any) -> Tensor:
        """Return the mean loss of such outputs, a scalar in float64: see `compared`."""
        return self.loss.mean(*compared(self.loss, outputs, self.targets))

    def losses(self, outputs: Tensor) -> Tensor:
        """Return the loss of every sample, shape (size,), in float64."""
        return self.loss.losses(*compared(self.loss, outputs, self.targets))

    def __call__(self, params: Params) -> Tensor:
        """Return the mean loss over the samples, a scalar."""
        return self.mean(self.outputs(params))

    def head(self, count: int) -> "Chunk":
        """Give the first `count` samples."""
        inputs = map_tensors(lambda x: x[:count], self.inputs)
        return replace(self, size=count, inputs=inputs, targets=self.targets[:count])


def compared(loss: Loss, outputs: Any, targets: Tensor) -> tuple[Any, Tensor]:
    """Give outputs and targets to a loss in float64, where the device has it and the loss is one of ours.

    The outputs of a network are few, and near a minimum 1 minus the probability of the right class has only the digits
    that float32 leaves below 1: the loss, its gradient and its curvature are sums of such differences. A user's loss may
    hold tensors of its own, so it gets what the network gave.

    Args:
        loss: that compares them.
        outputs: of the network.
        targets: of the samples.

    Returns:
        The two, in the dtype to compare them in.
    """
    if loss.each is None or outputs.device.type == "mps":
        return outputs, targets
    return outputs.double(), targets.double() if targets.is_floating_point() else targets


class LossFunction:
    """The mean loss over a split as a deterministic function of the parameters; dropout is off.

    Called, it gives a scalar tensor that can be differentiated to any order, and holds the activations of the whole
    split while it does. `value`, `value_and_grad` and `score` go through it in chunks and need the memory of one.
    The module is a private one: nothing of the user's is touched.

    Attributes:
        buffers: buffers the network is evaluated with (the running statistics of batch norm among them).
        frozen: names of parameters that the model does not train; measures leave them where they are.
        untrained_rows: by name of an embedding's weight, the row that it does not train (padding_idx). A row of a weight
            that has another use too is trained by that, and differentiated in both.
        source: the data set that the samples were read from, where it might give others when read again.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        samples: Samples,
        *,
        data: str,
        batch_norm: BatchNormMode = "running",
        buffers: Params | None = None,
        statistics: Samples | None = None,
        chunk: int | None = None,
    ) -> None:
        if batch_norm not in get_args(BatchNormMode):
            modes = ", ".join(get_args(BatchNormMode))
            raise BadInput(f"batch_norm is {batch_norm!r}; choose one of {modes}")
        self._model, self._loss, self._samples, self._data = model.eval(), loss, samples, data
        named = dict(model.named_parameters())
        self._shapes = {name: p.shape for name, p in named.items()}
        self.untrained_rows = padding_rows(model)
        self.frozen = frozenset(name for name, p in named.items() if not p.requires_grad)
        self._norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
        self._mode: str = batch_norm if self._norms else "none"
        self._check_norms()
        self.source = samples if isinstance(samples, Streamed) else None
        self._statistics = statistics if statistics is not None else samples
        self._chunk = chunk or CHUNK
        if self._mode in {"batch", "recompute"}:
            drawn = self._statistics if self._mode == "recompute" else samples
            self._chunk = even_size(len(drawn), chunk)
            self._statistics = shuffled(drawn, self._chunk)
            self._samples = self._statistics if drawn is samples else samples
        self.buffers = {k: v.detach().clone() for k, v in (buffers or dict(model.named_buffers())).items()}
        if self._mode == "batch":
            self._forget_running_statistics()

    def _check_norms(self) -> None:
        for name, norm in self._norms.items():
            if self._mode in {"running", "recompute"} and norm.running_mean is None:
                raise BadInput(f"batch norm {name!r} keeps no running statistics; choose batch_norm='batch'")

    def _forget_running_statistics(self) -> None:
        # Without running statistics torch normalises with those of the batch, in eval mode too.
        for name, norm in self._norms.items():
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(norm, buffer, None)
                self.buffers.pop(f"{name}.{buffer}", None)

    def __call__(self, params: Params) -> Tensor:
        """Return the mean loss as a differentiable scalar tensor, in float64."""
        total = len(self._samples)
        parts = [chunk(params) * (chunk.size / total) for chunk in self.chunks(params)]
        return torch.stack(parts).sum()

    def chunks(self, params: Params) -> Iterator[Chunk]:
        """Yield the samples chunk by chunk; the loss of the split is the mean of theirs, weighted by their sizes.

        Args:
            params: decides device and dtype; with "recompute" also the statistics, which are then held fixed.

        Yields:
            Chunks of `chunk_size` samples, the last one smaller.
        """
        buffers = self._ready(params)

        def network(p: Params, inputs: Any) -> Any:
            return self._outputs(p, in_dtype_of(p, buffers), inputs)

        for inputs, targets in self._samples.batches(self._chunk):
            yield Chunk(targets.shape[0], network, self._loss, inputs, targets)

    @property
    def chunk_size(self) -> int:
        """Samples that go through the network at once."""
        return min(self._chunk, len(self._samples))

    def with_chunk(self, size: int) -> "LossFunction":
        """Give the same loss evaluated in smaller pieces.

        Args:
            size: samples at once, >= 1.

        Returns:
            The loss; it shares its samples and its module with this one.

        Raises:
            BadInput: batch norm uses the statistics of these pieces, so that others would be another loss.
        """
        if self._mode in {"batch", "recompute"} and size < self.chunk_size:
            raise BadInput(
                f"batch norm uses the statistics of evaluation batches of {self.chunk_size:,} samples, which cannot be cut "
                f"to {size:,}; raise memory_limit, or make the loss function with a smaller batch_size"
            )
        other = copy.copy(self)
        other._chunk = size
        return other

    def value(self, params: Params) -> float:
        """Return the mean loss in nats; one forward pass over the split."""
        return self.score(params).loss

    def score(self, params: Params) -> Score:
        """Return mean loss and accuracy; one forward pass over the split."""
        with torch.no_grad():
            buffers = self._ready(params)
            loss: Tensor | float = 0.0
            correct: Tensor | int | None = 0
            for inputs, targets in self._samples.batches(self._chunk):
                outputs = self._outputs(params, buffers, inputs)
                loss = loss + self._loss.mean(*compared(self._loss, outputs, targets)).double() * targets.shape[0]
                right = self._loss.correct(outputs, targets) if isinstance(outputs, Tensor) else None
                correct = None if right is None or correct is None else correct + right
        total = len(self._samples)
        return Score(float(loss) / total, None if correct is None else 100 * float(correct) / total, total)

    def value_and_grad(self, params: Params) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss and its gradient; one forward and backward pass over the split."""
        total = len(self._samples)
        own = {name: p.detach().requires_grad_() for name, p in params.items()}
        gradient = {name: torch.zeros_like(p) for name, p in own.items()}
        value = torch.zeros((), dtype=torch.float64, device=next(iter(own.values())).device)
        for chunk in self.chunks(own):
            share = chunk.size / total
            with torch.enable_grad():
                mean = chunk(own)
                found = torch.autograd.grad(mean, list(own.values()), allow_unused=True)
            value += mean.detach() * share
            for name, g in zip(own, found, strict=True):
                if g is not None:
                    gradient[name].add_(g, alpha=share)
        return float(value), gradient

    def describe(self) -> dict[str, Any]:
        """Say on what the loss is measured: data, samples, batch-norm mode and the chunk it sees."""
        return {
            "data": self._data,
            "samples": len(self._samples),
            "batch_norm": self._mode,
            "batch_size": self._chunk if self._mode in {"batch", "recompute"} else None,
        }

    def changed_sample(self) -> int | None:
        """Return the index of a sample of the data set that differs between two readings, or None; see `Streamed`."""
        return None if self.source is None else self.source.changed()

    def with_buffers(self, buffers: Params) -> "LossFunction":
        """Evaluate with other buffers from now on (without effect on batch statistics); returns itself."""
        for name in self.buffers:
            self.buffers[name] = buffers[name].detach().clone()
        return self

    def _ready(self, params: Params) -> dict[str, Tensor]:
        """Bring samples and buffers to the parameters' device and dtype, and recompute statistics where asked.

        Args:
            params: weights by name.

        Returns:
            The buffers to evaluate with.

        """
        self._check_names(params)
        example = next(p for p in params.values() if p.is_floating_point())
        self._samples = self._samples.to(example.device, example.dtype)
        buffers = {
            k: v.to(example.device, example.dtype if v.is_floating_point() else v.dtype)
            for k, v in self.buffers.items()
        }
        if self._mode == "recompute":
            buffers = {k: v.clone() for k, v in buffers.items()}  # batch norm counts its batches in place
            self._statistics = self._statistics.to(example.device, example.dtype)
            self._recompute(params, buffers)
        return buffers

    def _check_names(self, params: Params) -> None:
        """Refuse what are no weights of the network; torch would use an untrained weight, or leave one aside.

        Args:
            params: weights by name.

        Raises:
            BadInput: a name is missing or unknown, or a shape is another.
        """
        if missing := sorted(self._shapes.keys() - params.keys()):
            raise BadInput(
                f"params lacks {missing[0]!r}, a weight of the network; give all of them, frozen ones too, by name"
            )
        for name, p in params.items():
            if name not in self._shapes:
                raise BadInput(
                    f"params holds {name!r}, which is no weight of the network; give dict(model.named_parameters()), and "
                    f"buffers apart"
                )
            if p.shape != self._shapes[name]:
                own, given = tuple(self._shapes[name]), tuple(p.shape)
                raise BadInput(
                    f"params[{name!r}] has shape {given}, and the network's {own}; give weights of the same network"
                )

    def _recompute(self, params: Params, buffers: dict[str, Tensor]) -> None:
        """Fill `buffers` with the sample-weighted mean of the statistics of the training set's chunks."""
        momentum = {name: norm.momentum for name, norm in self._norms.items()}
        for key in (f"{name}.{which}" for name in self._norms for which in ("running_mean", "running_var")):
            if key in buffers:  # the first chunk weighs 1, but 0 times nan is nan
                buffers[key] = torch.zeros_like(buffers[key])
        seen = 0
        with torch.no_grad():
            for norm in self._norms.values():
                norm.train()
            for inputs, targets in self._statistics.batches(self._chunk):
                seen += targets.shape[0]
                for norm in self._norms.values():
                    norm.momentum = targets.shape[0] / seen
                self._outputs(params, buffers, inputs)
        for name, norm in self._norms.items():
            norm.eval()
            norm.momentum = momentum[name]

    def _outputs(self, params: Params, buffers: Params, inputs: Any) -> Any:
        args, kwargs = arguments(inputs)
        return functional_call(self._model, ({**params}, {**buffers}), args, kwargs)


def padding_rows(model: nn.Module) -> dict[str, int]:
    """Find the rows that embeddings do not train; embeddings that share their weight are made to differentiate theirs."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for module in model.modules():
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag) or module.padding_idx is None:
            continue
        if uses[id(module.weight)] == 1 and id(module.weight) in names:
            found[names[id(module.weight)]] = module.padding_idx
        elif isinstance(module, nn.Embedding):
            module.padding_idx = None  # of the private copy: half a derivative is that of no function
    return found


def in_dtype_of(params: Params, buffers: Params) -> Params:
    """Give buffers the dtype of weights, which a piece may be asked in another one than the loss was."""
    dtype = next(p.dtype for p in params.values() if p.is_floating_point())
    return {name: b.to(dtype) if b.is_floating_point() else b for name, b in buffers.items()}


def even_size(samples: int, limit: int | None) -> int:
    """Choose the size of evaluation batches: as few as the limit allows, as equal as can be, none of one sample alone."""
    count = math.ceil(samples / (limit or BATCH_STATISTICS))
    size = math.ceil(samples / count)
    while samples % size == 1 and size < samples:
        size += 1
    return size


def shuffled(samples: Samples, size: int) -> Samples:
    """Mix samples that need several evaluation batches, always the same way: a set may be stored class by class."""
    if len(samples) <= size:
        return samples
    return samples.subset(torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)))
