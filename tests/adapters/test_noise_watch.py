# Oracle: a NoiseScaleMonitor in a plain loop that never sees the updates of a single pass.
from dataclasses import replace

import pytest
import torch
from torch import nn

from gengap.adapters.noise_watch import NoiseScaleWatch, samples_of
from gengap.core.errors import BadInput
from gengap.measures.noise.monitor import NoiseScaleMonitor


def trained(observe, *, lone):
    """Updates of three uneven passes; with `lone`, every fourth is followed by one of a single pass, without a change."""
    rng, weight = torch.Generator().manual_seed(0), nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        weight.weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
    end = observe(weight)
    for update in range(40):
        for part in torch.randn(11, 3, generator=rng, dtype=torch.float64).split([4, 4, 3]):
            (weight(part + 1).square().mean() / 3).backward()
            end.saw(len(part))
        end()
        weight.zero_grad()
        if lone and update % 4 == 1:  # the first observation that is due falls on one
            weight(torch.ones(5, 3, dtype=torch.float64)).square().mean().backward()
            end.saw(5)
            end()
            weight.zero_grad()
    return end


class Plain:
    def __init__(self, model):
        self.monitor, self.sizes = NoiseScaleMonitor(model, max_overhead=1.0), []

    def saw(self, size):
        self.sizes.append(size)

    def __call__(self):
        self.monitor.step(self.sizes, weights=1 / 3)
        self.sizes = []


class Watched:
    def __init__(self, model):
        self.watch, self.logged = NoiseScaleWatch(model, every=10, max_overhead=1.0), []
        self.saw, self.monitor = self.watch.saw, self.watch.monitor

    def __call__(self):
        found = self.watch.end_update(1 / 3)
        self.logged += [found] if found else []


def test_updates_of_one_pass_are_left_out():
    plain, watched = trained(Plain, lone=False), trained(Watched, lone=True)
    seen, expected = ([replace(o, step=0, samples=0) for o in one.monitor.history] for one in (watched, plain))
    assert len(expected) == 37
    assert seen[-37:] == expected  # one that is left out counts as a step: the warm-up is over one step sooner
    assert len(seen) == 38
    assert watched.watch.updates == 50
    assert len(watched.logged) == 5


def test_what_is_logged_is_the_reading():
    watched = trained(Watched, lone=False)
    reading, logged = watched.monitor.reading(), watched.logged[-1]
    assert logged["noise_scale/simple"] == reading.simple.value
    assert (logged["noise_scale/low"], logged["noise_scale/high"]) == reading.simple.interval
    assert logged["noise_scale/at_least"] == reading.at_least
    assert logged["noise_scale/trace_covariance"] == reading.trace_covariance.value
    assert logged["noise_scale/squared_gradient_norm"] == reading.squared_gradient_norm.value
    assert logged["noise_scale/observations"] == 37
    assert set(watched.logged[0]) == {"noise_scale/observations", "noise_scale/overhead"}  # of 7 observations


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(4, 2),
        (torch.zeros(4, 2), torch.zeros(5)),
        {"scale": torch.tensor(1.0), "x": [torch.zeros(4)]},
        ["name", torch.zeros(4)],
    ],
)
def test_samples_of_a_batch(batch):
    assert samples_of(batch) == 4


def test_bad_input():
    with pytest.raises(BadInput, match="a batch is a dict in which no tensor is found"):
        samples_of({"x": torch.tensor(1.0)})
    with pytest.raises(BadInput, match="one backward pass in one process"):
        NoiseScaleWatch(nn.Linear(1, 1), every=1, max_overhead=1.0, passes=1)
    with pytest.raises(BadInput, match="every is 0"):
        NoiseScaleWatch(nn.Linear(1, 1), every=0, max_overhead=1.0)
