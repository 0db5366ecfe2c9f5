# Oracle: a clock that moves only where the test says so, and the sums done by hand.
from itertools import pairwise

import pytest
import torch
from torch import nn

from gengap.measures.noise.monitor import NoiseScaleMonitor
from gengap.measures.noise.overhead import Overhead

TICK = 0.001  # a section of one's own takes one tick: the clock moves by it whenever it is read


class Clock:
    def __init__(self, tick=0.0):
        self.now, self.tick = 100.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def spend(overhead, clock, *, whole, own, observe):
    """One step of a loop in which observing takes `own` seconds."""
    overhead.observing = observe
    with overhead.own():
        clock.now += own if observe else 0.0
    clock.now += whole
    overhead.end_step()


def test_the_period_is_the_shortest_that_keeps_the_limit():
    clock = Clock()
    overhead = Overhead(0.03, clock)
    for _ in range(1000):  # nothing is owed after this many
        spend(overhead, clock, whole=1.0, own=0.0, observe=False)
    spend(overhead, clock, whole=1.0, own=0.5, observe=True)
    e = overhead.period()
    assert 0.5 / (e + 0.5) <= 0.03 < 0.5 / (e - 1 + 0.5)
    assert overhead.share == pytest.approx(0.5 / 1000.5)


@pytest.mark.parametrize("cost", [1e-6, 0.002, 0.04, 0.7, 5.0])
def test_the_share_stays_below_the_limit_and_is_not_wasted(cost):
    clock = Clock()
    overhead = Overhead(0.03, clock)
    due, observations, whole = 3, [], 0.5
    for i in range(20_000):
        observe = i == due
        spend(overhead, clock, whole=whole, own=cost, observe=observe)
        if observe:
            due = i + overhead.period()
            observations.append(i)
            assert overhead.share <= 0.03 * (1 + 1e-9) or len(observations) == 1
    spent = len(observations) * cost
    assert overhead.share == pytest.approx(spent / (20_000 * whole + spent), rel=1e-3)
    affordable = min(20_000, 0.03 * 20_000 * whole / cost)
    assert len(observations) > 0.5 * affordable - 1  # whole periods are rounded up, by a half at most from 2 to 1


def test_steps_that_become_faster_are_noticed():
    clock = Clock()
    overhead = Overhead(0.1, clock)
    for whole in [1.0] * 100 + [0.1] * 100:
        spend(overhead, clock, whole=whole, own=0.05, observe=True)
    assert overhead.period() >= 5


def test_an_accelerator_is_waited_for_on_calibrations_only():
    clock, waits = Clock(), []
    overhead = Overhead(0.03, clock, synchronise=lambda: waits.append(overhead.observed))
    for i in range(400):
        observe = i % 4 == 0
        # a launch returns after 0.01 s; where it is waited for, the work shows
        spend(
            overhead,
            clock,
            whole=1.0,
            own=0.1 if observe and overhead.observed in {0, 1, 2, 50} else 0.01,
            observe=observe,
        )
    assert waits == [n for n in (0, 1, 2, 50) for _ in ("before", "after")]
    assert overhead.own_seconds == pytest.approx(0.1 * 99)  # the first step is not counted, others cost as calibrated


def test_a_pause_is_not_counted():
    clock = Clock()
    overhead = Overhead(0.03, clock)
    for _ in range(5):
        spend(overhead, clock, whole=1.0, own=0.01, observe=True)
    restored = Overhead(0.03, clock)
    restored.load_state_dict(overhead.state_dict())
    clock.now += 3600
    for o in (restored, restored):
        spend(o, clock, whole=1.0, own=0.01, observe=True)
    assert restored.all_seconds == pytest.approx(overhead.all_seconds + 1.01)
    assert restored.observed == 7


def test_a_clock_that_stands_still_asks_for_every_step():
    overhead = Overhead(0.03, lambda: 0.0)
    for _ in range(4):
        spend(overhead, Clock(), whole=0.0, own=0.0, observe=True)
    assert overhead.period() == 1
    assert overhead.share == 0.0


def test_the_monitor_counts_all_that_it_does_and_leaves_other_steps_alone():
    clock = Clock(tick=TICK)
    model = nn.Linear(3, 2)
    monitor = NoiseScaleMonitor(model, max_overhead=0.03, clock=clock)
    observed = []
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    for i in range(500):
        hooks = [p._backward_hooks for p in model.parameters() if p._backward_hooks]
        observed.append(len(hooks) == 2)
        assert len(hooks) in {0, 2}
        clock.now += 0.3
        for part in x.chunk(2):
            (model(part).square().mean() / 2).backward()
        monitor.step(8)
        model.zero_grad()
        assert monitor.overhead <= 0.03 * (1 + 1e-9) or i < 40
    sections = sum(
        1 + (2 * 2 + 1 if o else 0) for o in observed[1:]
    )  # step, and a hook for each tensor and pass, and opening
    assert monitor.overhead == pytest.approx(sections * TICK / (clock.now - 100.3), rel=0.02)
    assert observed[:4] == [False, False, False, True]
    assert [o.step for o in monitor.history] == [i + 1 for i, o in enumerate(observed) if o]
    assert monitor.overhead > 0.03 / 2
    at = [i for i, o in enumerate(observed) if o]
    assert monitor.every in {b - a for a, b in pairwise(at)}
