"""The network of a run: fresh, on its device, in the form that the recipe asks for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.problem.samples import Samples
from gengap.training.batches import Augment


def make_network(
    problem: Problem,
    recipe: Recipe,
    device: torch.device,
    *,
    start: Mapping[str, Tensor] | None = None,
    processes: int = 1,
) -> nn.Module:
    """Make the network that a recipe trains.

    Args:
        problem: makes the fresh network.
        recipe: its seed, dtype, memory_format, ghost_batch, batch_norm and dropout are used.
        device: where it lies.
        start: weights and buffers by name to begin with, in place of fresh ones.
        processes: how many share each batch.

    Returns:
        The network in training mode; its weights and buffers have the names of the problem's own network.

    Raises:
        BadInput: it has no batch norm or dropout to change, or `start` is of another network.
    """
    dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
    model = problem.model(recipe.seed, device=device, dtype=dtype).train()
    if start is not None:
        load_start(model, start)
    if recipe.dropout is not None:
        from gengap.nets.dropout import set_dropout

        set_dropout(model, recipe.dropout)
    model = with_batch_norm(model, recipe, processes)
    if recipe.memory_format == "channels_last":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def load_start(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Begin with given weights."""
    missing = [name for name in dict(model.named_parameters()) if name not in start]
    unfit = [name for name, value in model.state_dict().items() if name in start and start[name].shape != value.shape]
    if missing or unfit:
        raise BadInput(
            f"the weights to start with do not fit the network at {(missing + unfit)[0]!r}; train the same network"
        )
    model.load_state_dict(dict(start), strict=False)


def with_batch_norm(model: nn.Module, recipe: Recipe, processes: int) -> nn.Module:
    """Give batch norm the span that a recipe asks for: ghosts, one process, or several."""
    ghost = None if recipe.quirks else recipe.ghost_batch  # their code cuts the batch outside the network
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    from gengap.nets.norm_conversion import convert_ghost_batch_norm, convert_span_batch_norm

    if recipe.ghost_batch and not normed:
        raise BadInput(f"ghost_batch is {recipe.ghost_batch}, but the network has no batch norm; leave it out")
    if ghost:
        return convert_ghost_batch_norm(model, ghost)
    if processes > 1 and normed and recipe.norm_span != "rank":
        check_plain(model)
        span = recipe.batch_norm
        return convert_span_batch_norm(model, span)
    return model


def check_plain(model: nn.Module) -> None:
    """Refuse norm layers whose statistics cannot be shared between processes."""
    plain = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in plain:
            raise BadInput(
                f"{name} is a {type(module).__name__}, whose statistics are not shared between processes; set "
                f"batch_norm='rank', or leave ghosts to the recipe's ghost_batch"
            )


def make_augment(recipe: Recipe, train: Samples) -> Augment | None:
    """Make the augmentation of a recipe, or None.

    Args:
        recipe: its augment and seed are used.
        train: the samples; their shape decides what is possible.

    Returns:
        A function of (inputs, indices, epoch).

    Raises:
        BadInput: the inputs are no images.
    """
    if recipe.augment is None:
        return None
    from gengap.data.augment import make_augmentation

    inputs, targets = next(iter(train.batches(1)))
    if targets.shape[1:] == getattr(inputs, "shape", (0,))[1:]:
        raise BadInput(
            f"augment is {recipe.augment.name!r}, which moves inputs and not targets, and here targets are images; leave it out"
        )
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise BadInput(
            f"augment is {recipe.augment.name!r}, which needs images of shape (C, H, W), not {shape}; leave it out"
        )
    made: Augment = make_augmentation(
        recipe.augment.model_dump(exclude_none=True), recipe.seed, tuple(inputs.shape[1:])
    )
    return made
