"""Targets that are not quite certain."""

import torch.nn.functional as F
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.problem.losses import Loss, largest_is_target, over_samples


def smooth(amount: float) -> Loss:
    """Give cross-entropy against targets that have (1 - a) for the label's class, and a / C more for each of C classes.

    The smallest value that it can reach is the entropy of these targets, not 0: train on it, and compare plain cross-entropies.
    It is a loss as any other, so `smooth(0.1).mean` goes into every objective.

    Args:
        amount: a, at least 0 and less than 1.

    Returns:
        The loss, in nats. Targets are class numbers, or probabilities; outputs (B, C) or (B, C, ...).

    Raises:
        BadInput: `amount` is out of its range.

    Source:
        Szegedy et al. 2015, arXiv:1512.00567, sec. 7; computed by torch.
    """
    if not 0 <= amount < 1:
        raise BadInput(f"label smoothing is {amount}; give the share spread over all classes, 0 to below 1")

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=amount)

    def each(outputs: Tensor, targets: Tensor) -> Tensor:
        return over_samples(F.cross_entropy(outputs, targets, reduction="none", label_smoothing=amount))

    return Loss(f"cross_entropy, labels smoothed by {amount:g}", mean, largest_is_target, each)
