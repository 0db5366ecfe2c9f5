"""Cross-entropy in a form that `torch.func.vmap` maps with its own kernels.

torch's maps its `cross_entropy` by a decomposition in Python, which is several times slower and loads a symbolic algebra
package first. Every other loss is mapped as it is.
"""

import torch
from torch import Tensor

from gengap.problem.losses import LOSSES, Loss, MeanLoss
from gengap.training.objective import smoothed


def mappable(loss: Loss, targets: Tensor, smoothing: float = 0.0) -> MeanLoss:
    """Give the mean loss over a batch.

    Args:
        loss: of the problem.
        targets: all that there are.
        smoothing: share of each label that is spread over all classes.

    Returns:
        A function of (outputs, targets).
    """
    if not has_labels(loss, targets):
        return smoothed(loss, smoothing).mean

    def mean(outputs: Tensor, labels: Tensor) -> Tensor:
        logs = torch.log_softmax(outputs, 1)
        right = -logs.gather(1, labels.unsqueeze(1)).mean()
        return right if not smoothing else (1 - smoothing) * right - smoothing * logs.mean()

    return mean


def has_labels(loss: Loss, targets: Tensor) -> bool:
    """Tell whether the loss is cross-entropy against class numbers, none of them to be ignored."""
    return loss is LOSSES["cross_entropy"] and targets.dtype == torch.int64 and int(targets.min()) >= 0
