"""Every field of a recipe that changes an update. Oracle: a plain torch loop that does what the paper says, in float64."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

import gengap
from gengap.core.recipe import Recipe
from gengap.data.order import permutation
from gengap.optim.gradient_noise import MultiplicativeNoise
from gengap.optim.sam import Sam
from gengap.training.solo import train

N = 50
BASE = {"lr": 0.1, "momentum": 0.9, "batch_size": 20, "budget": {"epochs": 2}, "dtype": "float64"}


def network(norm=False):
    layers = [
        torch.nn.Linear(6, 7),
        *([torch.nn.BatchNorm1d(7)] if norm else []),
        torch.nn.Tanh(),
        torch.nn.Linear(7, 3),
    ]
    return torch.nn.Sequential(*layers)


def problem(norm=False):
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(N, 6, generator=g), torch.randint(3, (N,), generator=g)
    return gengap.Problem(model=partial(network, norm), loss="cross_entropy", train=(x, y), test=(x[:9], y[:9]))


def data(made):
    x, y = made.train
    return x.double(), y


def batches(epochs, size=20, n=N):
    """Yield (update, rows) as they are drawn."""
    step = 0
    for epoch in range(epochs):
        for rows in permutation(0, epoch, n).split(size):
            yield step, rows
            step += 1


def twin(made, update, epochs=2, size=20, lr=0.1):
    """Train by hand: `update(model, optimizer, x, y, step)` makes the gradient and the step."""
    model = made.model(0, dtype=torch.float64).train()
    optimizer = SGD(model.parameters(), lr=lr, momentum=0.9)
    x, y = data(made)
    for step, rows in batches(epochs, size):
        update(model, optimizer, x[rows], y[rows], step)
    return dict(model.named_parameters()), dict(model.named_buffers())


def agrees(run, expected):
    params, buffers = expected
    for name, value in {**params, **buffers}.items():
        ours = {**run.params, **run.buffers}[name]
        torch.testing.assert_close(ours.double(), value.detach().double(), rtol=1e-9, atol=1e-11, msg=name)


def plain_step(model, optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_clipping():
    def update(model, optimizer, x, y, step):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()

    made = problem()
    agrees(train(made, Recipe(**BASE, clip_norm=0.05)), twin(made, update))
    agrees(train(made, Recipe(**BASE, clip_norm=0.05, micro_batch=7)), twin(made, update))


@pytest.mark.parametrize("pieces", [None, 7])
def test_multiplicative_noise(pieces):
    sigma = math.sqrt(20 / 5 - 1)
    noise = MultiplicativeNoise(sigma, seed=0)

    def update(model, optimizer, x, y, step):
        match = math.sqrt(len(y) / 5 - 1) / sigma  # the last batch of an epoch is smaller, and so is its noise
        z = 1 + match * (noise.weights(len(y), step=step, dtype=torch.float64) - 1)
        plain_step(model, optimizer, (z * F.cross_entropy(model(x), y, reduction="none")).mean())

    made = problem()
    how = {"name": "multiplicative", "reference_batch": 5}
    agrees(train(made, Recipe(**BASE, gradient_noise=how, micro_batch=pieces)), twin(made, update))


def test_label_smoothing():
    def update(model, optimizer, x, y, step):
        logs = model(x).log_softmax(1)
        target = torch.full_like(logs, 0.2 / 3).scatter_(1, y[:, None], 0.8 + 0.2 / 3)
        plain_step(model, optimizer, -(target * logs).sum(1).mean())

    made = problem()
    agrees(train(made, Recipe(**BASE, label_smoothing=0.2)), twin(made, update))


def test_ghosts_are_chunks_with_accumulated_gradients():
    def update(model, optimizer, x, y, step):
        optimizer.zero_grad()
        for a, b in zip(x.split(5), y.split(5), strict=True):
            (F.cross_entropy(model(a), b) * (len(b) / len(y))).backward()
        optimizer.step()

    made = problem(norm=True)
    agrees(train(made, Recipe(**BASE, ghost_batch=5)), twin(made, update))


def test_quirks_of_bigbatch():
    """Momentum forgotten at every epoch, chunk count of a full batch in the smaller last one, chunks weighted alike."""

    def update(model, optimizer, x, y, step):
        if step % 3 == 0:
            optimizer.state.clear()
        optimizer.zero_grad()
        parts = list(zip(x.chunk(3), y.chunk(3), strict=True))
        for a, b in parts:
            (F.cross_entropy(model(a), b) / len(parts)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    made = problem(norm=True)
    how = Recipe(**BASE, ghost_batch=6, quirks="bigbatch", clip_norm=5.0)
    agrees(train(made, how), twin(made, update))


def test_regime_adaptation_makes_the_updates_of_the_small_batch():
    made = problem()
    small = train(made, Recipe(**{**BASE, "batch_size": 6}))
    large = train(made, Recipe(**BASE, regime_adaptation=6))
    assert large.cost.steps == small.cost.steps == 2 * math.ceil(N / 6)
    agrees(large, twin(made, lambda m, o, x, y, s: plain_step(m, o, F.cross_entropy(m(x), y)) if s < 18 else None, 6))


def test_sam_is_the_drop_in_part():
    made = problem()
    model = made.model(0, dtype=torch.float64).train()
    optimizer = Sam(model.parameters(), partial(SGD, lr=0.1, momentum=0.9), rho=0.1)
    x, y = data(made)
    for _, rows in batches(2):

        def closure(rows=rows):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            return loss

        optimizer.step(closure)
    found = train(made, Recipe(**BASE, method={"name": "sam", "rho": 0.1}))
    agrees(found, (dict(model.named_parameters()), {}))


def test_workers_share_each_batch():
    made, weights = problem(), []
    x, y = data(made)
    models = [made.model(0, dtype=torch.float64).train() for _ in range(2)]
    optimizers = [SGD(m.parameters(), lr=0.1, momentum=0.9) for m in models]
    for step, rows in batches(2):
        parts = rows.split(math.ceil(len(rows) / 2))
        for model, optimizer, part in zip(models, optimizers, parts, strict=True):
            plain_step(model, optimizer, F.cross_entropy(model(x[part]), y[part]))
        if (step + 1) % 2 == 0:
            for ps in zip(*(m.parameters() for m in models), strict=True):
                mean = torch.stack([p.detach() for p in ps]).mean(0)
                for p in ps:
                    p.data.copy_(mean)
    weights = {name: p for name, p in models[0].named_parameters()}
    how = {"name": "post-local-sgd", "workers": 2, "period": 2}
    agrees(train(made, Recipe(**BASE, method=how)), (weights, {}))


def test_svrg_takes_the_full_gradient_every_epoch():
    made = problem()
    model = made.model(0, dtype=torch.float64).train()
    x, y = data(made)

    def gradient(params, rows):
        loss = F.cross_entropy(torch.func.functional_call(model, params, (x[rows],)), y[rows])
        return dict(zip(params, torch.autograd.grad(loss, params.values()), strict=True))

    params = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in params.items()}
    for step, rows in batches(2):
        if step % 3 == 0:
            kept, full = {k: p.detach().clone().requires_grad_() for k, p in params.items()}, None
            full = gradient(kept, torch.arange(N))
        now, before = gradient(params, rows), gradient(kept, rows)
        for name in params:
            velocity[name] = 0.9 * velocity[name] + now[name] - before[name] + full[name]
            params[name] = (params[name] - 0.1 * velocity[name]).detach().requires_grad_()
    agrees(train(made, Recipe(**BASE, method="svrg")), (params, {}))


def test_a_scaling_rule_is_told_and_applied():
    made, said = problem(), []
    found = train(made, Recipe(**BASE, lr_rule={"name": "linear", "reference_batch": 40}), listen=said.append)
    text = [event.text for event in said if hasattr(event, "text")]
    assert text[0] == "lr 0.1 becomes 0.05: linear rule, batch 20 for 40"
    update = lambda m, o, x, y, s: plain_step(m, o, F.cross_entropy(m(x), y))  # noqa: E731
    agrees(found, twin(made, update, lr=0.05))


def test_the_batch_grows_and_every_sample_is_used_once_an_epoch():
    made = problem()
    how = {"name": "switch", "milestones": [0.5, 1.0], "sizes": [15, 50]}
    found = train(made, Recipe(**{**BASE, "batch_size": 10}, batch_schedule=how))
    model = made.model(0, dtype=torch.float64).train()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = data(made)
    for epoch, sizes in ((0, [10, 10, 10, 15, 5]), (1, [50])):
        for rows in permutation(0, epoch, N).split(sizes):
            plain_step(model, optimizer, F.cross_entropy(model(x[rows]), y[rows]))
    assert found.cost.steps == 6
    agrees(found, (dict(model.named_parameters()), {}))


def test_a_dynamic_batch_grows_with_the_noise_and_only_up_to_its_limit():
    made = problem()
    how = {**BASE, "batch_size": 4, "budget": {"epochs": 4}}
    grown = train(made, Recipe(**how, batch_schedule={"name": "dynamic", "theta": 0.1, "limit": 30}))
    still = train(made, Recipe(**how, batch_schedule={"name": "dynamic", "theta": 1e6}))
    assert grown.cost.steps == math.ceil(N / 4) + math.ceil(N / 16) + 2 * math.ceil(N / 30)
    assert still.cost.steps == 4 * math.ceil(N / 4)


class Stop(Exception):  # noqa: N818 - it is one
    """The process is killed."""


RESUMED = [
    {"method": "sam"},
    {"method": "svrg"},
    {"method": "entropy-sgd"},
    {"method": "conservative"},
    {"method": {"name": "elastic-averaging", "workers": 2, "period": 3}},
    {"method": {"name": "post-local-sgd", "workers": 2, "period": 3, "start": 1}},
    {"batch_schedule": {"name": "dynamic", "theta": 0.2}, "schedule": "cosine"},
    {"batch_schedule": {"name": "step", "milestones": [1], "factor": 3}, "schedule": "polynomial"},
    {"gradient_noise": {"name": "isotropic", "temperature": 1e-4}},
    {"gradient_noise": {"name": "multiplicative", "sigma": 0.5}},
    {"stability": {"sigma": 0.1}},
    {"adversarial": {"epsilon": 0.1}},
    {"regime_adaptation": 7, "warmup": {"epochs": 1}},
    {"optimizer": "lars", "momentum_correction": True, "schedule": "polynomial"},
    {"optimizer": "rmsprop-warmup"},
    {"optimizer": "kfac", "weight_decay": 0.01},
    {"optimizer": "lamb", "momentum": 0.0},
    {"optimizer": "lbfgs", "momentum": 0.0, "batch_size": "100%"},
    {"optimizer": "adaqn", "momentum": 0.0, "budget": {"epochs": 10}},
    {"weight_decay": 0.1, "decay_norms": False},
    {"quirks": "bigbatch", "ghost_batch": 5, "batch_size": 25},
]


@pytest.mark.parametrize("fields", RESUMED, ids=str)
def test_resumed_equals_straight_through(fields, tmp_path, monkeypatch):
    import gengap.training.loop as loop

    monkeypatch.setattr(loop, "BLOCK", 2)
    made = problem(norm="ghost_batch" in fields)
    recipe = Recipe(**{**BASE, "batch_size": 8, "budget": {"epochs": 3}, **fields})
    straight = train(made, recipe)
    stops = 3

    def tire(event):
        nonlocal stops
        if stops and getattr(event, "done", 0) > 0.4 * (4 - stops) and file.exists():
            stops -= 1
            raise Stop

    file = tmp_path / "run.safetensors"
    for _ in range(4):
        try:
            resumed = train(made, recipe, checkpoint=file, checkpoint_every=0, listen=tire)
            break
        except Stop:
            continue
    assert resumed.cost.steps == straight.cost.steps
    for name, value in straight.params.items():
        assert torch.equal(resumed.params[name], value), name
