"""One of several processes that train together; run as `rank_cases.py FOLDER`, with torchrun's variables in the environment.

It trains every case and writes what it found to FOLDER/SIZE-RANK.pt. Two leave a checkpoint; of three the last dies.
"""

import math
import os
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import nn
from training_problems import Counted, normed, points, problem, recipe, rectified, smooth

import gengap
from gengap.core.errors import LostRank
from gengap.training import gradient
from gengap.training.exchange import Exchange
from gengap.training.ranks import find_ranks

ADAM = {"optimizer": "adam", "lr": 0.01}


def masked():
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))


class Forked(nn.Module):
    """One weight is frozen, one never used, and one used by samples of one kind only."""

    def __init__(self):
        super().__init__()
        self.frozen, self.unused, self.rare, self.out = (nn.Linear(3, 3) for _ in range(4))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        hidden = self.frozen(x)
        high = x[:, :1] > 1.5
        if high.any():
            hidden = torch.where(high, self.rare(x), hidden)
        return self.out(hidden)[:, :2]


def averaged():
    """Running statistics that are plain means."""
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6, momentum=None), nn.ReLU(), nn.Linear(6, 2))


# name: network, fields of the recipe. 40 samples: the last batch of 18 and of 12 has 4, that of 13 has 1.
SAME = {
    "momentum": (rectified, {"batch_size": 18, "momentum": 0.9, "weight_decay": 0.1}),
    "adam, clipped": (smooth, {"batch_size": 12, **ADAM, "clip_norm": 0.1, "schedule": "cosine"}),
    "fewer than ranks": (smooth, {"batch_size": 13, "momentum": 0.9}),
    "accumulated": (smooth, {"batch_size": 18, "micro_batch": 4}),
    "frozen and unused": (Forked, {"batch_size": 13, **ADAM, "weight_decay": 0.1}),
    "sam": (smooth, {"batch_size": 13, "method": "sam"}),
    "l-bfgs": (smooth, {"batch_size": 18, "optimizer": "lbfgs", "lr": 0.5}),
    "adaqn": (smooth, {"batch_size": 18, "optimizer": "adaqn", "budget": {"epochs": 25}}),
    "svrg": (smooth, {"batch_size": 13, "method": "svrg"}),
    "workers": (smooth, {"batch_size": 18, "method": {"name": "elastic-averaging", "workers": 2, "period": 2}}),
    "growing by noise": (smooth, {"batch_size": 6, "batch_schedule": {"name": "dynamic", "theta": 0.5}}),
    "noise": (smooth, {"batch_size": 13, "gradient_noise": {"name": "multiplicative", "sigma": 0.5}}),
    "adversarial": (smooth, {"batch_size": 18, "adversarial": {"epsilon": 0.1}}),
    "ghosts": (normed, {"batch_size": 18, "ghost_batch": 4, "momentum": 0.9}),
    "ghosts in pieces": (normed, {"batch_size": 18, "ghost_batch": 4, "micro_batch": 8}),
    "plain means": (averaged, {"batch_size": 18, "ghost_batch": 4}),
    "dynamic, norm of all": (normed, {"batch_size": 16, "batch_schedule": {"name": "dynamic", "theta": 0.3}}),
    "norm of all": (normed, {"batch_size": 13, "batch_norm": "all", "momentum": 0.9, "drop_last": True}),
    "norm of all, fewer than ranks": (normed, {"batch_size": 19, "batch_norm": "all"}),
}
OTHER = {
    "norm of each": (normed, {"batch_size": 20, "momentum": 0.9, "batch_norm": "rank"}),
    "norm of all in pieces": (normed, {"batch_size": 20, "batch_norm": "all", "micro_batch": 5}),
    "dropout": (masked, {"batch_size": 20}),
}
CASES = SAME | OTHER
# the same with and without readings of the noise scale: network, fields of the recipe
READ = {
    "even": (smooth, {"batch_size": 20, "clip_norm": 100.0}),
    "uneven": (smooth, {"batch_size": 13}),
    "pieces": (smooth, {"batch_size": 20, "micro_batch": 4}),
    "ghosts": (normed, {"batch_size": 18, "ghost_batch": 4, "momentum": 0.9}),
    "two passes": (smooth, {"batch_size": 18, "method": "sam"}),
}


def train(case, ranks=None, **more):
    net, fields = CASES[case]
    together = {} if ranks is None else {"ranks": ranks}
    return gengap.train(problem(net), recipe(**fields), evaluations=3, **together, **more)


def record(run):
    return {
        "params": dict(run.params),
        "buffers": dict(run.buffers),
        "history": [(p.step, p.batch_loss or 0.0, p.train_loss, p.train_accuracy, p.test_loss) for p in run.history],
        "outcome": str(run.outcome),
        "ranks": run.cost.ranks,
    }


IN_THREE = ["momentum", "fewer than ranks", "frozen and unused", "workers", "growing by noise", "ghosts"]
IN_THREE += ["norm of all, fewer than ranks", "dropout"]
STOPPED = {"batch_size": 8, "ghost_batch": 4, "budget": {"epochs": 30}, "momentum": 0.9}


def read(case, ranks, **more):
    """A run that reads the noise scale, and the same that does not."""
    net, fields = READ[case]
    how = {"recipe": recipe(**fields, budget={"epochs": 6}), "evaluations": 2, "ranks": ranks}
    run = gengap.train(problem(net), **how, noise_scale=True, noise_overhead=1.0)
    last = run.noise_scale[-1]
    return {
        "reading": (last.squared_gradient_norm.value, last.trace_covariance.value, last.observations, last.steps),
        "dropped": last.dropped,
        "with": record(run),
        "without": record(gengap.train(problem(net), **how)),
    }


def refused(ranks):
    """What a rank hears when another one comes with other data."""
    own = problem(smooth, train=points(seed=5)) if ranks.rank == 1 else problem(smooth)
    try:
        gengap.train(own, recipe(), ranks=ranks)
    except gengap.BadInput as error:
        return str(error)
    return "nothing"


def at(ranks, update, act):
    """A problem in which the last rank does something in an update."""

    def do(now, loss):
        return act(loss) if now == update and ranks.rank == ranks.size - 1 else loss

    return problem(normed, loss=Counted(do))


def pressed(loss):
    os.kill(os.getpid(), signal.SIGINT)
    return loss


def killed(loss):
    os.kill(os.getpid(), signal.SIGKILL)
    return loss


def stopped(ranks, file, problem, **more):
    """A run with a checkpoint that may be there already."""
    return gengap.train(problem, recipe(**STOPPED), evaluations=2, ranks=ranks, checkpoint=file, **more)


def left_alone(ranks, file):
    """What a rank hears when the last one is killed."""
    began = time.monotonic()
    try:
        stopped(ranks, file, at(ranks, 74, killed), checkpoint_every=0)
    except LostRank as error:
        return [str(error), time.monotonic() - began]
    return ["nothing", 0.0]


def main(folder):
    torch.set_num_threads(1)
    with find_ranks(timeout=120) as ranks:
        if ranks.size == 3:  # a message for every weight or two, sent while the backward pass goes on
            gradient.Exchange = partial(Exchange, most=64)
        found = {case: record(train(case, ranks)) for case in (CASES if ranks.size == 2 else IN_THREE)}
        found["read"] = {case: read(case, ranks) for case in READ}
        if ranks.size == 2:
            found["refused"] = refused(ranks)
            found["interrupted"] = record(stopped(ranks, folder / "interrupted", at(ranks, 4, pressed)))
            found["diverged"] = record(stopped(ranks, folder / "diverged", at(ranks, 4, lambda loss: loss * math.nan)))
        else:
            found["resumed"] = record(stopped(ranks, folder / "for three", at(ranks, -1, pressed)))
            found["left alone"] = left_alone(ranks, folder / "killed")
        torch.save(found, folder / f"{ranks.size}-{ranks.rank}.pt")


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(Path(sys.argv[1]))
