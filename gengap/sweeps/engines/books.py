"""Which runs of a sweep have come out and which are still to come, whoever makes them."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gengap.core.errors import Interrupted
from gengap.core.events import Event, Listener, Message, Progress
from gengap.problem.problem import Problem
from gengap.sweeps.engines.parcel import name_of
from gengap.sweeps.measuring import describe
from gengap.sweeps.plan import Task
from gengap.sweeps.work import Keep, Made, Pack, failed

Checkpoint = Callable[[str], Path]


@dataclass(slots=True, eq=False)
class Errand:
    """A pack on its way through a worker.

    Attributes:
        pack: what the worker was given.
        left: its runs that have not come out, by key.
        lost: how many workers were lost with it.
        part: how much of the runs at work is done, in runs.
    """

    pack: Pack
    left: dict[str, Task] = field(init=False)
    lost: int = 0
    part: float = 0.0

    def __post_init__(self) -> None:
        self.left = {task.key: task for task in self.pack.tasks}

    def again(self) -> "list[Errand]":
        """Give what is left to be made once more: run by run, so that a run that kills its worker takes no other along."""
        tasks = tuple(self.left.values())
        shares = [tasks] if self.pack.form == "fleet" else [(task,) for task in tasks]
        return [Errand(replace(self.pack, tasks=share), lost=self.lost + 1) for share in shares]

    def parts(self, owner: Mapping[str, str]) -> "dict[str | None, Errand]":
        """Part what is left by who makes each run already; None: nobody."""
        found: dict[str | None, list[Task]] = {}
        for key, task in self.left.items():
            found.setdefault(owner.get(key), []).append(task)
        return {name: Errand(replace(self.pack, tasks=tuple(tasks))) for name, tasks in found.items()}


class Books:
    """Hands every run on exactly once, and says what becomes of those whose worker was lost.

    Args:
        packs: the runs.
        keep: is given each run.
        listen: told of the progress.
        retries: how often runs are made again whose worker was lost.
    """

    def __init__(self, packs: Sequence[Pack], keep: Keep, listen: Listener, *, retries: int) -> None:
        self.waiting = deque(Errand(pack) for pack in packs if pack.tasks)
        self.at_work: list[Errand] = []
        self.total = sum(len(errand.left) for errand in self.waiting)
        self.done, self.retries, self.listen, self._keep = 0, retries, listen, keep
        self._problems: dict[str, Problem] = {}

    @property
    def open(self) -> bool:
        """Whether runs are still to come."""
        return self.done < self.total

    def begin(self) -> Errand:
        """Give the next pack to a worker."""
        errand = self.waiting.popleft()
        self.at_work.append(errand)
        return errand

    def end(self, errand: Errand) -> None:
        """Note that a worker is through with a pack."""
        self.at_work.remove(errand)

    def take(self, errand: Errand, made: Made) -> None:
        """Hand on a run that came out, unless it has come out before."""
        if errand.left.pop(made.row.key, None) is None:
            return
        errand.part = 0.0
        self._keep(made)
        self.done += 1
        self._tell(f"{describe(made.row.recipe)}: {made.row.outcome}")

    def hear(self, errand: Errand, event: Event) -> None:
        """Pass on what a worker says."""
        if isinstance(event, Message):
            self.listen(event)
            return
        share = min(1.0, event.done / event.total) if event.total else 0.0
        errand.part = share * (len(errand.left) if errand.pack.form == "fleet" else 1)
        self._tell(f"{event.what}: {event.note}" if event.note else event.what)

    def _tell(self, note: str) -> None:
        """Say how far the sweep is: runs that came out, and parts of those at work."""
        done = self.done + sum(errand.part for errand in self.at_work)
        self.listen(Progress("runs", done, self.total, "runs", note))

    def lost(self, errand: Errand, why: str) -> None:
        """Queue what is left of an errand once more, in front; record it as failed where that has been done before."""
        self.end(errand)
        if errand.lost >= self.retries:
            self.fail(errand, why)
        elif errand.left:
            count = f"{len(errand.left)} unfinished run{'s are' if len(errand.left) > 1 else ' is'}"
            self.listen(Message(f"{why}; {count} made again in another worker", warning=True))
            self.waiting.extendleft(reversed(errand.again()))

    def fail(self, errand: Errand, why: str) -> None:
        """Record what is left of an errand as failed."""
        for task in list(errand.left.values()):
            self.take(errand, failed(task, self.problem_of(errand.pack), why))

    def problem_of(self, pack: Pack) -> Problem:
        """Give a pack's problem, made once where packs only name it."""
        name = name_of(pack)
        if name not in self._problems:
            self._problems[name] = pack.made_problem()
        return self._problems[name]

    def interrupted(self) -> Interrupted:
        """Say what Ctrl-C left."""
        return Interrupted(f"interrupted; {self.done:,} of {self.total:,} runs came out and are kept")


def paths(tasks: Sequence[Task], checkpoint: Checkpoint | None) -> dict[str, Path]:
    """Name the files where the runs keep their state while they are at work, by key; none without `checkpoint`."""
    return {task.key: checkpoint(task.key) for task in tasks} if checkpoint else {}
