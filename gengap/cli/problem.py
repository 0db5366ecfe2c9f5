"""The problem that the options of a command name."""

from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput

ONE_THREAD_BELOW = 200_000  # weights


def problem_spec(problem: str | None, data: str | None, network: str | None, loss: str | None, **options: Any) -> Any:
    """Say how to make the problem that the options name.

    Args:
        problem: package.module:function, or None.
        data: name of a data set, or None: digits.
        network: name of a network, or None.
        loss: name of a loss, or None.
        options: of the data set, by name; None: not given.

    Returns:
        A `ProblemSpec`.

    Raises:
        BadInput: a factory was given together with names of the catalogue.
    """
    from gengap.studies.study import ProblemSpec

    given = {name: value for name, value in options.items() if value is not None}
    if not problem:
        return ProblemSpec(data=data or "digits", network=network, loss=loss, options=given)
    named = {"data": data, "network": network, "loss": loss, **given}
    if twice := [f"--{name.replace('_', '-')}" for name, value in named.items() if value is not None]:
        raise BadInput(f"--problem brings its own data, network and loss; leave {', '.join(twice)} out")
    import_from_here()
    return ProblemSpec(factory=problem)


def make_problem(
    problem: str | None, data: str | None, network: str | None, loss: str | None, root: Path | None, **options: Any
) -> Any:
    """Make the problem that the options name.

    Args:
        problem: as for `problem_spec`.
        data: likewise.
        network: likewise.
        loss: likewise.
        root: data root, or None.
        options: likewise: train_size, validation, random_labels.

    Returns:
        A `gengap.Problem`.

    Raises:
        BadInput: a factory was given together with names of the catalogue, or one of them cannot be used.
    """
    from gengap.sweeps.plan import make_problem as make

    return make(problem_spec(problem, data, network, loss, **options), root)


def import_from_here() -> None:
    """Let --problem find modules of the current folder, as `python -m` does."""
    import sys

    if "" not in sys.path:
        sys.path.insert(0, "")


def use_threads(threads: int | None, problem: Any) -> None:
    """Set torch's threads: as asked, else one for a small network, whose matrix products are too short to share."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    elif problem.parameters < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
