"""CPU time of training steps with a `NoiseScaleMonitor` against the same steps without.

F1 at batch 256: one backward pass, where an observed step goes backward twice and few steps are observed, and four
accumulated passes of 64, where an observed step adds norms of gradients that are there anyway. A ratio of 0.97 is an
overhead of 3 %, the limit that the monitor sets itself. CPU time of the process, not wall clock: the differences are
small, and both sides use one thread. The monitor has found its pace before the clock starts.
"""

import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.images import random_problem
from benchmarks.record import Faster, in_turns
from gengap.measures.noise.monitor import NoiseScaleMonitor

BATCH = 256
PASSES = 4
STEPS = 200  # in a repetition: several observations where one is made every 30 steps
REPETITIONS = 9
LIMIT = 0.03

Step = Callable[[Tensor, Tensor], None]


def entries(*, quick: bool) -> Iterator[Faster]:
    steps = 5 if quick else STEPS
    problem = random_problem("keskar-f1", (1, 28, 28), BATCH * 8)
    inputs, targets = problem.train
    batches = list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True))
    for name, plain, watched in (
        ("one pass of 256", one_pass, one_pass_watched),
        (f"{PASSES} passes of {BATCH // PASSES}", accumulated, accumulated_watched),
    ):
        alone, beside = problem.model(seed=0).train(), problem.model(seed=0).train()
        monitor = NoiseScaleMonitor(beside, max_overhead=LIMIT)
        contestants = {
            "ours": repeated(watched(beside, monitor), beside, batches, steps),
            "peer": repeated(plain(alone), alone, batches, steps),
        }
        seconds = in_turns(contestants, 1 if quick else REPETITIONS)
        yield Faster(
            name=f"keskar-f1, {name}, {steps} steps",
            what=("with a monitor", "without"),
            ours=seconds["ours"],
            peer=seconds["peer"],
            at_least=1 / (1 + LIMIT),
            notes={
                "every": monitor.every,
                "overhead_by_its_own_account": monitor.overhead,
                "observations": len(monitor.history),
                "seconds_are": f"of CPU time for {steps} steps",
            },
        )


def repeated(step: Step, model: nn.Module, batches: list[tuple[Tensor, Tensor]], steps: int) -> Callable[[], float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def once() -> float:
        clock = time.process_time()
        for i in range(steps):
            step(*batches[i % len(batches)])
            optimizer.step()
            optimizer.zero_grad()
        return time.process_time() - clock

    return once


def one_pass(model: nn.Module) -> Step:
    return lambda inputs, targets: F.cross_entropy(model(inputs), targets).backward()


def one_pass_watched(model: nn.Module, monitor: NoiseScaleMonitor) -> Step:
    def step(inputs: Tensor, targets: Tensor) -> None:
        monitor.backward(F.cross_entropy(model(inputs), targets, reduction="none"))

    return step


def accumulated(model: nn.Module) -> Step:
    def step(inputs: Tensor, targets: Tensor) -> None:
        for x, y in zip(inputs.chunk(PASSES), targets.chunk(PASSES), strict=True):
            (F.cross_entropy(model(x), y) / PASSES).backward()

    return step


def accumulated_watched(model: nn.Module, monitor: NoiseScaleMonitor) -> Step:
    plain = accumulated(model)

    def step(inputs: Tensor, targets: Tensor) -> None:
        plain(inputs, targets)
        monitor.step(len(targets))

    return step
