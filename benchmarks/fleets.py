"""Many small runs as one fleet against the same runs one after the other, and the planner's pick against its options.

64 runs of a perceptron 64-32-10 on the embedded digits, 2,000 steps of momentum SGD each, four learning rates with sixteen
seeds. The peers make their runs one after the other: the usual loop over a DataLoader (TensorDataset, shuffle, the default
optimizer, zero_grad, backward, step), and `gengap.train`. Two of the 64 are timed and multiplied by 32: all cost the same. The
fleet is timed whole, with making its networks and the measurements at its start and end. Seconds are those of the processor,
because the machine is shared.

On a GPU also: 64 runs of a perceptron 784-800-10 on 1,000 random images, batch 30, with the share of the peak of arithmetic and
of memory traffic that the fleet reaches, by counts from its shapes and peaks measured on the spot with a large product and a
large copy.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gengap
from benchmarks.images import random_problem
from benchmarks.record import Faster, in_turns, summary, unit
from gengap.sweeps.packing import kind_of
from gengap.sweeps.plan import Task, run_key
from gengap.sweeps.planner import Choice, choose, packs_of, sizes_for
from gengap.sweeps.work import make
from gengap.training.fleet import train_fleet

MEMBERS = 64
STEPS = 2000
TIMED = 2  # runs of the peers
REPETITIONS = 3
AIM = 8.0  # times as fast as the loop over a DataLoader
GPU_AIM = 10.0
PLANNER_STEPS = 200
PLANNER_RUNS = 32


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def digits() -> gengap.Problem:
    data = gengap.load("digits")
    return gengap.Problem(
        model=perceptron,
        loss="cross_entropy",
        train=data.train,
        test=data.test,
        name="perceptron 64-32-10 on the digits",
    )


def recipes(batch: int, steps: int, members: int = MEMBERS) -> list[gengap.Recipe]:
    rates = [0.01, 0.02, 0.04, 0.08]
    return [
        gengap.Recipe(lr=rates[k % 4], momentum=0.9, batch_size=batch, budget={"steps": steps}, seed=k // 4)
        for k in range(members)
    ]


def entries(*, quick: bool) -> Iterator[Any]:
    problem, steps, repetitions = digits(), 20 if quick else STEPS, 1 if quick else REPETITIONS
    for batch in (8, 32):
        runs = recipes(batch, steps)
        contestants = {
            "fleet": lambda runs=runs: processor(lambda: train_fleet(problem, runs, evaluations=1)),
            "loop": lambda runs=runs: one_by_one(runs, lambda recipe: loop(problem, recipe)),
            "solo": lambda runs=runs: one_by_one(runs, lambda recipe: gengap.train(problem, recipe, evaluations=1)),
        }
        seconds = in_turns(contestants, repetitions)
        notes = {
            "members": MEMBERS,
            "updates": steps,
            "batch_size": batch,
            "peer_runs_timed": TIMED,
            "seconds_are": "CPU, all runs",
        }
        for peer, what, aim in (("loop", "DataLoader loop", AIM), ("solo", "gengap.train", None)):
            name = f"{MEMBERS} runs, batch {batch}, against {what}"
            yield Faster(name, ("fleet", what), seconds["fleet"], seconds[peer], aim, notes)
    for batch in (8, 512):
        yield planned(problem, batch, quick=quick)
    if torch.cuda.is_available():
        yield on_gpu(quick=quick)


def processor(work: Callable[[], object]) -> float:
    clock = time.process_time()
    work()
    return time.process_time() - clock


def one_by_one(runs: list[gengap.Recipe], once: Callable[[gengap.Recipe], object]) -> float:
    """Give the seconds of all runs from those of some."""
    return sum(processor(lambda recipe=recipe: once(recipe)) for recipe in runs[:TIMED]) * len(runs) / TIMED  # type: ignore[misc]


def loop(problem: gengap.Problem, recipe: gengap.Recipe, device: str = "cpu") -> None:
    """Train as a tutorial does."""
    model = problem.model(seed=recipe.seed, device=torch.device(device)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    data = TensorDataset(*(part.to(device) for part in problem.train))
    step = 0
    while step < (recipe.budget.steps or 0):
        for inputs, targets in DataLoader(data, batch_size=int(recipe.batch_size), shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            step += 1
            if step == recipe.budget.steps:
                return


@dataclass(frozen=True, slots=True)
class Picked:
    """What the planner chose, and what its options really take.

    Attributes:
        name: the case.
        choice: of the planner.
        planning: seconds that choosing took.
        seconds: CPU seconds of all runs, by option in words; measured in turns.
        picked: the option that was chosen.
    """

    name: str
    choice: Choice
    planning: float
    seconds: Mapping[str, list[float]]
    picked: str

    @property
    def shares(self) -> list[float]:
        """Seconds of the best option over those of the pick, by repetition."""
        return [min(row) / pick for pick, *row in zip(self.seconds[self.picked], *self.seconds.values(), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "picked": self.picked,
            "why": self.choice.why,
            "planning_seconds": round(self.planning, 2),
            "timings": [timing.to_dict() for timing in self.choice.timings],
            "options": {option: summary(values) for option, values in self.seconds.items()},
            "ratio": {"what": "best option / pick", "at_least": 0.9, **summary(self.shares)},
        }

    def __str__(self) -> str:
        middle = {option: summary(values)["median"] for option, values in self.seconds.items()}
        options = ", ".join(f"{option} {unit(seconds)}" for option, seconds in middle.items())
        best = summary(self.shares)["median"]
        return f"{self.name:<40} picked {self.picked} in {unit(self.planning)}; {options}; best / pick {best:.2f} (aim >= 0.90)"


def planned(problem: gengap.Problem, batch: int, *, quick: bool) -> Picked:
    """Let the planner choose among ways in this process, and make all runs in each of them."""
    steps = 40 if quick else PLANNER_STEPS
    how = [recipe.resolved(len(problem.samples("train"))) for recipe in recipes(batch, steps, PLANNER_RUNS)]
    tasks = [Task(run_key(problem, recipe), recipe) for recipe in how]
    longer = [Task(task.key, task.recipe.changed(budget={"steps": 100_000})) for task in tasks]  # worth planning
    clock = time.process_time()
    choice = choose(problem, longer, workers=1, evaluations=1)
    planning = time.process_time() - clock
    sizes = [1, *sizes_for(PLANNER_RUNS)]
    contestants = {option(size): lambda size=size: processor(lambda: made(problem, tasks, size)) for size in sizes}
    seconds = in_turns(contestants, 1 if quick else REPETITIONS, warm=False)
    return Picked(f"planner, {PLANNER_RUNS} runs, batch {batch}", choice, planning, seconds, option(choice.fleet_size))


def option(size: int) -> str:
    return "alone" if size == 1 else f"fleets of {size}"


def made(problem: gengap.Problem, tasks: list[Task], size: int) -> None:
    """Make all runs in fleets of one size."""
    choice = Choice("fleet" if size > 1 else "solo", 1, size, "", (), {kind_of(problem, tasks[0])[0]: size}, {})
    for pack in packs_of(problem, tasks, choice, evaluations=1, weights=False):
        list(make(pack))


@dataclass(frozen=True, slots=True)
class OnGpu(Faster):
    """A comparison on a GPU, with what the fleet makes of the card."""

    limits: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**Faster.to_dict(self), "device": torch.cuda.get_device_name(), "limits": dict(self.limits)}

    def __str__(self) -> str:
        flop, memory = (100 * self.limits[f"{limit}_share"] for limit in ("flop", "memory"))
        return f"{Faster.__str__(self)}; {flop:.1f} % of the peak of FLOP, {memory:.1f} % of that of memory"


def on_gpu(*, quick: bool) -> OnGpu:
    """Time the fleet and the runs one after the other on a GPU, by wall clock."""
    problem, steps, batch = random_problem("smith-le-mlp", (1, 28, 28), 1000), 20 if quick else 500, 30
    runs = recipes(batch, steps)

    def fleet() -> float:
        return sum(run.cost.seconds for run in train_fleet(problem, runs, device="cuda", evaluations=1))

    def alone() -> float:
        some = [gengap.train(problem, recipe, device="cuda", evaluations=1).cost.seconds for recipe in runs[:TIMED]]
        return sum(some) * len(runs) / TIMED

    def tutorial() -> float:
        clock = time.perf_counter()
        for recipe in runs[:TIMED]:
            loop(problem, recipe, "cuda")
        torch.cuda.synchronize()
        return (time.perf_counter() - clock) * len(runs) / TIMED

    seconds = in_turns({"fleet": fleet, "solo": alone, "loop": tutorial}, 1 if quick else REPETITIONS)
    limits = shares_of_limits(min(seconds["fleet"]) / steps, batch)
    notes = {
        "members": MEMBERS,
        "updates": steps,
        "batch_size": batch,
        "loop_seconds": summary(seconds["loop"]),
        "seconds_are": "wall, all runs",
    }
    name = f"{MEMBERS} runs of 784-800-10 on a GPU, batch {batch}"
    return OnGpu(name, ("fleet", "gengap.train"), seconds["fleet"], seconds["solo"], GPU_AIM, notes, limits)


def shares_of_limits(per_update: float, batch: int) -> dict[str, float]:
    """Give the shares of the peaks of arithmetic and memory traffic that an update of all members reaches.

    An update multiplies every weight with every sample three times, but for the gradient by the inputs, and reads or writes
    every weight eight times: forward, backward, gradient written and read, velocity read and written, weight read and written.
    """
    first, second = 784 * 800, 800 * 10
    flop = MEMBERS * 2 * batch * (2 * first + 3 * second)
    traffic = MEMBERS * 4 * 8 * (first + second)
    peak, bandwidth = measured_peaks()
    return {
        "flop_per_update": flop,
        "bytes_per_update": traffic,
        "measured_flop_per_second": peak,
        "measured_bytes_per_second": bandwidth,
        "flop_share": flop / per_update / peak,
        "memory_share": traffic / per_update / bandwidth,
    }


def measured_peaks() -> tuple[float, float]:
    """Measure float32 operations and bytes per second of the card."""
    n, m = 8192, 2**28
    a, b, large = torch.rand(n, n, device="cuda"), torch.rand(n, n, device="cuda"), torch.rand(m, device="cuda")
    return 2 * n**3 / gpu_seconds(lambda: a @ b), 8 * m / gpu_seconds(lambda: large.clone())


def gpu_seconds(work: Callable[[], object], times: int = 10) -> float:
    work()
    torch.cuda.synchronize()
    clock = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - clock) / times
