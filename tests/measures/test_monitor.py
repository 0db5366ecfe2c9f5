# Oracles: gradients drawn from a normal distribution with known mean and covariance; a naive twin that takes the gradient
# of every part with torch.autograd.grad and adds squares up in Python; the same training without a monitor.
import copy
import io
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gengap.core.errors import BadInput
from gengap.measures.monitor import NoiseScaleMonitor

ALWAYS = {"max_overhead": 1.0}


class Drawn(nn.Module):
    """A linear loss: its gradient is the mean of the inputs, whatever the weights."""

    def __init__(self, size=32):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x):
        return x @ self.theta


class Everything(nn.Module):
    """Tied, frozen, unused and embedded weights."""

    def __init__(self, sparse=False):
        super().__init__()
        self.embedding = nn.Embedding(7, 5, sparse=sparse)
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 3)
        self.tied = self.first.weight
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, x):
        h = torch.tanh(self.first(self.embedding(x))) * self.frozen
        return self.second(torch.tanh(h @ self.tied))


def data(samples=24, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(7, (samples,), generator=rng), torch.randint(3, (samples,), generator=rng)


def fresh(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


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


# ---- unbiased ----


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


# ---- the naive twin ----


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


def train(model, monitor, x, *, steps, passes=2):
    for _ in range(steps):
        for part in x.chunk(passes):
            (model(part).square().mean() / passes).backward()
        monitor.step(len(x))
        model.zero_grad()


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


# ---- nothing else changes ----


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


# ---- mistakes ----


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


# ---- readings and states ----


def observe(monitor, model, steps, *, mean=0.3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        monitor.backward(model(mean + torch.randn(16, 32, generator=rng, dtype=torch.float64)))
        model.zero_grad()


def test_a_reading_says_what_is_missing():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    assert (monitor.reading().simple, monitor.reading().B_big) == (None, None)
    observe(monitor, model, 6)
    early = monitor.reading()
    assert (early.simple, early.trace_covariance, early.observations) == (None, None, 3)
    assert str(early).startswith("noise scale not resolvable: 3 observations, of which at least 8 are needed; 3 observ")
    observe(monitor, model, 40)
    late = monitor.reading()
    assert late.reason == ""
    assert (late.steps, late.samples, late.B_small, late.B_big) == (46, 46 * 16, 8.0, 16.0)
    assert late.simple.value == pytest.approx(late.trace_covariance.value / late.squared_gradient_norm.value)
    assert str(late).startswith(f"noise scale {late.simple.value:.3g} samples (95 %: ")


def test_no_noise_scale_but_a_lower_limit_where_the_gradient_is_all_noise():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    observe(monitor, model, 100, mean=0.0)
    reading = monitor.reading()
    assert reading.simple is None
    assert reading.at_least > 50
    assert "not told from zero" in reading.reason
    assert f"at least {reading.at_least:.3g} samples" in str(reading)
    assert reading.trace_covariance.value == pytest.approx(32, rel=0.1)


def test_no_noise_no_noise_scale():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for _ in range(20):
        monitor.backward(model(torch.ones(4, 32, dtype=torch.float64)))
        model.zero_grad()
    reading = monitor.reading()
    assert reading.squared_gradient_norm.value == pytest.approx(32)
    assert reading.simple is None or reading.simple.value == pytest.approx(0, abs=1e-9)


def test_the_record_is_json():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    assert json.loads(json.dumps(monitor.reading().to_dict(), allow_nan=False))["simple"] is None
    observe(monitor, model, 40)
    told = json.loads(json.dumps(monitor.reading().to_dict(), allow_nan=False))
    assert told["simple"]["interval"][0] < told["simple"]["value"] < told["simple"]["interval"][1]
    assert told["observations"] == 37


def test_a_state_survives_a_checkpoint():
    model = Drawn()
    never_stopped = NoiseScaleMonitor(model, **ALWAYS, beta=0.9)
    for seed in (0, 1):
        observe(never_stopped, model, 20, seed=seed)
    stopped = NoiseScaleMonitor(model, **ALWAYS, beta=0.9)
    observe(stopped, model, 20, seed=0)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    stopped.close()
    file.seek(0)
    resumed = NoiseScaleMonitor(model, **ALWAYS, beta=0.9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.history == stopped.history
    observe(resumed, model, 20, seed=1)
    assert resumed.history == never_stopped.history
    assert resumed.reading().simple == never_stopped.reading().simple
    assert (resumed.steps, resumed.samples) == (40, 640)


def test_a_model_can_be_copied_while_it_is_observed():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    observe(monitor, model, 5)
    twin = copy.deepcopy(model)
    twin(torch.ones(2, 32, dtype=torch.float64)).sum().backward()
    observe(monitor, model, 1)
    assert monitor.reading().dropped == 0
