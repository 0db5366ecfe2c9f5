"""Speech as frames: each with its neighbours, so that one input sees the sound around it."""

import torch
from torch import Tensor

from gengap.core.errors import BadInput


def splice(features: Tensor, context: int) -> Tensor:
    """Put every frame beside its neighbours; at the ends of a recording its first or last frame is repeated.

    Args:
        features: shape (frames, D), one recording.
        context: neighbours on each side, >= 0; 4 in Keskar et al. 2017, whose 360 inputs are 9 frames of 40.

    Returns:
        Shape (frames, (2 x context + 1) x D), the earliest neighbour first.

    Raises:
        BadInput: `context` is negative.
    """
    if context < 0:
        raise BadInput(f"context is {context}; choose 0 or more frames on each side")
    frames = len(features)
    places = torch.arange(frames)[:, None] + torch.arange(-context, context + 1)
    return features[places.clamp(0, max(frames - 1, 0))].flatten(1)
