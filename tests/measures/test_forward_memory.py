# Oracle: bytes of the tensors of a small network, counted by hand.
import pytest
import torch
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.measures.landscape.paths import interpolate
from gengap.measures.memory import TRANSIENT
from gengap.measures.pass_cost import pass_cost


def task(model, samples=40, batch_norm=False):
    x = torch.randn(samples, 10, generator=torch.Generator().manual_seed(6))
    y = torch.zeros(samples, dtype=torch.int64)
    return gengap.Problem(model=model, loss="cross_entropy", train=(x, y), test=(x, y))


def test_a_sample_takes_its_widest_pair_of_layers():
    wide = task(lambda: nn.Sequential(nn.Linear(10, 300), nn.ReLU(), nn.Linear(300, 4), nn.Linear(4, 4)))
    params = dict(wide.model(0).named_parameters())
    found = pass_cost(wide.loss_function("train"), params, "value").peak
    assert found == pytest.approx(TRANSIENT * 2 * 300 * 4 + 10 * 4 + 8, rel=0.02)


def test_the_limit_decides_the_chunk():
    wide = task(lambda: nn.Sequential(nn.Linear(10, 300), nn.ReLU(), nn.Linear(300, 4)))
    a, b = (dict(wide.model(s).named_parameters()) for s in (0, 1))
    seen = []
    loss = wide.loss_function("train")
    need = pass_cost(loss, a, "value").peak
    weights = sum(p.numel() * 4 for p in a.values())

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x

    watched = task(lambda: nn.Sequential(Watch(), nn.Linear(10, 300), nn.ReLU(), nn.Linear(300, 4)))
    ends = [{f"{int(n[0]) + 1}{n[1:]}": p for n, p in end.items()} for end in (a, b)]
    limit = int(2 * (weights + 8 * need))
    path = interpolate(watched.loss_function("train"), a=ends[0], b=ends[1], alphas=[0.5], memory_limit=limit)
    assert 4 <= max(seen[-3:]) <= (limit - weights) / need < 40
    assert path.losses[0] == pytest.approx(interpolate(loss, a=a, b=b, alphas=[0.5]).losses[0], rel=1e-6)


def test_statistics_of_a_batch_are_not_cut():
    normed = task(lambda: nn.Sequential(nn.Linear(10, 300), nn.BatchNorm1d(300), nn.Linear(300, 4)))
    a, b = (dict(normed.model(s).named_parameters()) for s in (0, 1))
    with pytest.raises(BadInput, match="raise memory_limit"):
        interpolate(normed.loss_function("train", batch_norm="batch"), a=a, b=b, memory_limit="80 KiB")
