"""What a worker does, wherever it runs: the runs of a pack, one after the other or as one fleet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from gengap.core.environment import environment
from gengap.core.errors import GengapError, Interrupted
from gengap.core.events import Listener, silent
from gengap.problem.problem import Problem, first_line
from gengap.store.rows import RunRow, now
from gengap.studies.study import ProblemSpec
from gengap.sweeps.measuring import describe
from gengap.sweeps.plan import Task, make_problem
from gengap.training.fleet import train_fleet
from gengap.training.ranks import ALONE, Ranks
from gengap.training.run import Run
from gengap.training.solo import train

Form = Literal["solo", "fleet"]
Group = tuple[Form, tuple[Task, ...]]  # runs made in one go, and how
Weights = Mapping[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Pack:
    """Runs that one worker makes in one go.

    Attributes:
        problem: what all of them learn: itself, or how to make it where the worker is.
        tasks: the runs.
        form: "solo", one after the other, or "fleet", as one program.
        evaluations: of loss and accuracy on the way.
        device: where to train.
        weights: whether the trained weights come back.
        data_root: folder with the data where the worker is; None: the environment variable GENGAP_DATA.
    """

    problem: Problem | ProblemSpec
    tasks: tuple[Task, ...]
    form: Form = "solo"
    evaluations: int = 20
    device: str = "cpu"
    weights: bool = True
    data_root: str | None = None

    def made_problem(self) -> Problem:
        """Give the problem, made here where only its name came along."""
        return self.problem if isinstance(self.problem, Problem) else make_problem(self.problem, self.data_root)


@dataclass(frozen=True, slots=True)
class Made:
    """One run that came out: finished, diverged or failed.

    Attributes:
        row: as the ledger keeps it.
        weights: arrays by name for "final", "initial" and "buffers"; empty where they were not wanted or the run failed.
    """

    row: RunRow
    weights: Weights


Keep = Callable[[Made], None]


class Engine(Protocol):
    """Where packs are worked through."""

    name: str

    def run(self, packs: Sequence[Pack], keep: Keep, listen: Listener = silent) -> None:
        """Make all runs; hand each to `keep`, in this process, as it comes in.

        Args:
            packs: the runs to make.
            keep: called once for each run.
            listen: told of the progress.

        Raises:
            Interrupted: Ctrl-C; runs that were finished have been kept.
        """


def make(
    pack: Pack,
    problem: Problem | None = None,
    *,
    listen: Listener = silent,
    checkpoints: Mapping[str, Path] | None = None,
) -> Iterator[Made]:
    """Make the runs of a pack.

    Args:
        pack: the runs.
        problem: the pack's, where it has been made already.
        listen: told of the progress.
        checkpoints: file of each run's state while it is at work, by key; None: no state is kept.

    Yields:
        Each run as it ends. A run whose network, loss or data raises an error comes out as "failed" with the reason, and takes
        the others of its fleet along.

    Raises:
        Interrupted: Ctrl-C in the middle of a run.
        GengapError: what is wrong with the input or the disk is wrong for all runs.
    """
    made = problem or pack.made_problem()
    how: dict[str, Any] = {"device": pack.device, "evaluations": pack.evaluations, "listen": listen}
    if pack.form == "fleet":
        yield from make_fleet(pack, made, **how)
        return
    for task in pack.tasks:
        state = checkpoints[task.key] if checkpoints else None
        # what comes out is kept at once: a short run writes nothing on the way
        yield make_one(task, made, with_weights=pack.weights, checkpoint=state, checkpoint_end=False, **how)


def make_fleet(pack: Pack, problem: Problem, **how: Any) -> Iterator[Made]:
    """Make runs as one program; an error ends all of them at once."""
    try:
        runs = train_fleet(problem, [task.recipe for task in pack.tasks], **how)
    except GengapError:
        raise
    except Exception as error:  # whatever a user's model, loss or data set raises is these runs' failure
        yield from (failed(task, problem, reason_of(error)) for task in pack.tasks)
        return
    for task, run in zip(pack.tasks, runs, strict=True):
        yield made_of(run, task, problem, pack.weights)


def make_one(task: Task, problem: Problem, *, with_weights: bool = True, ranks: Ranks = ALONE, **how: Any) -> Made:
    """Make one run alone.

    Args:
        task: which.
        problem: what is learnt.
        with_weights: whether the trained weights are wanted.
        ranks: processes that share every batch.
        how: the other arguments of `train`.

    Returns:
        The run; "failed" with the reason where a user's network, loss or data raise an error.

    Raises:
        Interrupted: Ctrl-C in the middle of it.
        GengapError: what is wrong with the input or the disk is wrong for all runs.
        Exception: of a user's network, loss or data, where several processes share the run.
    """
    try:
        return made_of(train(problem, task.recipe, ranks=ranks, **how), task, problem, with_weights)
    except GengapError:
        raise
    except Exception as error:  # whatever a user's model, loss or data set raises is this run's failure
        if ranks.size > 1:  # nobody knows how far the others got
            raise
        return failed(task, problem, reason_of(error))


def made_of(run: Run, task: Task, problem: Problem, with_weights: bool) -> Made:
    """Put a run into the form that is kept."""
    if run.outcome.kind == "interrupted":
        raise Interrupted(f"interrupted in {describe(task.recipe.model_dump())} at step {run.outcome.step:,}")
    return Made(row_from(run, task, problem), weights(run) if with_weights else {})


def failed(task: Task, problem: Problem, reason: str) -> Made:
    """Give a run that did not come to its end."""
    return Made(row_of(task, problem, outcome="failed", step=0, reason=reason), {})


def reason_of(error: Exception) -> str:
    """Say why a run failed."""
    return f"{type(error).__name__}: {first_line(error)}"


def row_from(run: Run, task: Task, problem: Problem) -> RunRow:
    """Make the row of a run that came to its end."""
    return row_of(
        task,
        problem,
        outcome=run.outcome.kind,
        step=run.outcome.step,
        reason=run.outcome.reason,
        cost=asdict(run.cost),
        history=tuple(point.to_dict() for point in run.history),
    )


def row_of(task: Task, problem: Problem, **fields: Any) -> RunRow:
    """Make the row of a run."""
    machine = {**environment(), "threads": torch.get_num_threads()}
    return RunRow(
        key=task.key,
        problem=problem.fingerprint,
        recipe=task.recipe.model_dump(mode="json"),
        environment=machine,
        created=now(),
        **{"cost": {}, "history": (), **fields},
    )


def weights(run: Run) -> dict[str, dict[str, Any]]:
    """Give a run's tensors as arrays for the store."""
    parts = {"final": run.params, "initial": run.initial_params, "buffers": run.buffers}
    return {which: {name: t.cpu().numpy() for name, t in part.items()} for which, part in parts.items()}
