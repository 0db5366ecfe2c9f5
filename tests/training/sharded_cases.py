"""One of several processes that train a sharded network; run as `sharded_cases.py FOLDER`, with torchrun's variables set.

It trains every case and writes what it found to FOLDER/SIZE-RANK.pt. Two leave a checkpoint; of three the last dies.
"""

import sys
import warnings
from pathlib import Path

import torch
from rank_cases import killed, masked, pressed, record
from torch import nn
from training_problems import Counted, normed, problem, recipe, smooth

import gengap
from gengap.core.errors import LostRank
from gengap.core.events import silent
from gengap.training.loop import Training
from gengap.training.ranks import find_ranks
from gengap.training.sharded import held_bytes


class Stacked(nn.Module):
    """Blocks in a list, a weight that two layers share, one that is frozen, and one that is never used."""

    def __init__(self):
        super().__init__()
        self.first, self.out, self.unused = nn.Linear(3, 7), nn.Linear(7, 2), nn.Linear(3, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(7, 7), nn.Tanh()) for _ in range(3)])
        self.blocks[2][0].weight = self.blocks[1][0].weight
        self.blocks[0][0].bias.requires_grad_(False)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.out(x)[:, :]  # a view


ADAM = {"optimizer": "adam", "lr": 0.01}
# 40 samples: the last batch of 18 has 4, that of 13 has 1, which leaves processes without any
CASES = {
    "momentum": (smooth, {"batch_size": 18, "momentum": 0.9, "weight_decay": 0.1}),
    "adam, clipped": (Stacked, {"batch_size": 13, **ADAM, "clip_norm": 0.1, "schedule": "cosine", "weight_decay": 0.1}),
    "in pieces": (
        Stacked,
        {"batch_size": 18, "micro_batch": 4, "optimizer": "adamw", "lr": 0.01, "decay_norms": False},
    ),
    "rmsprop": (smooth, {"batch_size": 18, "optimizer": "rmsprop", "lr": 0.01, "momentum": 0.5}),
    "ghosts": (normed, {"batch_size": 18, "ghost_batch": 4, "momentum": 0.9}),
    "ghosts in pieces": (normed, {"batch_size": 18, "ghost_batch": 4, "micro_batch": 8}),
    "norm of all": (normed, {"batch_size": 19, "batch_norm": "all", "momentum": 0.9}),
    "noise": (
        smooth,
        {"batch_size": 13, "gradient_noise": {"name": "multiplicative", "sigma": 0.5}, "optimizer": "adagrad"},
    ),
}
APART = {"dropout": (masked, {"batch_size": 20}), "norm of each": (normed, {"batch_size": 20, "batch_norm": "rank"})}
STOPPED = {"batch_size": 8, "ghost_batch": 4, "budget": {"epochs": 8}, **ADAM}
WIDE = {"batch_size": 20, "dtype": "float32", "budget": {"steps": 1}, **ADAM}


def scaled():
    """No bias before batch norm: Adam would move one by nothing but rounding."""
    return nn.Sequential(nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def wide():
    return nn.Sequential(nn.Linear(3, 600), nn.Tanh(), nn.Linear(600, 600), nn.Tanh(), nn.Linear(600, 12))


def train(case, **more):
    net, fields = (CASES | APART)[case]
    return gengap.train(problem(net), recipe(**fields), evaluations=3, **more)


def linear(module):
    return isinstance(module, nn.Linear)


def stopped(ranks, file, update):
    """A run that somebody stops, or that goes on."""

    def act(now, loss):
        return pressed(loss) if now == update and ranks.rank == 0 else loss

    sharded = problem(scaled, loss=Counted(act))
    return record(gengap.train(sharded, recipe(**STOPPED), evaluations=2, ranks=ranks, checkpoint=file, shard=True))


def left_alone(ranks):
    """What a process hears when the last one is killed in the middle of a pass."""

    def act(now, loss):
        return killed(loss) if now == 5 and ranks.rank == ranks.size - 1 else loss

    try:
        gengap.train(problem(smooth, loss=Counted(act)), recipe(), evaluations=2, ranks=ranks, shard=True)
    except LostRank as error:
        return str(error)
    return "nothing"


def bytes_of(ranks, *, shard):
    """What a process holds of weights, gradients and Adam's averages after an update: counted, not computed."""
    seen = {}
    run = Training(
        problem(wide), recipe(**WIDE).resolved(40), ranks.device, evaluations=1, listen=silent, ranks=ranks, shard=shard
    )
    step = run.optimizer.step

    def looked():
        seen["gradients"] = held_bytes(p.grad for p in run.model.parameters())
        step()

    run.optimizer.step = looked
    run.update(next(run._batches()))
    memory = [value for state in run.optimizer.state.values() for value in state.values() if value.ndim]
    return seen | {"weights": held_bytes(run.model.parameters()), "memory": held_bytes(memory)}


def main(folder):
    torch.set_num_threads(1)
    with find_ranks(timeout=120) as ranks:
        found = {case: record(train(case, ranks=ranks, shard=True)) for case in CASES | APART}
        found["size"] = ranks.size
        found["whole"] = {case: record(train(case, ranks=ranks)) for case in APART}
        found["own blocks"] = record(train("adam, clipped", ranks=ranks, shard=linear))
        found["bytes"] = {shard: bytes_of(ranks, shard=shard) for shard in (False, True)}
        if ranks.size == 2:
            found["interrupted"] = stopped(ranks, folder / "interrupted", 10)
        else:
            found["resumed"] = stopped(ranks, folder / "for three", -1)
            found["from whole"] = stopped(ranks, folder / "from whole", -1)
            found["left alone"] = left_alone(ranks)
        torch.save(found, folder / f"{ranks.size}-{ranks.rank}.pt")


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(Path(sys.argv[1]))
