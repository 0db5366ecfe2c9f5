"""A pack in the hands of a worker."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gengap.core.errors import GengapError
from gengap.core.events import Listener, silent
from gengap.problem.problem import Problem, first_line
from gengap.sweeps.work import Made, Pack, make, row_of


def make_all(
    pack: Pack, problem: Problem, *, listen: Listener = silent, checkpoints: Mapping[str, Path] | None = None
) -> Iterator[Made]:
    """Make the runs of a pack; an error that ends all of it at once fails those that have not come out.

    Args:
        pack: the runs.
        problem: the pack's.
        listen: told of the progress.
        checkpoints: file of each run's state while it is at work, by key.

    Yields:
        Each run of the pack once.

    Raises:
        Interrupted: Ctrl-C in the middle of a run.
        GengapError: what is wrong with the input or the disk is wrong for all runs.
    """
    left = {task.key: task for task in pack.tasks}
    checkpoint: Callable[[str], Path] | None = checkpoints.__getitem__ if checkpoints else None
    try:
        for made in make(pack, problem=problem, listen=listen, checkpoint=checkpoint):
            del left[made.row.key]
            yield made
    except GengapError:
        raise
    except Exception as error:  # whatever a user's model, loss or data raise when many runs are made as one program
        reason = f"{type(error).__name__}: {first_line(error)}"
        for task in left.values():
            yield Made(row_of(task, problem, outcome="failed", step=0, reason=reason), {})
