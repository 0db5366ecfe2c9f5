"""What dtype="bf16" (autocast, weights in float32) gains in time per update, and what it does to accuracy.

The effect on accuracy is measured with the same seeds both ways, on the embedded digits (convnet, SGD) and, where
GENGAP_DATA names a folder with MNIST, on F1 with Adam.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import gengap
from benchmarks.images import random_problem
from benchmarks.record import Effect, Faster, in_turns

WAYS = ("float32", "bf16")
DIGITS: dict[str, Any] = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": 32}
MNIST: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "batch_size": 256}


def entries(*, quick: bool) -> Iterator[Faster | Effect]:
    yield from speed("keskar-f1", (1, 28, 28), 2 if quick else 12, 1 if quick else 5)
    yield from speed("keskar-c1", (3, 32, 32), 1 if quick else 3, 1 if quick else 3)
    digits = gengap.load("digits", network="convnet", **({"train_size": 100} if quick else {}))
    yield from effects(digits, DIGITS, epochs=1 if quick else 20, seeds=2 if quick else 5)
    if os.environ.get("GENGAP_DATA") and not quick:
        yield from effects(gengap.load("mnist", network="keskar-f1"), MNIST, epochs=2, seeds=2)


def speed(network: str, shape: tuple[int, ...], steps: int, repetitions: int) -> Iterator[Faster]:
    batch = 16 if steps == 1 else 256
    problem = random_problem(network, shape, steps * batch)
    layout = "channels_last" if len(shape) == 3 and shape[0] == 3 else "contiguous"
    ways = {"float32": {}, "bf16": {"dtype": "bf16", "memory_format": layout}}
    if layout == "channels_last":
        ways["channels_last"] = {"memory_format": layout}
    contestants = {name: timed(problem, batch, fields) for name, fields in ways.items()}
    seconds = in_turns(contestants, repetitions)
    for name in [*ways][1:]:
        words = "bf16, channels_last" if name == "bf16" and layout == "channels_last" else name
        yield Faster(
            name=f"{network} batch {batch} {words}",
            what=(words, "float32"),
            ours=[s / steps for s in seconds[name]],
            peer=[s / steps for s in seconds["float32"]],
            notes={"batch_size": batch, "updates": steps, "seconds_are": "per update"},
        )


def timed(problem: gengap.Problem, batch: int, fields: dict[str, Any]) -> Callable[[], float]:
    recipe = gengap.Recipe(optimizer="adam", lr=1e-3, batch_size=batch, budget={"epochs": 1}, **fields)
    return lambda: gengap.train(problem, recipe, evaluations=1).cost.seconds


def effects(problem: gengap.Problem, how: dict[str, Any], *, epochs: int, seeds: int) -> Iterator[Effect]:
    finals: dict[str, list[Any]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        for way in WAYS:
            recipe = gengap.Recipe(**how, dtype=way, budget={"epochs": epochs}, seed=seed)
            finals[way].append(gengap.train(problem, recipe, evaluations=1).final)
    for quantity, unit in (("test_accuracy", "%"), ("train_accuracy", "%"), ("test_loss", "nats")):
        yield Effect(
            name=f"{problem.name}, {epochs} epochs, {quantity.replace('_', ' ')} in {unit}",
            what=WAYS,
            first=[getattr(point, quantity) for point in finals["float32"]],
            second=[getattr(point, quantity) for point in finals["bf16"]],
        )
