"""What the search of `gengap.sharpness` costs beside its loss evaluations, and the value it finds, beside plain scipy.

The peer is `scipy.optimize.minimize` on the same objective: minus the loss over its largest gradient entry, from the point,
in the same box, 10 iterations, tolerances open. The overhead is the CPU time outside the evaluations over the time in them;
ours makes three searches, so it is a share of more evaluations. The loss is that of a network after one pass
over random images.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, minimize
from torch import Tensor

import gengap
from benchmarks.images import random_problem
from benchmarks.record import summary
from gengap.measures.trees import empty_like, fill, flatten

RADIUS = 1e-3
ITERATIONS = 10
REPETITIONS = {10_000: 3, 60_000: 1}  # a repetition on all images takes minutes
AIM = 0.05


@dataclass(frozen=True, slots=True)
class Overhead:
    """CPU time beside the evaluations, as a share of the time in them, and what was found.

    Attributes:
        name: the case.
        ours: the share of each repetition.
        peer: that of scipy.
        percent: sharpness found by ours and by scipy.
        evaluations: made by each in a repetition.
        seconds: of one evaluation, median.
        notes: anything a reader should know.
    """

    name: str
    ours: list[float]
    peer: list[float]
    percent: tuple[float, float]
    evaluations: tuple[int, int]
    seconds: float
    notes: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": {
                "what": "gengap.sharpness, robust",
                "overhead": {"at_most": AIM, **summary(self.ours)},
                "percent": self.percent[0],
                "evaluations": self.evaluations[0],
            },
            "peer": {
                "what": "scipy.optimize.minimize, L-BFGS-B from the point",
                "overhead": summary(self.peer),
                "percent": self.percent[1],
                "evaluations": self.evaluations[1],
            },
            "seconds_of_an_evaluation": self.seconds,
            "never_lower": self.percent[0] >= self.percent[1],
            **self.notes,
        }

    def __str__(self) -> str:
        own, theirs = np.median(self.ours), np.median(self.peer)
        return (
            f"{self.name:<40} overhead {100 * own:.1f} % of {self.evaluations[0]} evaluations, scipy {100 * theirs:.1f} % of "
            f"{self.evaluations[1]} (aim <= {100 * AIM:.0f} %); sharpness {self.percent[0]:.6g} %, scipy {self.percent[1]:.6g} %"
        )


class Timed:
    """A loss that counts the CPU time and the number of its evaluations."""

    def __init__(self, loss: Any) -> None:
        self.loss, self.seconds, self.evaluations = loss, 0.0, 0

    def value_and_grad(self, params: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
        clock = time.process_time()
        found = self.loss.value_and_grad(params)
        self.seconds += time.process_time() - clock
        self.evaluations += 1
        return found

    def value(self, params: Mapping[str, Tensor]) -> float:
        return float(self.loss.value(params))

    def score(self, params: Mapping[str, Tensor]) -> Any:
        return self.loss.score(params)

    def describe(self) -> dict[str, Any]:
        return dict(self.loss.describe())

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        return self.loss(params)


def entries(*, quick: bool) -> Iterator[Overhead]:
    sizes = (100,) if quick else (10_000, 60_000)
    network = "smith-le-mlp" if quick else "keskar-f1"
    for size in sizes:
        problem = random_problem(network, (1, 28, 28), size)
        steps = 2 if quick else 2000
        run = gengap.train(problem, gengap.Recipe(optimizer="adam", lr=1e-3, batch_size=100, budget={"steps": steps}))
        loss = problem.loss_function("train", buffers=run.buffers)
        rounds = [(ours(loss, run.params), scipys(loss, run.params)) for _ in range(REPETITIONS.get(size, 1))]
        first = rounds[0]
        yield Overhead(
            name=f"{network}, {size:,} images",
            ours=[own[0] for own, _ in rounds],
            peer=[theirs[0] for _, theirs in rounds],
            percent=(first[0][1], first[1][1]),
            evaluations=(first[0][2], first[1][2]),
            seconds=float(np.median([own[3] for own, _ in rounds])),
            notes={"weights": sum(p.numel() for p in run.params.values()), "iterations": ITERATIONS, "radius": RADIUS},
        )


def ours(loss: Any, params: Mapping[str, Tensor]) -> tuple[float, float, int, float]:
    timed, clock = Timed(loss), time.process_time()
    found = gengap.sharpness(timed, params, radius=RADIUS, iterations=ITERATIONS, check=False)
    return told(timed, time.process_time() - clock, found.percent)


def scipys(loss: Any, params: Mapping[str, Tensor]) -> tuple[float, float, int, float]:
    """Divide by the largest gradient entry as ours does, or the search would not move."""
    timed, clock = Timed(loss), time.process_time()
    point, centre, heights = empty_like(params), flatten(params), []

    def graded(x: Any) -> tuple[float, Any]:
        fill(point, x)
        value, gradient = timed.value_and_grad(point)
        heights.append(value)
        return value, flatten(gradient)

    half = RADIUS * (np.abs(centre) + 1)
    scale = np.abs(graded(centre)[1]).max()
    options = {"maxiter": ITERATIONS, "maxcor": 10, "ftol": 0.0, "gtol": 0.0}

    def negative(x: Any) -> tuple[float, Any]:
        value, gradient = graded(x)
        return -value / scale, -gradient / scale

    bounds = Bounds(centre - half, centre + half)
    minimize(negative, centre, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return told(timed, time.process_time() - clock, 100 * (max(heights) - heights[0]) / (1 + heights[0]))


def told(timed: Timed, seconds: float, percent: float) -> tuple[float, float, int, float]:
    """Overhead, value, evaluations, and seconds of one."""
    return seconds / timed.seconds - 1, percent, timed.evaluations, timed.seconds / timed.evaluations
