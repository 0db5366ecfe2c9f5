"""Which engine makes the runs of a sweep, and as what: named by the user, or picked by timing them on the machine at hand."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput
from gengap.problem.problem import Problem
from gengap.store.store import Store
from gengap.sweeps.drive import Chooser, Way, one_by_one
from gengap.sweeps.engines.build import make_engine
from gengap.sweeps.plan import Task
from gengap.sweeps.planner import choose, groups_of
from gengap.sweeps.work import Engine, Group
from gengap.training.fleet import fleet_key

WAYS = ("auto", "solo", "fleet", "pool", "ray", "slurm")
LARGEST_FLEET = 64  # members; more no longer make a step cheaper, and a pack that is cut off loses more
AT_ONCE = 256  # runs that other processes or machines get at once; each claim holds a file open
RUNS_OF_A_JOB = 16  # a job of Slurm waits in its queue first


@dataclass(frozen=True, slots=True)
class Means:
    """With what a sweep is made.

    Attributes:
        engine: "solo" (one run after the other, in this process), "fleet" (as one program where they can be), "pool", "ray" or
            "slurm" (in other processes), or "auto": what is fastest here by a few timed updates.
        workers: of "pool", "ray" and "slurm"; None: as many as there is room for.
        options: of the engine besides, for example {"address": "auto"} for Ray.
        device: where to train.
        data_root: folder with the data where the runs are made; None: the environment variable GENGAP_DATA.

    Raises:
        BadInput: there is no such engine, or workers were given to one that has none.
    """

    engine: str = "auto"
    workers: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    data_root: str | Path | None = None

    def __post_init__(self) -> None:
        if self.engine not in WAYS:
            raise BadInput(f"engine is {self.engine!r}; choose one of {', '.join(WAYS)}")
        if self.workers is not None and self.engine in {"solo", "fleet"}:
            raise BadInput(
                f"workers is {self.workers}, but the engine {self.engine} has none; choose pool, ray or slurm"
            )


class Engines:
    """Makes each engine once; those that hold processes end with the block.

    An engine that was named is made at once, so that what is wrong with it is found before anything is written.

    Args:
        means: what the user asked for.
        folder: of the sweep.
        evaluations: of loss and accuracy in each run.
    """

    def __init__(self, means: Means, folder: Path, *, evaluations: int = 20) -> None:
        self.means, self.folder, self.evaluations = means, folder, evaluations
        self._store: Store | None = None
        self._made: dict[str, Engine] = {}
        self._open = ExitStack()
        if means.engine in {"pool", "ray", "slurm"}:
            self.get(means.engine, means.workers)

    def __enter__(self) -> "Engines":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def choosing(self, store: Store) -> Chooser:
        """Give what chooses how the runs of a problem are made, which are kept in this store."""
        self._store = store
        return partial(chosen, self)

    def get(self, kind: str, workers: int | None = None) -> Engine:
        """Give the engine of this name."""
        if kind not in self._made:
            options = {"folder": self.folder / "slurm"} if kind == "slurm" else {}
            options |= self.means.options
            made = make_engine(kind, workers=workers, checkpoint=self._checkpoint, **options)
            if isinstance(made, AbstractContextManager):  # keeps its processes between two calls
                self._open.enter_context(made)
            self._made[kind] = made
        return self._made[kind]

    def _checkpoint(self, key: str) -> Path:
        """Name the file where a run keeps its state while it is at work."""
        if self._store is None:
            raise RuntimeError("an engine was set to work before it was said where runs are kept")
        return self._store.checkpoint(key)


def chosen(engines: Engines, problem: Problem, tasks: Sequence[Task]) -> Way:
    """Say how the runs of one problem are made."""
    means = engines.means
    match means.engine:
        case "auto":
            return picked(engines, problem, tasks)
        case "solo":
            return Way(engines.get("in-process"))
        case "fleet":
            return Way(engines.get("in-process"), partial(fleets, device=means.device))
        case name:
            groups = in_jobs if name == "slurm" else one_by_one
            return Way(engines.get(name, means.workers), groups, together=AT_ONCE)


def picked(engines: Engines, problem: Problem, tasks: Sequence[Task]) -> Way:
    """Pick what is fastest on this machine by timing a few updates."""
    means = engines.means
    choice = choose(problem, tasks, device=means.device, workers=means.workers, evaluations=engines.evaluations)
    groups = partial(groups_of, choice=choice, device=means.device)
    if choice.workers > 1:
        return Way(engines.get("pool", choice.workers), groups, together=AT_ONCE, chosen=choice.to_dict())
    return Way(engines.get("in-process"), groups, chosen=choice.to_dict())


def in_jobs(problem: Problem, tasks: Sequence[Task]) -> list[Group]:  # noqa: ARG001 - one way to group among others
    """Part runs into jobs that make several, one after the other."""
    return [("solo", tuple(tasks[i : i + RUNS_OF_A_JOB])) for i in range(0, len(tasks), RUNS_OF_A_JOB)]


def fleets(
    problem: Problem, tasks: Sequence[Task], *, device: str = "cpu", largest: int = LARGEST_FLEET
) -> list[Group]:
    """Part runs into fleets; those that can be in none are made alone.

    Args:
        problem: what they learn.
        tasks: the runs.
        device: where they would be trained.
        largest: members of one fleet, at most.

    Returns:
        Packs, the fleets first.
    """
    alike: dict[Hashable, list[Task]] = {}
    for task in tasks:
        alike.setdefault(fleet_key(problem, task.recipe, device=device), []).append(task)
    alone = alike.pop(None, [])
    parts = [tuple(m[start : start + largest]) for m in alike.values() for start in range(0, len(m), largest)]
    found: list[Group] = [("fleet" if len(part) > 1 else "solo", part) for part in parts]
    return found + one_by_one(problem, alone)
