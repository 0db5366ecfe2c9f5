"""Accumulated batches against whole ones, and two processes on two cores against one.

Accumulation: `gengap.train` with a batch cut into k pieces, against the same batch in one piece; the aim is at most 3 % more
time. Pieces may also be faster, where their activations stay in the cache and those of the whole batch do not.

Processes: `gengap.train` in two processes over gloo, each with half of every batch and one thread, against one process with one
thread and the whole batch. Both sides are processes of their own that report the time of their updates, start-up left out. On two
cores twice as fast is the most that there is; what is missing is the exchange of gradients and memory that both cores share. A
network with few samples for each weight gains less.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

import gengap
from benchmarks.images import random_problem
from benchmarks.record import Faster, in_turns

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
SHAPES = {"keskar-f1": MNIST, "smith-le-mlp": MNIST, "keskar-c1": CIFAR}
HOW: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9}
# network, batch size, pieces, updates
PIECES = [("keskar-f1", 2048, 4, 6), ("keskar-f1", 2048, 16, 6), ("keskar-c1", 256, 4, 4)]
# network, batch size, updates
SHARED = [("smith-le-mlp", 256, 100), ("keskar-f1", 512, 20), ("keskar-f1", 4096, 4), ("keskar-c1", 256, 4)]
AT_MOST = 1.03
REPETITIONS, LAUNCHES = 9, 5


def entries(*, quick: bool) -> Iterator[Faster]:
    for case in PIECES[:1] if quick else PIECES:
        yield accumulated(*case, quick=quick)
    for shared in SHARED[:1] if quick else SHARED:
        yield two_processes(*shared, quick=quick)


def accumulated(network: str, batch: int, pieces: int, updates: int, *, quick: bool) -> Faster:
    updates = 1 if quick else updates
    batch = batch // 16 if quick else batch
    problem = random_problem(network, SHAPES[network], updates * batch)
    recipes = {"pieces": recipe(batch, micro_batch=batch // pieces), "whole": recipe(batch, clip_norm=1e9)}
    contestants = {name: seconds_of(problem, how) for name, how in recipes.items()}
    seconds = in_turns(contestants, 1 if quick else REPETITIONS)
    return Faster(
        name=f"{network} batch {batch} in {pieces} pieces",
        what=("accumulated", "whole batch"),
        ours=[s / updates for s in seconds["pieces"]],
        peer=[s / updates for s in seconds["whole"]],
        at_least=1 / AT_MOST,
        notes={"batch_size": batch, "pieces": pieces, "recipe": HOW, "seconds_are": "per update"},
    )


def recipe(batch: int, **fields: Any) -> gengap.Recipe:
    """Make a recipe of one epoch; a clip that never cuts keeps both sides on the same path through autograd."""
    return gengap.Recipe(**HOW, batch_size=batch, budget={"epochs": 1}, **fields)


def seconds_of(problem: gengap.Problem, how: gengap.Recipe) -> Callable[[], float]:
    return lambda: gengap.train(problem, how, evaluations=1).cost.seconds


def two_processes(network: str, batch: int, updates: int, *, quick: bool) -> Faster:
    updates = 2 if quick else updates
    contestants = {"two": launch(2, network, batch, updates), "one": launch(1, network, batch, updates)}
    seconds = in_turns(contestants, 1 if quick else LAUNCHES, warm=False)
    return Faster(
        name=f"{network} batch {batch} on 2 processes",
        what=("2 gloo ranks", "1 process"),
        ours=[s / updates for s in seconds["two"]],
        peer=[s / updates for s in seconds["one"]],
        notes={"batch_size": batch, "recipe": HOW, "seconds_are": "per update", "threads": "1 for each process"},
    )


def launch(size: int, network: str, batch: int, updates: int) -> Callable[[], float]:
    def once() -> float:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
        words = [sys.executable, "-m", "benchmarks.ranks", network, str(batch), str(updates)]
        ranks = [
            subprocess.Popen(words, env=common | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(size)
        ]
        said = [process.communicate()[0] for process in ranks]
        if any(process.returncode for process in ranks):
            raise SystemExit("a process of the benchmark failed; what it said is above")
        return max(float(json.loads(text)) for text in said)

    return once


def rank(network: str, batch: int, updates: int) -> float:
    """Train as one of the processes; one epoch to warm up, the others are timed."""
    from gengap.training.ranks import find_ranks

    torch.set_num_threads(1)
    problem = random_problem(network, SHAPES[network], updates * batch)
    with find_ranks() as ranks:
        how = recipe(batch, clip_norm=1e9)
        seconds = [gengap.train(problem, how, evaluations=1, ranks=ranks).cost.seconds for _ in range(2)]
    return seconds[-1]


if __name__ == "__main__":
    print(json.dumps(rank(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
