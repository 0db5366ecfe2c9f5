"""Whether a loss is the mean of its samples' losses, which whatever looks at single samples takes for granted."""

from typing import Any

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.measures.protocols import SamplePiece


def check_mean_over_samples(piece: SamplePiece, outputs: Any, what: str) -> None:
    """Refuse a loss whose single samples do not average to it: a sum, a class-weighted mean, or a penalty added.

    Args:
        piece: some samples of the loss; with one sample alone a sum cannot be told from a mean.
        outputs: of the network for them.
        what: the measure that needs single samples, for the message.

    Raises:
        BadInput: the network gives something else than one tensor with a row a sample, or the mean of the samples' losses
            is not the loss.
    """
    if not isinstance(outputs, Tensor) or not outputs.ndim or outputs.shape[0] != piece.size:
        kind = (
            f"a tensor of shape {tuple(outputs.shape)}"
            if isinstance(outputs, Tensor)
            else f"a {type(outputs).__name__}"
        )
        raise BadInput(
            f"{what} needs the outputs of each of {piece.size} samples, but the network gives {kind}; wrap it in a module "
            f"that returns one tensor whose first axis is samples"
        )
    with torch.no_grad():
        each, mean = piece.losses(outputs.detach()), piece.mean(outputs.detach())
    average, whole = float(each.mean(dtype=torch.float64)), float(mean)
    scale = max(float(each.abs().mean(dtype=torch.float64)), abs(whole))
    if not abs(average - whole) <= torch.finfo(mean.dtype).eps ** 0.5 * scale:
        raise BadInput(
            f"{what} needs a loss that is the mean over samples, but {piece.size} samples alone average to {average:.6g} and "
            f"together give {whole:.6g}; give one without a sum, class weights, ignored targets or a penalty"
        )
