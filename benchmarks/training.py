"""Time per update of `gengap.train` against the usual loop over a DataLoader.

The peer is what a tutorial shows: TensorDataset, DataLoader(shuffle=True), the default optimizer, zero_grad, backward,
step. Both see one epoch of the same random images; ours is timed by the run's own cost, without the measurements at
its start and end, which the peer does not make either.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import gengap
from benchmarks.images import random_problem
from benchmarks.record import Faster, in_turns

# network, recipe, batch size, updates in an epoch, ratio aimed at
MOMENTUM: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9}
PLAIN: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01}
ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3}
CASES = [
    ("smith-le-mlp", MOMENTUM, 1, 400, 1.2),
    ("smith-le-mlp", MOMENTUM, 8, 300, 1.2),
    ("smith-le-mlp", MOMENTUM, 30, 150, 1.2),
    ("smith-le-mlp", MOMENTUM, 100, 60, 1.0),
    ("smith-le-mlp", PLAIN, 1, 400, 1.2),
    ("smith-le-mlp", PLAIN, 8, 300, 1.2),
    ("smith-le-mlp", PLAIN, 30, 150, 1.2),
    ("smith-le-mlp", PLAIN, 100, 60, 1.0),
    ("keskar-f1", ADAM, 256, 20, 1.0),
]
REPETITIONS = 9


def entries(*, quick: bool) -> Iterator[Faster]:
    for network, how, batch, updates, aim in CASES:
        steps = max(2, updates // 20) if quick else updates
        problem = random_problem(network, (1, 28, 28), steps * batch)
        contestants = {"ours": ours(problem, how, batch), "peer": peer(problem, how, batch)}
        seconds = in_turns(contestants, 1 if quick else REPETITIONS)
        momentum = f" momentum {how['momentum']}" if "momentum" in how else ""
        yield Faster(
            name=f"{network} {how['optimizer']}{momentum} batch {batch}",
            what=("gengap.train", "DataLoader loop"),
            ours=[s / steps for s in seconds["ours"]],
            peer=[s / steps for s in seconds["peer"]],
            at_least=aim,
            notes={"batch_size": batch, "updates": steps, "recipe": how, "seconds_are": "per update"},
        )


def ours(problem: gengap.Problem, how: dict[str, Any], batch: int) -> Callable[[], float]:
    recipe = gengap.Recipe(**how, batch_size=batch, budget={"epochs": 1})
    return lambda: gengap.train(problem, recipe, evaluations=1).cost.seconds


def peer(problem: gengap.Problem, how: dict[str, Any], batch: int) -> Callable[[], float]:
    def once() -> float:
        model = problem.model(seed=0).train()
        if how["optimizer"] == "adam":
            optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=how["lr"])
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=how["lr"], momentum=how.get("momentum", 0.0))
        clock = time.perf_counter()
        for inputs, targets in DataLoader(TensorDataset(*problem.train), batch_size=batch, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
        return time.perf_counter() - clock

    return once
