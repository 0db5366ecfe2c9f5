"""A problem: what is learnt."""

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.catalogue import NETWORKS, find, resolve
from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.problem.evaluate import BatchNormMode, LossFunction, Params
from gengap.problem.losses import Loss, MeanLoss, as_loss, check_scalar
from gengap.problem.samples import Batch, InMemory, Samples, as_samples
from gengap.problem.trees import cast, feed

CPU = torch.device("cpu")
REHEARSED = 8  # samples
SAID = {"train": "training", "test": "test", "validation": "validation"}


@dataclass(frozen=True, slots=True)
class Origin:
    """How a problem can be made again: what a study file says of it.

    Attributes:
        data: catalogue name of the data set, or None.
        network: catalogue name of the network, or None.
        factory: "package.module:function" that returns the problem, or None.
        options: options of the data set, for example {"train_size": 500}.
    """

    data: str | None = None
    network: str | None = None
    factory: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


class Problem:
    """A model, a loss, training and test data.

    Args:
        model: a function that makes a fresh `nn.Module`, or a name of the catalogue (`gengap list networks`).
        loss: "cross_entropy", "binary_cross_entropy", "mean_square", or a function of (outputs, targets) that returns
            the mean over samples as a scalar tensor.
        train: (inputs, targets) as tensors, or a map-style `torch.utils.data.Dataset` of such pairs. Inputs may be one
            tensor, a tuple (positional arguments of the model) or a dict (keyword arguments); first axis: samples.
        test: the same for the test samples.
        validation: the same for samples to choose by, which neither train nor are reported; None: there are none.
        name: what tables call it; by default the name of the model.
        memory_limit: a data set larger than this is streamed through a DataLoader instead of being read once. One read
            once is read before training: random augmentation inside it would be frozen.
        origin: how it can be made again; set by `gengap.load` and by the command line.

    Raises:
        BadInput: an argument cannot be used; the text says which and why.
    """

    def __init__(
        self,
        *,
        model: str | Callable[[], nn.Module],
        loss: str | MeanLoss,
        train: Any,
        test: Any,
        validation: Any = None,
        name: str | None = None,
        memory_limit: str | int = "4 GiB",
        origin: Origin | None = None,
    ) -> None:
        self._factory = resolve(find("network", NETWORKS, model).builder) if isinstance(model, str) else model
        if not callable(self._factory) or isinstance(self._factory, nn.Module):
            raise BadInput(
                "model is a ready network; give a function that makes a fresh one, for example model=lambda: MyNet(), "
                "because every run starts from new weights"
            )
        self.loss: Loss = as_loss(loss)
        given = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
        self._splits = {which: as_samples(split, which, memory_limit) for which, split in given.items()}
        self.name: str = name or (
            model if isinstance(model, str) else str(getattr(model, "__name__", type(model).__name__))
        )
        self.origin = origin or Origin(network=model if isinstance(model, str) else None)

    def __repr__(self) -> str:
        *others, last = [f"{len(split):,} {SAID[which]}" for which, split in self._splits.items()]
        return f"Problem({self.name}: {', '.join(others)} and {last} samples, {self.loss.name})"

    @property
    def train(self) -> Any:
        """Training (inputs, targets), or the data set itself where it is streamed."""
        return raw(self._splits["train"])

    @property
    def test(self) -> Any:
        """Test (inputs, targets), or the data set itself where it is streamed."""
        return raw(self._splits["test"])

    def first(self, which: str, count: int) -> Batch:
        """Give the first samples of a split as a float32 network on the CPU takes them."""
        inputs, targets = next(iter(self._splits[which].batches(min(count, len(self._splits[which])))))
        return cast(inputs, CPU, torch.float32), cast(targets, CPU, torch.float32)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits: "train", "test", and "validation" where there is one."""
        return tuple(self._splits)

    def samples(self, which: str) -> Samples:
        """Give the "train", "test" or "validation" split."""
        return self._splits[which]

    def model(
        self, seed: int | None = None, *, device: torch.device = CPU, dtype: torch.dtype = torch.float32
    ) -> nn.Module:
        """Make a fresh module.

        Args:
            seed: of the initial weights; the same seed gives the same weights whatever the batch size. None: as torch's
                global generator has it.
            device: where the module lies; weights are drawn on the CPU, so that they do not depend on it.
            dtype: of its floating parameters and buffers.

        Returns:
            The module, in training mode.

        Raises:
            BadInput: the factory gives something else.
        """
        if seed is None:
            return as_module(self._factory()).to(device, dtype)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                stream(seed, "init")
            )  # `torch.manual_seed` seeds accelerators too, slowly
            return as_module(self._factory()).to(device, dtype)

    def loss_function(
        self,
        data: str = "train",
        *,
        batch_norm: BatchNormMode = "running",
        buffers: Params | None = None,
        samples: Tensor | None = None,
        batch_size: int | None = None,
    ) -> LossFunction:
        """Give the mean loss over a split as a function of the parameters: what measures take.

        Args:
            data: "train", "test", or "validation" where there is one.
            batch_norm: statistics used: "running" (those in `buffers`), "batch" (of evaluation batches of 5,000), or
                "recompute" (over the training set at each point, in chunks of 5,000).
            buffers: of the trained network (`run.buffers`); by default those of a fresh one.
            samples: indices of the samples to use; by default all.
            batch_size: evaluation batch, where the default does not fit memory or another was used.

        Returns:
            A callable: params (dict of name to tensor) to a scalar, in nats per sample.

        Raises:
            BadInput: `data` is no split, or batch_norm no such mode.
        """
        if data not in self._splits:
            raise BadInput(f"data is {data!r}; choose {' or '.join(map(repr, self._splits))}")
        chosen = self._splits[data] if samples is None else self._splits[data].subset(samples)
        return LossFunction(
            self.model(seed=0),
            self.loss,
            chosen,
            data=data,
            batch_norm=batch_norm,
            buffers=buffers,
            statistics=self._splits["train"] if batch_norm == "recompute" else None,
            chunk=batch_size,
        )

    @cached_property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return sum(p.numel() for p in self.model(seed=0).parameters() if p.requires_grad)

    @cached_property
    def has_batch_norm(self) -> bool:
        """Whether the network normalises by batch statistics."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model(seed=0).modules())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything a run depends on beside its recipe: layers, initial weights, loss and every sample."""
        model = self.model(seed=0)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{model!r}|{self.loss.name}".encode())
        for name, value in model.state_dict().items():
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for split in self._splits.values():
            digest.update(split.fingerprint().encode())
        if self.origin.data is None:
            digest.update(self._behaviour().encode())
        return digest.hexdigest()

    def _behaviour(self) -> str:
        """Tell apart losses and forward passes of a user's that bear the same name."""
        inputs, targets = self.first("train", REHEARSED)
        try:
            with torch.no_grad():
                value = float(self.loss.mean(feed(self.model(seed=0).eval(), inputs), targets))
        except (RuntimeError, TypeError, ValueError, IndexError):
            return ""  # `check` says what is wrong
        return f"{value:.4e}"  # rounded, because processors differ in the last digits

    def head(self, train: int, test: int) -> "Problem":
        """Give the same problem on its first samples only, at most so many of each split: for trying things out."""
        other = copy.copy(self)
        sizes = {"train": train, "test": test, "validation": test}
        other._splits = {
            which: split.subset(torch.arange(min(len(split), sizes[which]))) for which, split in self._splits.items()
        }
        other.__dict__.pop("fingerprint", None)
        return other

    def with_validation(self, train: Tensor, validation: Tensor) -> "Problem":
        """Give the problem with its training samples parted by their indices: those that train, and those to choose by."""
        other, whole = copy.copy(self), self._splits["train"]
        other._splits = self._splits | {"train": whole.subset(train), "validation": whole.subset(validation)}
        other.__dict__.pop("fingerprint", None)
        return other

    def check(self) -> None:
        """Rehearse on a few samples of every split before anything long begins: forward, loss, backward.

        Raises:
            BadInput: the model does not take the inputs, gives the wrong number of classes, has nothing to train, or the
                loss is no finite scalar that depends on the weights; one sentence each.
        """
        model = self.model(seed=0)
        if not any(p.requires_grad for p in model.parameters()):
            raise BadInput(f"{self.name} has no weights to train; give a model with parameters that require a gradient")
        with torch.random.fork_rng(devices=[]):
            value = self._rehearse(model.train(len(self._splits["train"]) > 1), "train")
        for which in self.splits[1:]:
            self._rehearse(model.eval(), which)
        try:
            value.backward()
        except RuntimeError as error:
            raise BadInput(
                f"the loss {self.loss.name!r} has no gradient by the weights: {first_line(error)}"
            ) from error

    def _rehearse(self, model: nn.Module, which: str) -> Tensor:
        """Give the loss of a few samples of one split."""
        split, kind = self._splits[which], "" if which == "train" else f"{which} "
        try:
            inputs, targets = self.first(which, REHEARSED)
        except Exception as error:  # a user's data set may raise anything
            raise BadInput(f"the first samples of the {which} split cannot be read: {said(error)}") from error
        try:
            outputs = feed(model, inputs)
        except Exception as error:  # and so may a user's model
            takes = f"{self.name} does not take {kind}inputs of shape {shape_of(inputs)}"
            raise BadInput(f"{takes}: {said(error)}") from error
        if not isinstance(outputs, Tensor):
            raise BadInput(f"{self.name} gives a {type(outputs).__name__}; it must give one tensor of outputs")
        if self.loss.name == "cross_entropy":
            check_labels(outputs, split, which, self.name)
        try:
            value = self.loss.mean(outputs, targets)
        except Exception as error:  # and a user's loss
            shapes = f"outputs of shape {tuple(outputs.shape)} and {kind}targets of shape {tuple(targets.shape)}"
            raise BadInput(f"the loss {self.loss.name!r} does not take {shapes}: {said(error)}") from error
        check_scalar(value, self.loss.name)
        if not math.isfinite(float(value.detach())):
            raise BadInput(
                f"the loss of the untrained {self.name} is {float(value.detach())}; look for {kind}inputs that are not finite "
                f"or outputs that overflow"
            )
        return value

    def with_origin(self, origin: Origin) -> "Problem":
        """Give the same problem with a note of how to make it again."""
        other = copy.copy(self)
        other.origin = origin
        other.__dict__.pop("fingerprint", None)
        return other


def as_module(made: Any) -> nn.Module:
    """Refuse what is no network.

    Args:
        made: what a factory returned.

    Returns:
        The same.

    Raises:
        BadInput: it is no `nn.Module`.
    """
    if not isinstance(made, nn.Module):
        raise BadInput(f"model made a {type(made).__name__}; it must make a torch.nn.Module")
    return made


def raw(samples: Samples) -> Any:
    """Return what a user would recognise: tensors, or the data set."""
    return (samples.inputs, samples.targets) if isinstance(samples, InMemory) else samples.dataset  # type: ignore[attr-defined]


def check_labels(outputs: Tensor, split: Samples, which: str, name: str) -> None:
    """Refuse class numbers that the network has no output for.

    Args:
        outputs: what the network gave for a few samples, shape (B, C, ...).
        split: samples whose labels to check; streamed ones are checked as they are read.
        which: name of the split, for the message.
        name: of the network, for the message.

    Raises:
        BadInput: outputs are no table of class scores, or a label is negative or not below C.
    """
    if not isinstance(split, InMemory) or split.targets.is_floating_point():
        return
    if outputs.ndim < 2:
        raise BadInput(f"{name} gives outputs of shape {tuple(outputs.shape)}; cross_entropy needs one score per class")
    low, high, classes = int(split.targets.min()), int(split.targets.max()), outputs.shape[1]
    if low < 0:
        raise BadInput(f"a label of the {which} split is {low}; labels are class numbers from 0")
    if high >= classes:
        raise BadInput(
            f"{name} has {classes} outputs, but a label of the {which} split is {high}; "
            f"give it at least {high + 1} outputs or mend the labels"
        )


def shape_of(inputs: Any) -> str:
    """Describe the shapes of a batch of inputs."""
    if isinstance(inputs, Tensor):
        return str(tuple(inputs.shape))
    parts = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    return ", ".join(f"{key}: {shape_of(value)}" for key, value in parts)


def said(error: Exception) -> str:
    """Give the first line of an error, with its type where that says more than the text."""
    text = first_line(error)
    return text if isinstance(error, RuntimeError | BadInput) else f"{type(error).__name__}: {text}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return str(error).partition("\n")[0]
