"""Labels replaced at random: what a network can only memorise (Zhang et al. 2017, arXiv:1611.03530)."""

import torch
from torch import Generator, Tensor

from gengap.core.errors import BadInput
from gengap.core.seeds import stream


def randomise_labels(targets: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """Give a share of the samples a label drawn uniformly from all classes, the right one among them.

    Exactly round(share x N) samples are drawn, without repetition; those of a smaller share are among those of a larger,
    and get the same label there. So a share s leaves about s / classes fewer wrong labels than it draws.

    Args:
        targets: class numbers, integers of shape (N,); or (N, T), where all positions of a chosen sample are drawn anew.
        share: from 0 to 1.
        classes: number of labels, >= 1.
        seed: what samples and labels are drawn from.

    Returns:
        The labels, a tensor of its own of the same shape and dtype.

    Raises:
        BadInput: `share` is outside 0 to 1, targets are no class numbers, or there is no class.
    """
    if not 0 <= share <= 1:
        raise BadInput(f"the share of random labels is {share}; choose 0 to 1")
    if targets.is_floating_point() or targets.ndim < 1 or classes < 1:
        raise BadInput(
            f"labels of {targets.dtype} and shape {tuple(targets.shape)} with {classes} classes cannot be randomised; "
            f"give class numbers of shape (N, ...) and at least one class"
        )
    rng = Generator().manual_seed(stream(seed, "labels"))
    chosen = torch.randperm(len(targets), generator=rng)[: round(share * len(targets))]
    drawn = torch.randint(classes, targets.shape, generator=rng)
    changed, chosen = targets.clone(), chosen.to(targets.device)
    changed[chosen] = drawn.to(targets)[chosen]
    return changed
