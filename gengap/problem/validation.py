"""Samples to choose by: held out of training, so that the test set is looked at once."""

import torch
from torch import Tensor

from gengap.core.catalogue import resolve
from gengap.core.errors import BadInput
from gengap.problem.problem import Problem

SUBSET = "gengap.data.order:subset"  # named, not imported: data sets lie above problems


def hold_out(problem: Problem, validation: float, *, seed: int = 0) -> Problem:
    """Hold training samples of a problem out for validation.

    Args:
        problem: of N training samples.
        validation: a share of them below 1, or how many; 0: none.
        seed: what they are drawn from.

    Returns:
        The problem with a smaller training set and a "validation" split; itself where nothing is held out.

    Raises:
        BadInput: there are not so many samples, or the problem has samples to choose by already.
    """
    rest, held = parted(validation, len(problem.samples("train")), seed=seed)
    if not len(held):
        return problem
    if "validation" in problem.splits:
        raise BadInput(
            f"validation is {validation!r}, but {problem.name} has {len(problem.samples('validation')):,} samples to "
            "choose by already; leave it out"
        )
    return problem.with_validation(rest, held)


def parted(validation: float, total: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Part the training samples into those that train and those that are held out.

    The larger part begins with what `subset` chooses for smaller training sets, so that none of these touches what is
    held out.

    Args:
        validation: a share below 1, or how many are held out.
        total: N.
        seed: what they are drawn from.

    Returns:
        Indices of both parts, ascending, int64.

    Raises:
        BadInput: nothing would be left to train on, or `validation` is no share and no number.
    """
    count = round(validation * total) if 0 < validation < 1 else validation
    if not 0 <= count < total or count != int(count) or (validation and not count):
        raise BadInput(
            f"validation is {validation!r}; give a share of the {total:,} training samples below 1, or how many"
        )
    rest = resolve(SUBSET)(seed, total, total - int(count))
    held = torch.ones(total, dtype=torch.bool)
    held[rest] = False
    return rest, held.nonzero().flatten()
