"""How the runs of a sweep are made fastest on the machine at hand: alone, as fleets, or in several processes.

Nobody knows beforehand: on a CPU a fleet pays where the network is so small that calling operations takes longer than the
arithmetic, on a GPU as long as launches do; and two processes are worth up to two, less what they take from each other. So a
few updates of each way are timed.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from gengap.core.events import Listener, Message, silent
from gengap.problem.problem import Problem
from gengap.schedules.budget import plan
from gengap.sweeps.engines.pool import cores
from gengap.sweeps.option_timing import Timing, short_pack, time_fleet, time_solo
from gengap.sweeps.packing import Choice, groups_of, kind_of, makespan, packs_of, parted
from gengap.sweeps.plan import Task
from gengap.sweeps.short_runs import Costs
from gengap.sweeps.side_by_side import side_by_side
from gengap.sweeps.work import Form
from gengap.training.solo import find_device

__all__ = ["Choice", "choose", "groups_of", "packs_of"]

SIZES = (4, 16, 64)  # members of the fleets that are tried
SHORT = 10.0  # seconds of a sweep that is not worth planning
WORTH_WORKERS = 60.0  # seconds of a sweep for which processes are started to time them
SHARE = 0.05  # of a sweep's time that timing it may take
CLOSE = 1.3  # times the least that a measurement may be to be made again
GAIN = 1.05  # by which something must be faster than what is simpler
SLOW_UPDATE = 5e-3  # seconds on a CPU from which on an update is arithmetic, so that no fleet is tried


@dataclass(slots=True)
class Kind:
    """Runs that cost the same.

    Attributes:
        name: as `kind_of` gives it.
        tasks: the runs.
        costs: of one run by the members of a fleet it is made in; 1: alone.
    """

    name: str
    tasks: list[Task]
    costs: dict[int, Costs] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Samples of an update."""
        return int(self.tasks[0].recipe.batch_size)


def choose(
    problem: Problem,
    tasks: Sequence[Task],
    *,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    evaluations: int = 20,
    listen: Listener = silent,
) -> Choice:
    """Pick the fastest way to make runs, by timing a few updates of each.

    Args:
        problem: what is learnt.
        tasks: the runs to make.
        device: where to train.
        workers: processes that may be at work at once; None: as many as there are cores. With 1, or on a GPU, none are tried.
        evaluations: of loss and accuracy in each run.
        listen: told of the choice.

    Returns:
        The choice. Sweeps of a few seconds are not timed: their runs are made one after the other.

    Raises:
        Interrupted: Ctrl-C.
    """
    place = find_device(device)
    planner = Planner(problem, tasks, place, evaluations=evaluations)
    count = 1 if place.type != "cpu" else cores() if workers is None else workers
    choice = planner.choose(count)
    listen(Message(choice.why))
    return choice


class Planner:
    """Times the runs of a sweep.

    Args:
        problem: what is learnt.
        tasks: the runs.
        device: where to train.
        evaluations: of loss and accuracy in each run.
    """

    def __init__(self, problem: Problem, tasks: Sequence[Task], device: torch.device, *, evaluations: int) -> None:
        self.problem, self.device, self.evaluations = problem, device, evaluations
        self.tasks = list(tasks)
        self.samples = len(problem.samples("train"))
        self.kinds: list[Kind] = []
        self.slowness: dict[Form, float] = {}  # seconds of an update among several processes over those in this one
        self.start = 0.0  # seconds until they are ready

    def choose(self, workers: int) -> Choice:
        """See `choose`."""
        if not self.tasks:
            return Choice("solo", 1, 1, "there are no runs to make")
        first = time_solo(self.problem, self.tasks[0].recipe, self.device)
        most = sum(self._rough(task, first) for task in self.tasks)
        if most < SHORT:
            return Choice("solo", 1, 1, f"one run after the other: all take about {most:.1f} s, too short to plan")
        self._time_kinds()
        alone, together = self._total(1, fleets=False), self._total(1, fleets=True)
        if workers > 1 and len(self.tasks) > 1 and min(alone, together) >= WORTH_WORKERS:
            self._time_workers(workers)
        return self._pick(workers)

    def _rough(self, task: Task, first: Costs) -> float:
        """Bound the seconds of a run from those of the first: an update of a larger batch takes at most as much longer."""
        ratio = max(1.0, int(task.recipe.batch_size) / int(self.tasks[0].recipe.batch_size))
        return first.per_run(task.recipe, self.samples, self.evaluations) * ratio

    def _sort(self) -> set[str]:
        """Put runs together that cost the same, the heaviest first; name those that can be trained as fleets."""
        named: dict[str, Kind] = {}
        able: set[str] = set()
        for task in self.tasks:
            name, can = kind_of(self.problem, task, device=self.device)
            named.setdefault(name, Kind(name, [])).tasks.append(task)
            able |= {name} if can else set()
        self.kinds = sorted(
            named.values(), key=lambda kind: len(kind.tasks) * samples_used(kind, self.samples), reverse=True
        )
        return able

    def _time_kinds(self) -> None:
        """Time kinds, the heaviest first, as long as that takes a small share of the sweep; others go by their likes."""
        able, clock = self._sort(), time.monotonic()
        timed: list[Kind] = []
        for kind in self.kinds:
            if timed and time.monotonic() - clock > SHARE * self._total(1, fleets=True):
                return
            kind.costs = {}
            self._time(kind, fleets=kind.name in able)
            timed.append(kind)
            for other in self.kinds[len(timed) :]:
                near = min(timed, key=lambda one: abs(math.log(one.batch / other.batch)))
                other.costs = {k: costs for k, costs in near.costs.items() if k == 1 or other.name in able}

    def _time(self, kind: Kind, *, fleets: bool) -> None:
        """Time a kind alone and in fleets of growing size, until a larger one is no faster; then what is close once more."""
        self._measure(kind, 1)
        if not fleets or (self.device.type == "cpu" and kind.costs[1].update > SLOW_UPDATE):
            return
        last = math.inf
        for size in sizes_for(len(kind.tasks)):
            try:
                self._measure(kind, size)
                if kind.costs[size].update >= last:  # or the machine was busy with something else
                    self._measure(kind, size)
            except torch.OutOfMemoryError:
                break
            if kind.costs[size].update >= last:
                break
            last = kind.costs[size].update
        least = min(costs.update for costs in kind.costs.values())
        for size in [size for size, costs in kind.costs.items() if costs.update < CLOSE * least]:
            self._measure(kind, size)

    def _measure(self, kind: Kind, size: int) -> None:
        """Time a fleet of some size, or one run alone; the faster of two measurements stays."""
        recipes = [task.recipe for task in kind.tasks[:size]]
        found = (
            time_fleet(self.problem, recipes, self.device)
            if size > 1
            else time_solo(self.problem, recipes[0], self.device)
        )
        before = kind.costs.get(size)
        if before is None or found.update < before.update:
            kind.costs[size] = found

    def _time_workers(self, workers: int) -> None:
        """Time several processes at once on the heaviest kinds; without an answer where they cannot be had."""
        heavy = sorted(self.kinds, key=lambda kind: len(kind.tasks) * self._per_run(kind, 1), reverse=True)
        tried: list[tuple[Form, Kind, int]] = [("solo", heavy[0], 1)]
        tried += [("fleet", kind, self._best(kind)) for kind in heavy if self._best(kind) > 1][:1]
        packs = [short_pack(self.problem, kind.tasks[0].recipe, kind.costs[k], members=k) for _, kind, k in tried]
        found = side_by_side(packs, workers)
        if found:
            self.start = found.start
            for (form, kind, k), seconds in zip(tried, found.per_update, strict=True):
                self.slowness[form] = seconds / kind.costs[k].update

    def _best(self, kind: Kind) -> int:
        """Give the members of the fastest fleet; 1 where none is faster than alone."""
        size = min(kind.costs, key=lambda k: self._per_run(kind, k))
        return size if self._per_run(kind, size) * GAIN < self._per_run(kind, 1) else 1

    def _per_run(self, kind: Kind, size: int) -> float:
        return kind.costs[size].per_run(kind.tasks[0].recipe, self.samples, self.evaluations)

    def _total(self, workers: int, *, fleets: bool) -> float:
        """Estimate the seconds of the whole sweep."""
        return self._seconds(self._sizes(workers) if fleets else {}, workers)

    def _seconds(self, sizes: Mapping[str, int], workers: int) -> float:
        """Estimate the seconds of the whole sweep with fleets of these sizes."""
        loads = []
        for kind in self.kinds:
            size = sizes.get(kind.name, 1)
            slow = 1.0 if workers == 1 else self.slowness["fleet" if size > 1 else "solo"]
            loads += [slow * len(part) * self._per_run(kind, size) for part in parted(kind.tasks, size)]
        return makespan(loads, workers) + (self.start if workers > 1 else 0.0)

    def _sizes(self, workers: int) -> dict[str, int]:
        """Choose the members of fleets: the fastest, or where that leaves workers without one, what ends soonest."""
        fastest = {kind.name: self._best(kind) for kind in self.kinds}
        if workers == 1:
            return fastest
        found = []
        for sizes in (fastest, dict.fromkeys(fastest, 1)):
            for kind in self.kinds * 2:
                tried = {k: self._seconds({**sizes, kind.name: k}, workers) for k in sorted(kind.costs, reverse=True)}
                sizes = {**sizes, kind.name: min(tried, key=tried.__getitem__)}
            found.append(sizes)
        return min(found, key=lambda sizes: self._seconds(sizes, workers))

    def _pick(self, workers: int) -> Choice:
        """Compare the ways; the simpler one wins where another is hardly faster."""
        ways: list[tuple[float, Form, int]] = [(self._total(1, fleets=False), "solo", 1)]
        if any(self._best(kind) > 1 for kind in self.kinds):
            ways.append((self._total(1, fleets=True), "fleet", 1))
        if "solo" in self.slowness:
            ways.append((self._total(workers, fleets=False), "solo", workers))
        if "fleet" in self.slowness:
            ways.append((self._total(workers, fleets=True), "fleet", workers))
        best = ways[0]
        for way in ways[1:]:
            best = way if way[0] * GAIN < best[0] else best
        _, form, count = best
        sizes = self._sizes(count) if form == "fleet" else {kind.name: 1 for kind in self.kinds}
        seconds = {kind.name: self._per_run(kind, sizes[kind.name]) for kind in self.kinds}
        largest, why = max(sizes.values()), self._why(ways, best)
        return Choice(form, count, largest, why, self._timings(workers), sizes, seconds)

    def _why(self, ways: Sequence[tuple[float, Form, int]], best: tuple[float, Form, int]) -> str:
        """Say what was chosen, and what the others would take."""
        kind = self.kinds[0]
        said = [
            f"{seconds:.3g} s {self._named(form, count)}" for seconds, form, count in ways if (form, count) != best[1:]
        ]
        against = f", against {' and '.join(said)}" if said else ""
        seconds, form, count = best
        return (
            f"{self._named(form, count)}: {len(self.tasks):,} runs take about {seconds:.3g} s{against}, "
            f"by a few updates timed here (one of batch {kind.batch:,} alone takes {1000 * kind.costs[1].update:.3g} ms)"
        )

    def _named(self, form: Form, count: int) -> str:
        where = f"in {count} processes" if count > 1 else "in this process"
        if form == "solo":
            return f"one run after the other {where}"
        return f"in fleets of up to {max(self._sizes(count).values())} {where}"

    def _timings(self, workers: int) -> tuple[Timing, ...]:
        """List what was timed, and what follows for several processes."""
        found = []
        for kind in self.kinds:
            for size, costs in kind.costs.items():
                form: Form = "fleet" if size > 1 else "solo"
                for count in (1, workers) if form in self.slowness else (1,):
                    slow = self.slowness[form] / count if count > 1 else 1.0
                    per_run = self._per_run(kind, size) * slow
                    found.append(Timing(kind.batch, form, size, count, costs.update * slow, per_run))
        return tuple(found)


def samples_used(kind: Kind, training: int) -> int:
    """Give the samples that a run uses: what its time goes by, roughly."""
    numbers = plan(kind.tasks[0].recipe, training)
    return numbers.samples or numbers.steps * numbers.batch_size


def sizes_for(runs: int) -> list[int]:
    """List the fleets to try for so many runs."""
    return sorted({min(size, runs) for size in SIZES} - {1})
