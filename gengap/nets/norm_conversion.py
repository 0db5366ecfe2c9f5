"""Other batch norm for a model that is there: ghost batches, spans of ranks, plain again; and Akiba's last batch.

A layer keeps its identity, parameters, buffers and hooks and changes its class only, so optimizers, shared layers and
`state_dict` stay as they are.
"""

import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.core.errors import BadInput
from gengap.nets.norms import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d, checked_ghost_size
from gengap.nets.span_norms import (
    Span,
    SpanBatchNorm1d,
    SpanBatchNorm2d,
    SpanBatchNorm3d,
    checked_span,
    group_of,
)

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
GHOST = (GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d)
SPAN = (SpanBatchNorm1d, SpanBatchNorm2d, SpanBatchNorm3d)
OWN = ("ghost_size", "span")  # attributes that a plain layer lacks


def convert_ghost_batch_norm(model: nn.Module, ghost_size: int) -> nn.Module:
    """Turn every batch norm of a model into ghost batch norm, in place.

    Args:
        model: any module with `torch.nn.BatchNorm1d`, `2d` or `3d` in it, or one of them itself; ghost and span layers
            are converted too.
        ghost_size: samples in a ghost batch, >= 1.

    Returns:
        The model.

    Raises:
        BadInput: `ghost_size` cannot be used; the model has no batch norm, or one of another class (`SyncBatchNorm`, lazy
            layers, subclasses), which is named. Nothing is changed then.

    Source:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1.
    """
    return converted(model, GHOST, ghost_size=checked_ghost_size(ghost_size))


def convert_span_batch_norm(model: nn.Module, span: Span = "all", *, ghost_size: int | None = None) -> nn.Module:
    """Choose which samples of a data-parallel batch share the statistics of batch norm, in place.

    Args:
        model: as for `convert_ghost_batch_norm`.
        span: statistics are shared by groups of so many consecutive ranks; "all" ranks; or "rank": each has its own.
        ghost_size: with "rank" (or 1), cut the samples of the rank further into ghost batches; by default they are not.

    Returns:
        The model.

    Raises:
        BadInput: as for `convert_ghost_batch_norm`; or `span` cannot be used, or shares what `ghost_size` divides.
    """
    if checked_span(span) not in {"rank", 1}:
        if ghost_size is not None:
            raise BadInput(
                f"span is {span!r} and ghost_size {ghost_size}; statistics are shared between ranks or divided within "
                f"one: leave out ghost_size, or give span='rank'"
            )
        return converted(model, SPAN, span=span)
    if ghost_size is not None:
        return convert_ghost_batch_norm(model, ghost_size)
    return converted(model, PLAIN)


def convert_plain_batch_norm(model: nn.Module) -> nn.Module:
    """Turn ghost and span layers back into torch's, in place; a model without them is left as it is.

    Args:
        model: any module.

    Returns:
        The model.
    """
    for norm in model.modules():
        if type(norm) in GHOST + SPAN:
            become(norm, PLAIN)
    return model


def last_batch_statistics(model: nn.Module) -> nn.Module:
    """Let every batch norm use the statistics of the latest training batch in evaluation mode, without moving averages.

    Sets the momentum of the running statistics to 1, in place: they are those of the last batch (with ghost batch norm,
    of the last ghost batch). With several ranks call `average_statistics` before an evaluation.

    Args:
        model: any module.

    Returns:
        The model.

    Source:
        Akiba, Suzuki & Fukuda 2017, arXiv:1711.04325: batch norm without moving averages.
    """
    for norm in norms_of(model).values():
        norm.momentum = 1.0
    return model


def average_statistics(model: nn.Module) -> nn.Module:
    """Replace running statistics by their mean over all ranks, in place; all ranks must call it together.

    Means and variances are averaged as they are, every rank weighing the same. Without several ranks nothing happens.

    Args:
        model: any module, the same on all ranks.

    Returns:
        The model.

    Source:
        Akiba, Suzuki & Fukuda 2017, arXiv:1711.04325: statistics for validation are averaged over workers.
    """
    group = group_of("all")
    for norm in norms_of(model).values() if group is not None else ():
        for running in (norm.running_mean, norm.running_var):
            if running is not None:
                dist.all_reduce(running, group=group)
                running.div_(dist.get_world_size(group))
    return model


def norms_of(model: nn.Module) -> dict[str, _BatchNorm]:
    """Find all batch norm layers, each once, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}


def converted(model: nn.Module, family: tuple[type[_BatchNorm], ...], **attributes: Span) -> nn.Module:
    """Convert every batch norm of a model, or none.

    Args:
        model: any module.
        family: the classes for 1d, 2d and 3d.
        attributes: what these have beyond a plain layer.

    Returns:
        The model.

    Raises:
        BadInput: there is no batch norm, or one of another class.
    """
    norms = norms_of(model)
    if not norms:
        raise BadInput(f"{type(model).__name__} has no batch norm to convert; leave the conversion out")
    for name, norm in norms.items():
        if type(norm) not in PLAIN + GHOST + SPAN:
            kinds = ", ".join(kind.__name__ for kind in PLAIN)
            where = f" at {name!r}" if name else ""
            raise BadInput(f"the model has a {type(norm).__name__}{where}, which cannot be converted; use {kinds}")
    for norm in norms.values():
        become(norm, family, **attributes)
    return model


def become(norm: nn.Module, family: tuple[type[_BatchNorm], ...], **attributes: Span) -> None:
    """Change the class of a layer, as torch's lazy layers do when they know their shape."""
    dimension = next(i for i, plain in enumerate(PLAIN) if isinstance(norm, plain))
    for name in OWN:
        norm.__dict__.pop(name, None)
    norm.__class__ = family[dimension]
    norm.__dict__.update(attributes)
