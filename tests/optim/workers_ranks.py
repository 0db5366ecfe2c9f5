"""One of two processes that train together; run as `workers_ranks.py FOLDER RANK`, says where it came in JSON."""

import json
import sys
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from gengap.optim.mixing import Elastic, PostLocal
from gengap.optim.workers import Worker

STEPS = 11
RULES = {"post-local": PostLocal(period=3, start=4), "elastic": Elastic(alpha=0.3, beta=0.6, period=2)}
BASE = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def closure(model, step, worker):
    """The closure of a worker's own batch."""
    rng = torch.Generator().manual_seed(10 * step + worker)
    x, y = torch.randn(8, 4, generator=rng, dtype=torch.float64), torch.randint(3, (8,), generator=rng)

    def evaluate():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return evaluate


def mean(x):
    dist.all_reduce(x)
    return x / dist.get_world_size()


def numbers(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors]).tolist()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, rank = sys.argv[1], int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    for name, rule in RULES.items():
        model = network()
        worker = Worker(model.parameters(), BASE, rule=rule, mean=mean)
        losses = [worker.step(closure(model, step, rank)).item() for step in range(STEPS)]
        found[name] = {
            "losses": losses,
            "own": numbers(model.parameters()),
            "result": numbers(worker.result()),
        }
    print(json.dumps(found))
    dist.destroy_process_group()
