# Oracles: gradients drawn from a normal distribution with known mean and covariance; a naive twin that takes the gradient
# of every part with torch.autograd.grad and adds squares up in Python.
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from monitor_networks import ALWAYS, Drawn, Everything, data, fresh, train
from torch import nn

from gengap.measures.noise.monitor import NoiseScaleMonitor


def estimates(parts, weights, sizes):
    """|G|^2 and tr(Sigma) from the gradients of the parts, by the two unknowns of two equations."""
    sum_of_squares = sum(float(w * w * (g.double() ** 2).sum()) for w, g in zip(weights, parts, strict=True))
    square_of_sum = float((sum(w * g.double() for w, g in zip(weights, parts, strict=True)) ** 2).sum())
    noise = sum(w * w / b for w, b in zip(weights, sizes, strict=True))
    one, all_ = sum(w * w for w in weights), sum(weights) ** 2
    norm = (square_of_sum - sum_of_squares) / (all_ - one)
    return norm, (sum_of_squares - one * norm) / noise


def gradient(model, loss):
    found = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    return torch.cat([g.to_dense().reshape(-1) for g in found if g is not None])


def of_history(monitor):
    return [(o.squared_gradient_norm, o.trace_covariance) for o in monitor.history]


@pytest.mark.parametrize("way", ["even", "uneven", "halves"])
def test_parts_are_unbiased_for_gradients_that_are_drawn(way):
    rng = torch.Generator().manual_seed(5)
    model, truth, deviation = Drawn(), 0.2 * torch.ones(32).double(), torch.linspace(0.5, 1.5, 32).double()
    monitor = NoiseScaleMonitor(model, **ALWAYS, beta=1.0)
    sizes = {"even": [4, 4, 4], "uneven": [8, 2, 2], "halves": [12]}[way]
    for _ in range(800):
        x = truth + deviation * torch.randn(12, 32, generator=rng, dtype=torch.float64)
        if way == "halves":
            monitor.backward(model(x))
        else:
            for part in x.split(sizes):
                (model(part).mean() / 3).backward()
            monitor.step(sizes)
        model.zero_grad()
    for values, exact in zip(
        zip(*of_history(monitor), strict=True), (truth.square().sum(), deviation.square().sum()), strict=True
    ):
        v = torch.tensor(values).double()
        stderr = v.std() / math.sqrt(len(v))
        assert abs(v.mean() - exact) < 5 * stderr
        assert 10 * stderr < 0.5 * exact  # 5 % more would fail already
    reading = monitor.reading()
    low, high = reading.simple.interval
    ratio = float(deviation.square().sum() / truth.square().sum())
    assert abs(reading.simple.value - ratio) < 5 * reading.simple.stderr
    assert low < reading.simple.value < high
    assert reading.simple.stderr < 0.06 * ratio
    assert reading.at_least == low


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("sizes", "weights"),
    [
        ([6, 6, 6, 6], None),
        ([12, 8, 4], None),
        ([12, 8, 4], [12 / 24, 8 / 24, 4 / 24]),
        ([12, 8, 4], 1),
        ([12, 8, 4], [12, 8, 4]),
    ],
    ids=["loss / k", "uneven", "samples weigh the same", "not divided", "sums"],
)
def test_accumulation_is_the_naive_twin(sparse, sizes, weights):
    model = fresh(lambda: Everything(sparse)).double()
    x, y = data()
    factors = weights if isinstance(weights, list) else [weights or 1 / len(sizes)] * len(sizes)
    parts = [F.cross_entropy(model(a), b) for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]
    twin = estimates([gradient(model, loss) for loss in parts], factors, sizes)
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for _ in range(4):
        for a, b, w in zip(x.split(sizes), y.split(sizes), factors, strict=True):
            (w * F.cross_entropy(model(a), b)).backward()
        monitor.step(24 if len(set(sizes)) == 1 else sizes, weights=weights)
        model.zero_grad()
    assert of_history(monitor) == [pytest.approx(twin, rel=1e-10)]
    assert monitor.samples == 96


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("samples", [24, 7, 2])
def test_halves_are_the_naive_twin(sparse, samples):
    model = fresh(lambda: Everything(sparse)).double()
    x, y = data(samples)
    half = samples // 2
    parts = [F.cross_entropy(model(a), b) for a, b in ((x[:half], y[:half]), (x[half:], y[half:]))]
    weights = [half / samples, 1 - half / samples]
    twin = estimates([gradient(model, loss) for loss in parts], weights, [half, samples - half])
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for _ in range(4):
        losses = F.cross_entropy(model(x), y, reduction="none")
        assert monitor.backward(losses) == losses.mean()
        model.zero_grad(set_to_none=False)
    assert of_history(monitor) == [pytest.approx(twin, rel=1e-9)]
    assert monitor.history[0].B_big == pytest.approx(samples)


def test_long_tensors_are_summed_without_losing_digits():
    model = fresh(lambda: nn.Linear(1500, 1200, bias=False))
    x = torch.randn(8, 1500, generator=torch.Generator().manual_seed(0))
    parts = [gradient(model, model(a).square().mean()) for a in x.split(4)]
    norm, trace = estimates(parts, [0.5, 0.5], [4, 4])
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    train(model, monitor, x, steps=4)
    assert of_history(monitor)[0] == pytest.approx((norm, trace), rel=2e-6, abs=1e-7 * trace)


def test_two_passes_say_what_two_halves_say():
    x, y = data()
    found = []
    for way in ("passes", "halves"):
        model = fresh(Everything).double()
        monitor = NoiseScaleMonitor(model, **ALWAYS)
        for _ in range(4):
            if way == "halves":
                monitor.backward(F.cross_entropy(model(x), y, reduction="none"))
            else:
                for a, b in zip(x.chunk(2), y.chunk(2), strict=True):
                    (F.cross_entropy(model(a), b) / 2).backward()
                monitor.step(24)
            model.zero_grad()
        found += of_history(monitor)
    assert found[0] == pytest.approx(found[1], rel=1e-10)


def test_a_loop_may_go_over_from_halves_to_passes():
    x, y = data()
    model = fresh(Everything).double()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for i in range(6):
        if i < 5:
            monitor.backward(F.cross_entropy(model(x), y, reduction="none"))
        else:
            for a, b in zip(x.chunk(2), y.chunk(2), strict=True):
                (F.cross_entropy(model(a), b) / 2).backward()
            monitor.step(24)
        model.zero_grad()
    first, _, last = of_history(monitor)
    assert last == pytest.approx(first, rel=1e-10)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_norms_do_not_depend_on_the_layout(order):
    rng = torch.Generator().manual_seed(0)
    gradients = [torch.randn(40, 50, 60, generator=rng) for _ in range(2)]
    norm, trace = estimates(gradients, [0.5, 0.5], [4, 4])
    p = nn.Parameter(torch.zeros(40, 50, 60).permute(order))
    monitor = NoiseScaleMonitor([p], **ALWAYS)
    for _ in range(4):
        for g in gradients:
            (p * g.permute(order) / 2).sum().backward()
        monitor.step(8)
        p.grad = None
    assert of_history(monitor)[0] == pytest.approx((norm, trace), rel=2e-6, abs=1e-7 * trace)


def test_autocast_to_bfloat16_is_the_naive_twin():
    model = fresh(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)))
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    parts = []
    for a in x.split(8):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(a).float().square().mean()
        parts.append(gradient(model, loss))
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for _ in range(4):
        for a in x.split(8):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(a).float().square().mean() / 2
            loss.backward()
        monitor.step(16)
        model.zero_grad()
    assert of_history(monitor)[0] == pytest.approx(estimates(parts, [0.5, 0.5], [8, 8]), rel=1e-5, abs=1e-7)


def test_weights_in_bfloat16_are_accepted():
    model = fresh(lambda: nn.Linear(6, 8)).bfloat16()
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    train(model, monitor, x, steps=6, passes=4)
    assert (len(monitor.history), monitor.reading().dropped) == (3, 0)


@pytest.mark.parametrize("way", ["passes", "halves"])
def test_a_scaler_changes_nothing_and_infinite_gradients_are_dropped(way):
    x, y = data()
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        model = fresh(Everything).double()
        monitor = NoiseScaleMonitor(model, **ALWAYS, scaler=scaler)
        scale = scaler.scale if scaler else lambda loss: loss
        for _ in range(4):
            if way == "halves":
                monitor.backward(scale(F.cross_entropy(model(x), y, reduction="none")))
            else:
                for a, b in zip(x.chunk(2), y.chunk(2), strict=True):
                    scale(F.cross_entropy(model(a), b) / 2).backward()
                monitor.step(24)
            model.zero_grad()
        found += of_history(monitor)
        if scaler:
            monitor.backward(math.inf * F.cross_entropy(model(x), y, reduction="none"))
            assert monitor.reading().dropped == 1
            assert monitor.reading().fault == "a gradient is not finite"
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adams_metric_is_the_naive_twin(kind, amsgrad):
    model = fresh(Everything).double()
    optimizer = kind(model.parameters(), lr=1e-2, eps=1e-3, betas=(0.8, 0.9), amsgrad=amsgrad)
    monitor = NoiseScaleMonitor(model, **ALWAYS, optimizer=optimizer)
    twins = []
    for i in range(6):
        x, y = data(seed=i)
        halves = list(zip(x.chunk(2), y.chunk(2), strict=True))
        if i >= 3:
            twin = copy.deepcopy(model)
            states = [optimizer.state[p] for p in model.parameters() if p in optimizer.state]
            moments = torch.cat([s["max_exp_avg_sq" if amsgrad else "exp_avg_sq"].reshape(-1) for s in states])
            root = ((moments / (1 - 0.9**i)).sqrt() + 1e-3).sqrt()
            parts = [gradient(twin, F.cross_entropy(twin(a), b)) / root for a, b in halves]
            twins.append(estimates(parts, [0.5, 0.5], [12, 12]))
        for a, b in halves:
            (F.cross_entropy(model(a), b) / 2).backward()
        monitor.step(24)
        optimizer.step()
        optimizer.zero_grad()
    assert of_history(monitor) == [pytest.approx(t, rel=1e-9) for t in twins]
    assert monitor.reading().metric == "adam"


def test_a_part_of_the_network_can_be_measured_alone():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    model = fresh(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))).double()
    whole, first, second = (NoiseScaleMonitor(m, **ALWAYS) for m in (model, model[0].parameters(), model[2]))
    for _ in range(4):
        for part in x.chunk(2):
            (model(part).square().mean() / 2).backward()
        for monitor in (whole, first, second):
            monitor.step(8)
        model.zero_grad()
    norms, traces = zip(*(of_history(m)[0] for m in (whole, first, second)), strict=True)
    assert norms[0] == pytest.approx(norms[1] + norms[2])
    assert traces[0] == pytest.approx(traces[1] + traces[2])
