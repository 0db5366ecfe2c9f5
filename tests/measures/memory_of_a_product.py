"""Run as a process of its own: products under memory limits, with what the system says of the process, as JSON."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from gengap.measures.curvature.operators import hessian
from gengap.measures.session import measuring
from gengap.problem.from_model import loss_function

SAMPLES, WIDTH = 10_000, 2048


def status(key):
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def main(limits):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, WIDTH), nn.Tanh(), nn.Tanh(), nn.Tanh(), nn.Linear(WIDTH, 10))
    loss = loss_function(model, "cross_entropy", (torch.randn(SAMPLES, 8), torch.randint(10, (SAMPLES,))))
    vector, found = torch.randn(sum(p.numel() for p in model.parameters())), []
    for limit in limits:
        before = status("VmRSS")
        with measuring(
            loss, dict(model.named_parameters()), passes="product", vectors=2, memory_limit=limit
        ) as session:
            product = hessian(session)(vector)
            real = status("VmHWM") - before
            conditions = session.conditions()
        found.append({
            "real": real,
            "peak": conditions.peak_memory,
            "chunk": conditions.chunk_size,
            "v": product.tolist()[::97],
        })
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
