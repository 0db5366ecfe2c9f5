"""`gengap.loss_function`: the loss of a ready model on ready data, for measures."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.problem.evaluate import BatchNormMode, LossFunction, Params
from gengap.problem.from_data import samples_of
from gengap.problem.losses import Loss, MeanLoss, as_loss, check_scalar
from gengap.problem.problem import REHEARSED, check_labels, said, shape_of
from gengap.problem.random_state import kept
from gengap.problem.samples import Samples
from gengap.problem.trees import feed


def loss_function(
    model: nn.Module,
    loss: str | MeanLoss,
    data: Any,
    *,
    batch_norm: BatchNormMode = "running",
    samples: Tensor | Sequence[int] | None = None,
    batch_size: int | None = None,
    buffers: Params | None = None,
) -> LossFunction:
    """Give the mean loss of a model over data as a function of its parameters: what measures take.

    The matching parameters are `dict(model.named_parameters())`, or a checkpoint's tensors of the same names::

        loss = gengap.loss_function(model, "cross_entropy", train_loader)
        gengap.top_eigenvalues(loss, dict(model.named_parameters()))

    The model is copied, and the copy is used in evaluation mode, so that dropout is off: the model, its buffers, mode and
    gradients stay as they are, and so do the global random generators. Hooks on the model are called by the copy too.
    Parameters that require no gradient are held fixed by measures.

    Of a DataLoader the data set and the `collate_fn` are used, in an order and in batches of our own: the mean over a set
    does not depend on them. A loader that shuffles or drops its last batch is welcome, and all samples count. Data sets up
    to 4 GiB are read once into memory; larger ones, and those whose batches are padded to different lengths, are read
    again in every pass. A measure refuses data that change from reading to reading, as augmentation makes them, unless its
    check is off.

    Args:
        model: the network. Inputs that are a tuple become its positional arguments, a dict its keyword arguments.
        loss: "cross_entropy", "binary_cross_entropy", "mean_square", or a function of (outputs, targets) that returns the
            mean over samples as a scalar tensor. Outputs are whatever the model returns; where that is not one tensor with
            a row a sample, measures that need single samples or the Gauss-Newton matrix refuse it.
        data: a pair of tensors (inputs, targets), a map-style `Dataset` of such pairs, or a `DataLoader` of one.
        batch_norm: statistics used: "running" (those in `buffers`), "batch" (of evaluation batches of at most 5,000), or
            "recompute" (over all of the data at each point).
        samples: indices of the samples to use, or a mask; by default all.
        batch_size: samples at once, where the default does not suit; with batch norm by batch statistics it matters.
        buffers: to evaluate with; by default the model's own.

    Returns:
        A callable: params (dict of name to tensor) to a scalar, in nats per sample. Costs one forward pass over 8 samples.

    Raises:
        BadInput: an argument cannot be used, the data give no (inputs, targets), or model and loss do not take them.
    """
    check_model(model)
    name, found = type(model).__name__, as_loss(loss)
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise BadInput(f"batch_size is {batch_size!r}; give a whole number of at least 1")
    own = dict(model.named_buffers())
    check_buffers(buffers or {}, own)
    with kept():
        twin = copied(model, name).eval()
        chosen, source, called = samples_of(data, samples)
        rehearse(twin, found, chosen, name)
    every = {**own, **(buffers or {})}
    made = LossFunction(twin, found, chosen, data=called, batch_norm=batch_norm, buffers=every, chunk=batch_size)
    made.source = source
    return made


def check_model(model: Any) -> None:
    """Refuse what is no network, and wrappers under which its parameters have other names.

    Args:
        model: what the user gave.

    Raises:
        BadInput: it is one of them.
    """
    if not isinstance(model, nn.Module):
        hint = "; call it to make one" if isinstance(model, type) or callable(model) else ""
        raise BadInput(f"model is a {type(model).__name__}; give a torch.nn.Module{hint}")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise BadInput(f"model is a {type(model).__name__}; give the network inside it, model.module")
    if hasattr(model, "_orig_mod"):
        raise BadInput("model is compiled, and a compiled network has no second derivative; give model._orig_mod")
    if not any(p.is_floating_point() for p in model.parameters()):
        raise BadInput(f"model, a {type(model).__name__}, has no weights; give a network with parameters")


def copied(model: nn.Module, name: str) -> nn.Module:
    """Copy a network.

    Args:
        model: the user's.
        name: for the message.

    Returns:
        The copy.

    Raises:
        BadInput: it cannot be copied, for example because it keeps a result of its last forward pass.
    """
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            f"{name} cannot be copied ({said(error)}); let it keep no tensors of a forward pass, file or lock, or give a fresh "
            f"one with the weights loaded"
        ) from error


def check_buffers(given: Params, own: Params) -> None:
    """Refuse buffers of another network.

    Args:
        given: the user's; those that are missing are taken from the model.
        own: the model's.

    Raises:
        BadInput: a name is unknown, or a shape is another.
    """
    for name, buffer in given.items():
        if name not in own:
            raise BadInput(f"buffers holds {name!r}, which is no buffer of the model; give dict(model.named_buffers())")
        if buffer.shape != own[name].shape:
            shapes = f"{tuple(buffer.shape)}, and the model's {tuple(own[name].shape)}"
            raise BadInput(f"buffers[{name!r}] has shape {shapes}; give the buffers of the same network")


def rehearse(model: nn.Module, loss: Loss, samples: Samples, name: str) -> None:
    """Evaluate the loss of a few samples before anything long begins.

    Args:
        model: a copy, in evaluation mode.
        loss: that compares outputs and targets.
        samples: of which the first are used.
        name: of the model, for messages.

    Raises:
        BadInput: the samples cannot be read, or model or loss do not take them; one sentence each.
    """
    example = next(p for p in model.parameters() if p.is_floating_point())
    try:
        few = samples.subset(torch.arange(min(REHEARSED, len(samples)))).to(example.device, example.dtype)
        inputs, targets = next(iter(few.batches(REHEARSED)))
    except Exception as error:  # a user's data set may raise anything
        raise BadInput(f"the first samples cannot be read: {said(error)}") from error
    with torch.no_grad():
        try:
            outputs = feed(model, inputs)
        except Exception as error:  # and so may a user's model
            raise BadInput(f"{name} does not take inputs of shape {shape_of(inputs)}: {said(error)}") from error
        if loss.each is not None and not isinstance(outputs, Tensor):
            raise BadInput(
                f"{name} gives a {type(outputs).__name__}, and {loss.name} compares one tensor; give a function of (outputs, "
                f"targets) instead, or wrap the model in a module that returns the tensor"
            )
        if loss.name == "cross_entropy" and loss.each is not None:
            check_labels(outputs, samples, "data", name)
        try:
            value = loss.mean(outputs, targets)
        except Exception as error:  # and a user's loss
            shapes = f"a {type(outputs).__name__} of outputs" if not isinstance(outputs, Tensor) else shape_of(outputs)
            raise BadInput(
                f"the loss {loss.name!r} does not take outputs of shape {shapes} and targets of shape "
                f"{tuple(targets.shape)}: {said(error)}"
            ) from error
    check_scalar(value, loss.name)
