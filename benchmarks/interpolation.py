"""CPU time of `gengap.interpolate` over 25 points against bare forward passes of the same samples.

The peer does the least that could be done: the module in evaluation mode, without gradients, on the same chunks, with
neither weights to set nor losses to compute. A ratio of 0.91 is an overhead of a tenth. CPU time of the process, not wall
clock: the differences are small, and both sides use one thread.
"""

import time
from collections.abc import Callable, Iterator

import torch

import gengap
from benchmarks.images import random_problem
from benchmarks.record import Faster, in_turns

POINTS = 25
REPETITIONS = 15
CHUNK = 500  # samples in a forward pass, the default of a loss function
AIM = 1 / 1.10


def entries(*, quick: bool) -> Iterator[Faster]:
    size = 100 if quick else 2000
    problems = {
        "keskar-f1": random_problem("keskar-f1", (1, 28, 28), size),
        "smith-le-mlp": random_problem("smith-le-mlp", (1, 28, 28), size),
        "convnet on digits": gengap.load("digits", network="convnet"),
    }
    for name, problem in problems.items():
        contestants = {"ours": ours(problem), "peer": peer(problem)}
        seconds = in_turns(contestants, 1 if quick else REPETITIONS)
        yield Faster(
            name=f"{name}, {POINTS} points",
            what=("gengap.interpolate", "forward passes"),
            ours=seconds["ours"],
            peer=seconds["peer"],
            at_least=AIM,
            notes={"samples": len(problem.train[1]), "chunk": CHUNK, "seconds_are": "of CPU time for all points"},
        )


def ours(problem: gengap.Problem) -> Callable[[], float]:
    ends = [dict(problem.model(seed).named_parameters()) for seed in (0, 1)]
    loss = problem.loss_function("train")

    def once() -> float:
        clock = time.process_time()
        gengap.interpolate(loss, a=ends[0], b=ends[1])
        return time.process_time() - clock

    return once


def peer(problem: gengap.Problem) -> Callable[[], float]:
    model, chunks = problem.model(seed=0).eval(), problem.train[0].split(CHUNK)

    def once() -> float:
        clock = time.process_time()
        with torch.no_grad():
            for _ in range(POINTS):
                for chunk in chunks:
                    model(chunk)
        return time.process_time() - clock

    return once
