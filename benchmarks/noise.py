"""CPU time of the exact noise parts of `gengap.noise_scale` against a loop over `vmap(grad)` of the same samples.

The peer writes the gradient of every sample out, 8 at a time (as fast as any from 4 to 256), and adds up their squares and
their sum: tr(Sigma) and |G|^2, without intervals. Ours gives the same two with intervals, which takes a second pass for inner
products with the mean. Both start from the same in-memory samples. The memory is the most that either side was seen to hold
above what was there before, once, outside the timing.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

import gengap
from benchmarks.images import random_problem
from benchmarks.record import Faster, in_turns
from gengap.measures.memory import PeakMemory
from gengap.measures.noise.noise_scale import noise_scale

REPETITIONS = 9
BLOCK = 8  # samples whose gradients the peer holds at once
AIM = 3.0
CASES = {
    "smith-le-mlp, 4,096 rows": ("smith-le-mlp", (1, 28, 28), 4096, AIM),
    "keskar-f1, 4,096 rows": ("keskar-f1", (1, 28, 28), 4096, None),
    "keskar-c1, 256 images": ("keskar-c1", (3, 32, 32), 256, None),
}


def entries(*, quick: bool) -> Iterator[Faster]:
    for name, (network, shape, size, aim) in CASES.items():
        problem = random_problem(network, shape, 24 if quick else size)
        params, buffers = state(problem)
        contestants = {"ours": ours(problem, params, buffers), "peer": peer(problem, params, buffers)}
        found = {who: work() for who, work in contestants.items()}
        seconds = in_turns({who: timed(work) for who, work in contestants.items()}, 1 if quick else REPETITIONS)
        yield Faster(
            name=name,
            what=("gengap.noise_scale", f"vmap(grad) loop, {BLOCK} at a time"),
            ours=seconds["ours"],
            peer=seconds["peer"],
            at_least=aim,
            notes={
                "samples": len(problem.train[1]),
                "weights": problem.parameters,
                "seconds_are": "of CPU time",
                "trace_covariance": {who: parts[0] for who, parts in found.items()},
                "squared_gradient_norm": {who: parts[1] for who, parts in found.items()},
                "peak_memory_bytes": {who: peak_of(work) for who, work in contestants.items()},
            },
        )


Parts = tuple[float, float]
State = dict[str, torch.Tensor]


def state(problem: gengap.Problem) -> tuple[State, State]:
    model = problem.model(seed=0)
    return {k: p.detach() for k, p in model.named_parameters()}, dict(model.named_buffers())


def ours(problem: gengap.Problem, params: State, buffers: State) -> Callable[[], Parts]:
    loss = problem.loss_function("train", buffers=buffers)

    def once() -> Parts:
        found = noise_scale(loss, params, check=False)
        return found.trace_covariance.value, found.squared_gradient_norm.value

    return once


def peer(problem: gengap.Problem, params: State, buffers: State) -> Callable[[], Parts]:
    model = problem.model(seed=0).eval()
    inputs, targets = problem.train
    n = len(targets)

    def loss(p: State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(model, (p, buffers), (x.unsqueeze(0),)), y.unsqueeze(0))

    gradients = vmap(grad(loss), (None, 0, 0))

    def once() -> Parts:
        squares, total = 0.0, {k: torch.zeros_like(p) for k, p in params.items()}
        for x, y in zip(inputs.split(BLOCK), targets.split(BLOCK), strict=True):
            for name, g in gradients(params, x, y).items():
                squares += float(g.flatten(1).square().sum(1).double().sum())
                total[name] += g.sum(0)
        square = sum(float(g.square().sum(dtype=torch.float64)) for g in total.values())
        trace = (squares - square / n) / (n - 1)
        return trace, square / n**2 - trace / n

    return once


def timed(work: Callable[[], Parts]) -> Callable[[], float]:
    def once() -> float:
        clock = time.process_time()
        work()
        return time.process_time() - clock

    return once


def peak_of(work: Callable[[], Parts]) -> int | None:
    with PeakMemory(torch.device("cpu")) as peak:
        work()
    return peak.bytes
