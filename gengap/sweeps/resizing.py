"""The same problem with fewer training samples, and with some held out to choose by."""

from typing import Any

from gengap.core.errors import BadInput
from gengap.data.order import subset
from gengap.problem.problem import Problem
from gengap.problem.validation import hold_out, parted


def resized(problem: Problem, *, train_size: int | None = None, validation: float = 0) -> Problem:
    """Cut a problem that is there already, by the rules of `gengap.load`.

    Args:
        problem: of N training samples.
        train_size: training samples to keep, of those not held out; None: all. A smaller choice is part of a larger.
        validation: samples held out, a share of N below 1 or how many; 0: none.

    Returns:
        The problem on these samples.

    Raises:
        BadInput: there are not so many samples, or the problem cannot be cut so.
    """
    if train_size is None:
        return hold_out(problem, validation)
    if not validation or "validation" in problem.splits:
        raise BadInput(
            f"train_size is {train_size:,}, but {problem.name} was made outside the catalogue, where samples to choose by and "
            "a smaller training set are drawn together: give it no validation set of its own, and a validation above 0"
        )
    total = len(problem.samples("train"))
    rest, held = parted(validation, total, seed=0)
    if not 1 <= train_size <= len(rest):
        raise BadInput(
            f"train_size is {train_size:,} and {len(held):,} of the {total:,} samples of {problem.name} are held out for "
            f"validation; train on 1 to {len(rest):,}"
        )
    return problem.with_validation(subset(0, total, train_size), held)


def has_accuracy(problem: Problem) -> bool:
    """Tell whether right answers can be counted."""
    part = problem.head(1, 1)
    params: dict[str, Any] = {name: p.detach() for name, p in problem.model(seed=0).named_parameters()}
    return part.loss_function("test").score(params).accuracy is not None
