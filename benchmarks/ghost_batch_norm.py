"""CPU time of ghost batch norm, forward and backward, against plain batch norm of the same activations.

Shapes are those of C1 (Keskar et al. 2017) and of WRN-16-4, both for CIFAR; a ratio of 0.95 is 5 % slower than plain. Beside it
is the usual form, a loop of plain batch norm over the ghost batches, put together again. "all of ..." is every batch norm of the
network one after the other. Gradients go to input, weight and bias; running statistics are kept. All start from the same
memory; fresh memory for outputs and gradients is part of the time.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.record import Faster, in_turns, summary
from gengap.nets.norm_conversion import convert_ghost_batch_norm

REPETITIONS = 9
AIM = 0.95
C1 = [(64, 32, 32), (64, 16, 16), (384,), (192,)]
WRN = [(16, 32, 32), *[(64, 32, 32)] * 3, (64, 32, 32), *[(128, 16, 16)] * 4, *[(256, 8, 8)] * 4]
# samples of one layer, batch, ghost size, channels_last
CASES = {
    "C1 first, 1,024 in ghosts of 256": (C1[:1], 1024, 256, False),
    "C1 second, 1,024 in ghosts of 256": (C1[1:2], 1024, 256, False),
    "C1 second, 1,024 in ghosts of 32": (C1[1:2], 1024, 32, False),
    "C1 dense, 1,024 in ghosts of 256": (C1[2:3], 1024, 256, False),
    "all of C1, 1,024 in ghosts of 256": (C1, 1024, 256, False),
    "all of C1, channels_last": (C1, 1024, 256, True),
    "WRN-16-4 stage 1, 256 in ghosts of 64": ([(64, 32, 32)], 256, 64, False),
    "WRN-16-4 stage 2, 256 in ghosts of 64": ([(128, 16, 16)], 256, 64, False),
    "WRN-16-4 stage 3, 256 in ghosts of 64": ([(256, 8, 8)], 256, 64, False),
    "all of WRN-16-4, 256 in ghosts of 64": (WRN, 256, 64, False),
    "all of WRN-16-4, channels_last": (WRN, 256, 64, True),
}

Layer = Callable[[Tensor], Tensor]


def entries(*, quick: bool) -> Iterator[Faster]:
    for name, (shapes, batch, ghost_size, channels_last) in CASES.items():
        samples, ghost = (max(4, batch // 64), max(2, ghost_size // 64)) if quick else (batch, ghost_size)
        data = {shape: activations(shape, samples, channels_last=channels_last) for shape in set(shapes)}
        contestants = {
            who: passes([(form(shape, ghost), *data[shape]) for shape in shapes])
            for who, form in (("ours", ours), ("peer", plain), ("loop", loop))
        }
        seconds = in_turns(contestants, 1 if quick else REPETITIONS)
        yield Faster(
            name=name,
            what=("ghost batch norm", "plain batch norm"),
            ours=seconds["ours"],
            peer=seconds["peer"],
            at_least=AIM,
            notes={
                "batch_size": samples,
                "ghost_size": ghost,
                "samples_of_layers": shapes,
                "channels_last": channels_last,
                "seconds_are": "of CPU time for a forward and backward pass of every layer",
                "loop": {
                    "what": "plain batch norm of one ghost batch after the other",
                    "seconds": summary(seconds["loop"]),
                },
                "loop_ratio": summary([p / o for o, p in zip(seconds["loop"], seconds["peer"], strict=True)]),
            },
        )


def activations(shape: tuple[int, ...], samples: int, *, channels_last: bool) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(samples, *shape, generator=rng) for _ in range(2))
    if channels_last and x.ndim == 4:
        x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    return x.requires_grad_(), dy


def plain(shape: tuple[int, ...], ghost_size: int) -> nn.Module:
    del ghost_size
    return nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])


def ours(shape: tuple[int, ...], ghost_size: int) -> nn.Module:
    return convert_ghost_batch_norm(plain(shape, ghost_size), ghost_size)


def loop(shape: tuple[int, ...], ghost_size: int) -> Layer:
    norm = plain(shape, ghost_size)
    return lambda x: torch.cat([norm(part) for part in x.split(ghost_size)])


def passes(layers: list[tuple[Layer, Tensor, Tensor]]) -> Callable[[], float]:
    def once() -> float:
        clock = time.process_time()
        for layer, x, dy in layers:
            layer(x).backward(dy)
            x.grad = None
        return time.process_time() - clock

    return once
