# Oracles: the same training without a monitor, for its bits; for mistakes, what was done wrong on purpose.

import pytest
import torch
import torch.nn.functional as F
from monitor_networks import ALWAYS, Drawn, fresh, observe, train
from torch import nn

from gengap.core.errors import BadInput
from gengap.measures.noise.monitor import NoiseScaleMonitor


def network():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


@pytest.mark.parametrize("way", ["passes", "halves"])
def test_training_is_bit_for_bit_as_without(way):
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 6, generator=rng), torch.randint(3, (32,), generator=rng)

    def run(monitored):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = network()
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
            monitor = NoiseScaleMonitor(model, max_overhead=1.0 if monitored else 1e-9)
            gradients = []
            for _ in range(12):
                if way == "halves":
                    losses = F.cross_entropy(model(x), y, reduction="none")
                    monitor.backward(losses) if monitored else losses.mean().backward()
                else:
                    for a, b in zip(x.chunk(4), y.chunk(4), strict=True):
                        (F.cross_entropy(model(a), b) / 4).backward()
                    if monitored:
                        monitor.step(32)
                gradients.append([p.grad.clone() for p in model.parameters()])
                optimizer.step()
                optimizer.zero_grad()
            assert len(monitor.history) == (9 if monitored else 0)
            return model.state_dict(), gradients, optimizer.state_dict()["state"], torch.get_rng_state()

    torch.testing.assert_close(run(True), run(False), rtol=0, atol=0, equal_nan=False)


def test_closing_takes_the_hooks_away():
    model = fresh(network)
    mine = model[0].weight.register_hook(lambda g: None)
    with NoiseScaleMonitor(model, **ALWAYS) as monitor:
        train(model, monitor, torch.ones(8, 6), steps=4)
        assert [bool(p._backward_hooks) for p in model.parameters()] == [True] * 6
        assert len(model[0].weight._backward_hooks) == 2
    assert [bool(p._backward_hooks) for p in model.parameters()] == [True] + [False] * 5
    assert len(model[0].weight._backward_hooks) == 1
    mine.remove()
    train(model, monitor, torch.ones(8, 6), steps=2)
    assert (monitor.steps, len(monitor.history)) == (6, 1)


def mistaken(kind, model, monitor, x):
    """One step of accumulation that is wrong in one way."""
    if kind != "stale":
        model.zero_grad()
    for part in [] if kind == "no pass" else x.chunk(1 if kind == "one pass" else 2):
        (model(part).square().mean() / 2).backward()
    if kind == "clipped":
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    if kind == "zeroed":
        model.zero_grad()
    if kind == "asked twice":
        torch.autograd.grad(model(x).sum(), list(model.parameters()))
    monitor.step([8, 4, 4] if kind == "three sizes" else 15 if kind == "odd" else 16)


SENTENCES = {
    "clipped": r"add up to [\d.e+]+ times the gradient in .grad; call step after all of them, before clipping",
    "stale": "leave no older gradient in .grad",
    "zeroed": "do not add up to .grad",
    "asked twice": "3 backward passes were seen",
    "one pass": "gradients of one batch size only",
    "three sizes": "2 backward passes were seen, but 3 batch sizes",
    "odd": "2 backward passes were seen, which cannot share a batch_size of 15 evenly",
    "no pass": "no backward pass was seen",
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_mistake_raises_at_once_and_is_only_counted_later(kind):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    model = fresh(lambda: nn.Linear(6, 3))
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for _ in range(3):
        mistaken("none", model, monitor, x)
    with pytest.raises(BadInput, match=SENTENCES[kind]):
        mistaken(kind, model, monitor, x)
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for i in range(20):
        mistaken("none" if i < 16 else kind, model, monitor, x)
    reading = monitor.reading()
    assert reading.dropped >= 3
    assert len(monitor.history) >= 13
    assert reading.simple or reading.reason
    assert "dropped" in str(reading)


def test_a_missing_scaler_is_found_out():
    model, scaler = fresh(lambda: nn.Linear(6, 3)), torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    train(model, monitor, torch.ones(8, 6), steps=3)
    for part in torch.ones(8, 6).chunk(2):
        scaler.scale(model(part).square().mean() / 2).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(BadInput, match=r"add up to 8 times the gradient in \.grad"):
        monitor.step(8)


def test_a_last_batch_of_one_sample_is_no_mistake():
    model = fresh(Drawn)
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for samples in (4, 4, 4, 1, 4):
        monitor.backward(model(torch.randn(samples, 32, dtype=torch.float64)))
        model.zero_grad()
    assert len(monitor.history) == 1
    assert monitor.reading().dropped == 1


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda: NoiseScaleMonitor(Drawn(), max_overhead=0.0), "max_overhead is 0.0"),
        (lambda: NoiseScaleMonitor(Drawn(), beta=1.5), "beta is 1.5"),
        (lambda: NoiseScaleMonitor(nn.ReLU()), "no parameters"),
        (lambda: NoiseScaleMonitor([torch.zeros(2, dtype=torch.complex64)]), "'?0'? is complex"),
        (lambda: NoiseScaleMonitor([2 * torch.ones(2, requires_grad=True)]), "computed from others"),
        (lambda: NoiseScaleMonitor(["weight"]), "holds a str"),
        (lambda: NoiseScaleMonitor(nn.LazyLinear(3)), "is a UninitializedParameter"),
        (
            lambda: NoiseScaleMonitor(Drawn(), optimizer=torch.optim.SGD(Drawn().parameters(), lr=0.1)),
            "SGD keeps no second moment",
        ),
        (lambda: NoiseScaleMonitor(Drawn()).backward(torch.ones(2, 3)), r"losses have shape \(2, 3\)"),
        (lambda: NoiseScaleMonitor(Drawn()).load_state_dict({}), "the state has format None"),
    ],
)
def test_refuses_with_a_sentence(work, sentence):
    with pytest.raises(BadInput, match=sentence):
        work()


def test_an_adam_of_another_network_is_refused():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS, optimizer=torch.optim.Adam(Drawn().parameters()))
    observe(monitor, model, 2)
    with pytest.raises(BadInput, match="Adam has no second moment"):
        observe(monitor, model, 1)
