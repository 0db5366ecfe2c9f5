"""One of two processes that train together with a monitor; run as `monitor_ranks.py FOLDER RANK`, says what it found in JSON."""

import json
import sys
import warnings
from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gengap.measures.noise.monitor import NoiseScaleMonitor

STEPS = 12


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch(step, rank, sizes):
    """The micro-batches of a rank, of these sizes."""
    rng = torch.Generator().manual_seed(10 * step + rank)
    total = sum(sizes)
    x, y = torch.randn(total, 4, generator=rng, dtype=torch.float64), torch.randint(3, (total,), generator=rng)
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def train(rank, sizes, make_monitor, way="step"):
    """Train; return the observations and the weights."""
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = make_monitor(model)
    for step in range(STEPS):
        parts = batch(step, rank, sizes)
        for i, (x, y) in enumerate(parts):
            with model.no_sync() if i < len(parts) - 1 else nullcontext():
                if way == "backward":
                    monitor.backward(F.cross_entropy(model(x), y, reduction="none"))
                else:
                    (F.cross_entropy(model(x), y) / len(parts)).backward()
        if way == "step" and monitor:
            monitor.step(sizes)
        optimizer.step()
        optimizer.zero_grad()
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).tolist()
    if not monitor:
        return {"weights": weights}
    rows = [[o.step, o.squared_gradient_norm, o.trace_covariance, o.B_small, o.B_big] for o in monitor.history]
    return {"rows": rows, "weights": weights, "every": monitor.every, "samples": monitor.samples}


class Clock:
    """The clocks of the two ranks do not agree at all."""

    def __init__(self, rank):
        self.now, self.tick = 0.0, 1.0 + 5 * rank

    def __call__(self):
        self.now += self.tick
        return self.now


def mistaken(rank):
    """A monitor of the bare network finds out that gradients were averaged."""
    model = network()
    wrapped = DistributedDataParallel(model)
    monitor = NoiseScaleMonitor(model, max_overhead=1.0)
    try:
        for step in range(4):
            for x, y in batch(step, rank, [4, 4]):
                (F.cross_entropy(wrapped(x), y) / 2).backward()
            monitor.step([4, 4])
            model.zero_grad()
    except ValueError as error:
        return str(error)


def main(folder, rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    always = lambda model: NoiseScaleMonitor(model, max_overhead=1.0)  # noqa: E731
    found = {
        "plain": train(rank, [8], always),
        "uneven ranks": train(rank, [8, 3][rank : rank + 1], always),
        "accumulated": train(rank, [5, 3], always),
        "backward": train(rank, [8], always, way="backward"),
        "without": train(rank, [8], lambda model: None),
        "clocks": train(rank, [8], lambda model: NoiseScaleMonitor(model, max_overhead=0.5, clock=Clock(rank))),
        "mistake": mistaken(rank),
    }
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], int(sys.argv[2]))
