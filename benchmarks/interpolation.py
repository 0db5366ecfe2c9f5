"""CPU time of `gengap.interpolate` over 25 points, against two peers.

"forward passes" do the least that could be done without knowing that the points lie on a line: the module in evaluation
mode, without gradients, on the same chunks, with neither weights to set nor losses to compute. "DataLoader" is the usual
way: at every point the weights are set, and training and test samples go through a DataLoader of a TensorDataset, in
evaluation mode without gradients, for loss and accuracy. Ours is faster than either where the network begins with a linear
layer, whose outputs are blended from point to point instead of multiplied anew. CPU time of the process, not wall clock:
the differences are small, and both sides use one thread.
"""

import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gengap
from benchmarks.images import random_problem
from benchmarks.record import Faster, in_turns

POINTS = 25
REPETITIONS = 15
WHOLE_REPETITIONS = 3  # of minutes each
CHUNK = 500  # samples in a forward pass, the default of a loss function
AIM = 1 / 1.10
AIM_DATALOADER = 1.5
ALPHAS = [-1 + 3 * i / (POINTS - 1) for i in range(POINTS)]


def entries(*, quick: bool) -> Iterator[Faster]:
    yield from against_forward_passes(quick=quick)
    yield from against_dataloaders(quick=quick)


def against_forward_passes(*, quick: bool) -> Iterator[Faster]:
    size = 100 if quick else 2000
    problems = {
        "keskar-f1": random_problem("keskar-f1", (1, 28, 28), size),
        "smith-le-mlp": random_problem("smith-le-mlp", (1, 28, 28), size),
        "convnet on digits": gengap.load("digits", network="convnet"),
    }
    for name, problem in problems.items():
        contestants = {"ours": ours(problem, ["train"]), "peer": forward_passes(problem)}
        seconds = in_turns(contestants, 1 if quick else REPETITIONS)
        yield Faster(
            name=f"{name}, {POINTS} points",
            what=("gengap.interpolate", "forward passes"),
            ours=seconds["ours"],
            peer=seconds["peer"],
            at_least=AIM,
            notes={"samples": len(problem.train[1]), "chunk": CHUNK, "seconds_are": "of CPU time for all points"},
        )


def against_dataloaders(*, quick: bool) -> Iterator[Faster]:
    sizes = (200, 50) if quick else (60_000, 10_000)  # those of MNIST
    for network in ("keskar-f1", "smith-le-mlp"):
        problem = whole_problem(network, sizes)
        contestants = {"ours": ours(problem, ["train", "test"])}
        contestants |= {f"batch {size}": dataloaders(problem, size) for size in (256, 500)}
        seconds = in_turns(contestants, 1 if quick else WHOLE_REPETITIONS)
        for peer in list(contestants)[1:]:
            yield Faster(
                name=f"{network}, train and test, {peer}",
                what=("gengap.interpolate", "DataLoader"),
                ours=seconds["ours"],
                peer=seconds[peer],
                at_least=AIM_DATALOADER,
                notes={"samples": sum(sizes), "chunk": CHUNK, "seconds_are": "of CPU time for all points"},
            )


def whole_problem(network: str, sizes: tuple[int, int]) -> gengap.Problem:
    """Give a network on as many random images as MNIST has."""
    both = random_problem(network, (1, 28, 28), sum(sizes)).train
    train, test = zip(*(part.split(list(sizes)) for part in both), strict=True)
    return gengap.Problem(model=network, loss="cross_entropy", train=train, test=test)


def ends_of(problem: gengap.Problem) -> list[dict[str, Tensor]]:
    return [{name: p.detach() for name, p in problem.model(seed).named_parameters()} for seed in (0, 1)]


def ours(problem: gengap.Problem, splits: list[str]) -> Callable[[], float]:
    a, b = ends_of(problem)
    losses = [problem.loss_function(split) for split in splits]

    def once() -> float:
        clock = time.process_time()
        gengap.interpolate(losses, a=a, b=b, alphas=ALPHAS)
        return time.process_time() - clock

    return once


def forward_passes(problem: gengap.Problem) -> Callable[[], float]:
    model, chunks = problem.model(seed=0).eval(), problem.train[0].split(CHUNK)

    def once() -> float:
        clock = time.process_time()
        with torch.no_grad():
            for _ in range(POINTS):
                for chunk in chunks:
                    model(chunk)
        return time.process_time() - clock

    return once


def dataloaders(problem: gengap.Problem, batch: int) -> Callable[[], float]:
    a, b = ends_of(problem)
    model = problem.model(seed=0).eval()
    loaders = [DataLoader(TensorDataset(*split), batch_size=batch) for split in (problem.train, problem.test)]

    def once() -> float:
        clock = time.process_time()
        with torch.no_grad():
            for alpha in ALPHAS:
                for name, p in model.named_parameters():
                    p.copy_(torch.lerp(a[name], b[name], alpha))
                for loader in loaders:
                    evaluated(model, loader)
        return time.process_time() - clock

    return once


def evaluated(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> tuple[float, float]:
    """Give mean loss and accuracy; the sums stay tensors until the end, which is kind to the peer."""
    loss, correct, seen = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
    for inputs, targets in loader:
        outputs = model(inputs)
        loss += F.cross_entropy(outputs, targets, reduction="sum")
        correct += (outputs.argmax(1) == targets).sum()
        seen += len(targets)
    return float(loss) / seen, float(correct) / seen
