"""The fast update of dense networks. Oracle: a plain `nn.Module` with its own names and a loop over `torch.optim.SGD`."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import SGD

import gengap
from gengap.core.recipe import Recipe
from gengap.optim.build import build
from gengap.problem.losses import LOSSES, Loss
from gengap.training import dense, loop, solo
from gengap.training.minibatch import Minibatch
from gengap.training.step import make_update

RULES = {
    "plain": {},
    "decay": {"weight_decay": 0.03},
    "momentum": {"momentum": 0.9},
    "momentum, decay": {"momentum": 0.9, "weight_decay": 0.03},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "nesterov, decay": {"momentum": 0.8, "nesterov": True, "weight_decay": 0.03},
}


class Oracle(nn.Module):
    """The same layers, applied by hand."""

    def __init__(self, layers, last_relu):
        super().__init__()
        self.parts, self.last_relu = nn.ModuleList(layers), last_relu

    def forward(self, x):
        x = x.reshape(x.shape[0], -1)
        for i, part in enumerate(self.parts):
            x = part(x)
            if i < len(self.parts) - 1 or self.last_relu:
                x = torch.clamp(x, min=0)
        return x


def network(*, depth=2, flatten=True, nested=False, bias=True, last_relu=False, inputs=12, outputs=5):
    widths = [inputs, *[9, 7, 6][: depth - 1], outputs]
    layers = [nn.Flatten()] if flatten else []
    for i, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(wide, narrow, bias=bias))
        if i < depth - 1 or last_relu:
            layers.append(nn.ReLU(inplace=i == 1))
    if nested:
        half = len(layers) // 2
        return nn.Sequential(nn.Sequential(*layers[:half]), nn.Sequential(nn.Sequential(*layers[half:])))
    return nn.Sequential(*layers)


def recipe(**fields):
    return Recipe(**{"lr": 0.1, "batch_size": 8, "budget": {"epochs": 1}, "dtype": "float64", **fields})


def fast(model, loss, how, optimizer=None):
    update, _ = make_update(model, loss, optimizer or build(how, model.parameters()), how)
    assert isinstance(update, dense.DenseUpdate)
    return update


def data(shape, n=43, classes=5):
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, *shape, generator=g, dtype=torch.float64), torch.randint(classes, (n,), generator=g)


def assert_same_training(model, how, x, y, loss, mean, epochs=8, last_relu=False):
    """Train both on batches of 8, the last of 3, with a learning rate that changes; compare losses and weights."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    twins = [nn.Linear(m.in_features, m.out_features, bias=m.bias is not None).double() for m in linear]
    for twin, original in zip(twins, linear, strict=True):
        twin.load_state_dict(original.state_dict())
    oracle = Oracle(twins, last_relu)
    torch_sgd = SGD(oracle.parameters(), how.lr, how.momentum, 0, how.weight_decay, how.nesterov)
    own = build(how, model.parameters())
    update = fast(model, loss, how, own)
    before = [p.detach().clone() for p in oracle.parameters()]
    for step, (part, targets) in enumerate(list(zip(x.split(8), y.split(8), strict=True)) * epochs):
        own.param_groups[0]["lr"] = torch_sgd.param_groups[0]["lr"] = how.lr / (1 + 0.1 * step)
        torch_sgd.zero_grad()
        expected = mean(oracle(part), targets)
        expected.backward()
        torch_sgd.step()
        assert update(Minibatch.of(part, targets)).item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
    for p, q, start in zip(linear_parameters(linear), oracle.parameters(), before, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
        assert (q - start).abs().max() > 1e-3  # otherwise nothing was compared


def linear_parameters(linear):
    return [p for m in linear for p in m.parameters()]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("form", ["flat", "images", "nested images", "no bias"])
def test_equals_a_plain_loop(rule, depth, form):
    torch.manual_seed(1)
    model = network(depth=depth, flatten=form != "flat", nested="nested" in form, bias=form != "no bias").double()
    x, y = data((3, 2, 2) if "images" in form else (12,))
    assert_same_training(model, recipe(**RULES[rule]), x, y, LOSSES["cross_entropy"], nn.CrossEntropyLoss())


@pytest.mark.parametrize("rule", RULES)
def test_equals_a_plain_loop_in_mean_square(rule):
    torch.manual_seed(2)
    x, _ = data((12,))
    y = torch.sin(x[:, :5] * 3)
    assert_same_training(network(depth=3).double(), recipe(**RULES[rule]), x, y, LOSSES["mean_square"], nn.MSELoss())


def test_equals_a_plain_loop_in_binary_cross_entropy():
    torch.manual_seed(2)
    x, y = data((12,), classes=2)
    mean = nn.BCEWithLogitsLoss()
    assert_same_training(
        network(outputs=1).double(),
        recipe(momentum=0.9),
        x,
        y,
        LOSSES["binary_cross_entropy"],
        lambda outputs, targets: mean(outputs[:, 0], targets.double()),
    )


def test_a_relu_after_the_last_layer_counts():
    torch.manual_seed(0)
    x, y = data((12,))
    model = network(depth=3, last_relu=True).double()
    with torch.no_grad():
        model[-2].bias.add_(1)  # so that some outputs pass and others do not
    loss = LOSSES["cross_entropy"]
    assert_same_training(model, recipe(momentum=0.5), x, y, loss, nn.CrossEntropyLoss(), last_relu=True)


def test_ignored_targets_are_those_of_torch():
    torch.manual_seed(0)
    x, y = data((12,))
    y[::4] = -100
    assert_same_training(network().double(), recipe(), x, y, LOSSES["cross_entropy"], nn.CrossEntropyLoss())


@pytest.mark.parametrize("rule", RULES)
def test_may_change_to_autograd_and_back_in_the_middle_of_a_run(rule, monkeypatch):
    x, y = data((12,))
    finals = []
    for pattern in ("aaaaaaaa", "dddddddd", "aaaddada"):
        torch.manual_seed(0)
        model, how = network().double(), recipe(**RULES[rule])
        optimizer = build(how, model.parameters())
        quick = fast(model, LOSSES["cross_entropy"], how, optimizer)
        monkeypatch.setattr(dense, "ENABLED", False)
        slow, _ = make_update(model, LOSSES["cross_entropy"], optimizer, how)
        monkeypatch.setattr(dense, "ENABLED", True)
        assert not isinstance(slow, dense.DenseUpdate)
        for letter in pattern:
            (quick if letter == "d" else slow)(Minibatch.of(x[:9], y[:9]))
        finals.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    for final in finals[1:]:
        torch.testing.assert_close(final, finals[0], rtol=1e-12, atol=1e-12)


def test_small_weight_decay_is_not_lost_in_float32():
    """lr * weight_decay = 2e-8 is below half a unit of rounding of 1: a factor (1 - lr decay) would do nothing."""
    how = recipe(lr=2e-4, weight_decay=1e-4, dtype="float32")
    x, y = data((12,))
    torch.manual_seed(0)
    model, exact = network(), network().double()
    exact.load_state_dict(model.state_dict())
    update, oracle = fast(model, LOSSES["cross_entropy"], how), SGD(exact.parameters(), how.lr, weight_decay=1e-4)
    for _ in range(50):
        update(Minibatch.of(x.float(), y))
        oracle.zero_grad()
        nn.functional.cross_entropy(exact(x.float().double()), y).backward()
        oracle.step()
    for p, q in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(p.double(), q, rtol=1e-5, atol=1e-6)


def hooked(model):
    model[1].register_forward_hook(lambda *_: None)
    return model


def frozen(model):
    model[1].weight.requires_grad_(False)
    return model


def tied(model):
    square = nn.Linear(12, 12)
    return nn.Sequential(nn.Flatten(), square, nn.ReLU(), square, nn.Linear(12, 5))


def tied_storage(model):
    first, second = nn.Linear(12, 12), nn.Linear(12, 12)
    second.weight.data = first.weight.data
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.Linear(12, 5))


def gradient_hooked(model):
    model[1].weight.register_hook(lambda g: g * 2)
    return model


def own_forward(model):
    model[1].forward = lambda x: nn.functional.linear(x, model[1].weight, model[1].bias) * 2
    return model


def own_class(model):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    return nn.Sequential(nn.Flatten(), Doubled(12, 5))


def weight_normed(model):
    nn.utils.parametrizations.weight_norm(model[1])
    return model


def residual(model):
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    return nn.Sequential(nn.Flatten(), Residual(nn.Linear(12, 12), nn.ReLU()), nn.Linear(12, 5))


OTHER_MODELS = {
    "batch norm": lambda m: nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5)),
    "dropout": lambda m: nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Dropout(0.5), nn.Linear(9, 5)),
    "tanh": lambda m: nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)),
    "relu first": lambda m: nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(12, 5)),
    "other flatten": lambda m: nn.Sequential(nn.Flatten(2), nn.Linear(12, 5)),
    "flatten after a layer": lambda m: nn.Sequential(nn.Linear(12, 3), nn.Flatten(), nn.Linear(3, 5)),
    "no layer": lambda m: nn.Sequential(nn.Flatten()),
    "hook": hooked,
    "hook on a gradient": gradient_hooked,
    "frozen": frozen,
    "tied": tied,
    "tied storage": tied_storage,
    "own forward": own_forward,
    "own class": own_class,
    "weight norm": weight_normed,
    "residual": residual,
    "half precision": lambda m: m.to(torch.bfloat16),
}


@pytest.mark.parametrize("change", OTHER_MODELS)
def test_other_networks_are_left_to_autograd(change):
    model, how = OTHER_MODELS[change](network()), recipe()
    spare = [nn.Parameter(torch.zeros(1))]
    optimizer = build(how, list(model.parameters()) or spare)
    assert dense.recognise(model, LOSSES["cross_entropy"], optimizer, how, lambda batch: batch.targets) is None


@pytest.mark.parametrize("fields", [{"optimizer": "adam"}, {"micro_batch": 2}, {"dtype": "bf16"}])
def test_other_recipes_are_left_to_autograd(fields):
    how, model = recipe(**fields), network()
    update, _ = make_update(model, LOSSES["cross_entropy"], build(how, model.parameters()), how)
    assert not isinstance(update, dense.DenseUpdate)


def test_other_optimizers_and_losses_are_left_to_autograd():
    model, how, loss = network(), recipe(), LOSSES["cross_entropy"]
    weights = list(model.parameters())
    hooked_optimizer = build(how, weights)
    hooked_optimizer.register_step_post_hook(lambda *_: None)
    others = [
        SGD(weights, 0.1, momentum=0.9, dampening=0.5),
        SGD(weights, 0.1, maximize=True),
        SGD(weights[:2], 0.1),
        SGD([{"params": weights[:2]}, {"params": weights[2:]}], 0.1),
        hooked_optimizer,
    ]
    assert all(dense.recognise(model, loss, other, how, lambda batch: batch.targets) is None for other in others)
    user: Loss = replace(loss, mean=nn.functional.cross_entropy, name="mine")
    assert dense.recognise(model, user, build(how, weights), how, lambda batch: batch.targets) is None


def test_other_batches_are_left_to_autograd():
    model, how = network(flatten=False).double(), recipe()
    taken = []
    optimizer = build(how, model.parameters())
    update = dense.recognise(
        model, LOSSES["cross_entropy"], optimizer, how, lambda batch: taken.append(1) or batch.targets
    )
    x, y = data((12,))
    update(Minibatch.of(x, y))
    assert not taken
    for inputs, targets in [
        (x[:, None], y),  # no Flatten: a linear layer would act on the last axis
        (x.float(), y),
        ((x,), y),
        (x, torch.eye(5, dtype=torch.float64)[y]),  # probabilities of classes
    ]:
        update(Minibatch.of(inputs, targets))
    assert len(taken) == 4


def problem(scale=1.0, model=None, n=203, features=13):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(n, features, generator=g) * scale
    y = torch.randint(5, (n,), generator=g)
    return gengap.Problem(
        model=model or (lambda: network(inputs=features)), loss="cross_entropy", train=(x, y), test=(x[:50], y[:50])
    )


def test_train_takes_the_fast_update():
    how = recipe(dtype="float32", budget={"steps": 3})
    training = loop.Training(problem(), how, torch.device("cpu"), evaluations=1, listen=lambda _: None)
    assert isinstance(training.update, dense.DenseUpdate)


@pytest.mark.parametrize("rule", ["plain", "momentum", "nesterov, decay"])
@pytest.mark.parametrize("batch", [1, 7])
def test_an_interrupted_run_goes_on_to_the_same_bits(rule, batch, tmp_path, monkeypatch):
    """13 float32 features: rows, and so batches, lie at other offsets to the cache line after resuming."""
    how = recipe(**RULES[rule], dtype="float32", batch_size=batch, budget={"epochs": 4 if batch > 1 else 1})
    straight = gengap.train(problem(), how)
    saved, save = [], solo.Keeper.save

    def stop_at_the_second_block(keeper):
        save(keeper)
        saved.append(keeper.training.step)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(solo.Keeper, "save", stop_at_the_second_block)
    with pytest.raises(KeyboardInterrupt):
        gengap.train(problem(), how, checkpoint=tmp_path / "run", checkpoint_every=0)
    monkeypatch.setattr(solo.Keeper, "save", save)
    assert 0 < saved[-1] < straight.cost.steps
    resumed = gengap.train(problem(), how, checkpoint=tmp_path / "run")
    assert resumed.cost.steps == straight.cost.steps
    assert all(torch.equal(resumed.params[name], p) for name, p in straight.params.items())
    assert resumed.final.train_loss == straight.final.train_loss


def test_agrees_with_the_autograd_path_through_train(monkeypatch):
    how = recipe(momentum=0.9, weight_decay=0.01, schedule="cosine", warmup={"epochs": 1}, budget={"epochs": 5})
    quick = gengap.train(problem(), how)
    monkeypatch.setattr(dense, "ENABLED", False)
    slow = gengap.train(problem(), how)
    for name, p in slow.params.items():
        torch.testing.assert_close(quick.params[name], p, rtol=1e-11, atol=1e-12)
    assert quick.final.batch_loss == pytest.approx(slow.final.batch_loss, rel=1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_divergence_is_found_at_the_same_step(rule, monkeypatch):
    how = recipe(**RULES[rule], dtype="float32", lr=1e15, budget={"steps": 60})
    quick = gengap.train(problem(scale=10.0), how)
    monkeypatch.setattr(dense, "ENABLED", False)
    slow = gengap.train(problem(scale=10.0), how)
    assert (quick.outcome.kind, quick.outcome.step) == (slow.outcome.kind, slow.outcome.step)
    assert quick.outcome.kind == "diverged"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_reaches_the_same_weights(bad):
    finals = []
    x, y = data((12,))
    x[3, 2] = bad
    for path in ("fast", "autograd"):
        torch.manual_seed(0)
        model, how = network().double(), recipe(momentum=0.9)
        update = fast(model, LOSSES["cross_entropy"], how)
        losses = [
            (update if path == "fast" else update._otherwise)(Minibatch.of(x[:8], y[:8])).item() for _ in range(2)
        ]
        finals.append((losses, [p.detach().isfinite() for p in model.parameters()]))
    assert str(finals[0][0]) == str(finals[1][0])
    assert all(torch.equal(p, q) for p, q in zip(finals[0][1], finals[1][1], strict=True))
