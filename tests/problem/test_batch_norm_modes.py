"""Oracles: module.eval() and module.train() of torch, and the normalisation written out with means and variances."""

import pytest
import torch
from problems_at_hand import N, data, normed, plain
from torch import nn

from gengap.problem.evaluate import even_size
from gengap.problem.problem import Problem

DTYPE = torch.float64


@pytest.fixture
def made():
    return Problem(model=normed, loss="cross_entropy", train=data(0), test=data(1, 13))


@pytest.fixture
def twin(made):
    model = made.model(seed=3, dtype=DTYPE)
    model[3].p = 0.0
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):  # running statistics of something else
            model(5 * torch.randn(20, 6, generator=rng, dtype=DTYPE) - 2)
        for norm in (model[1], model[5]):
            norm.weight.add_(torch.rand(norm.weight.shape, generator=rng, dtype=DTYPE))
            norm.bias.add_(torch.rand(norm.bias.shape, generator=rng, dtype=DTYPE))
    return model


def parts(model):
    return {n: p.detach() for n, p in model.named_parameters()}, {n: b.clone() for n, b in model.named_buffers()}


def loss_of(model, tensors):
    with torch.no_grad():
        return nn.functional.cross_entropy(model(tensors[0].double()), tensors[1]).item()


def by_hand(params, x, statistics=None):
    """Run `normed` without dropout; returns outputs and the (mean, variance, unbiased variance) of both norms."""
    seen = []
    for linear, norm, last in (("0", "1", False), ("4", "5", True)):
        x = x @ params[f"{linear}.weight"].T + params[f"{linear}.bias"]
        seen.append((x.mean(0), x.var(0, correction=0), x.var(0, correction=1)))
        mean, var = seen[-1][:2] if statistics is None else statistics[len(seen) - 1]
        x = (x - mean) / torch.sqrt(var + 1e-5) * params[f"{norm}.weight"] + params[f"{norm}.bias"]
        x = x if last else torch.tanh(x)
    return x @ params["6.weight"].T + params["6.bias"], seen


@pytest.mark.parametrize("split", ["train", "test"])
def test_running_is_eval(made, twin, split):
    params, buffers = parts(twin)
    found = made.loss_function(split, batch_norm="running", buffers=buffers)
    assert found.value(params) == pytest.approx(loss_of(twin.eval(), getattr(made, split)), rel=1e-13)
    assert found.value(params) != pytest.approx(loss_of(twin.train(), getattr(made, split)), rel=1e-3)


@pytest.mark.parametrize("split", ["train", "test"])
def test_batch_is_train_on_the_whole_split_without_dropout(made, twin, split):
    params, buffers = parts(twin)
    found = made.loss_function(split, batch_norm="batch", buffers=buffers)
    assert found.value(params) == pytest.approx(loss_of(twin.train(), getattr(made, split)), rel=1e-13)
    x, y = getattr(made, split)
    outputs, _ = by_hand(params, x.double())
    assert found(params).item() == pytest.approx(nn.functional.cross_entropy(outputs, y).item(), rel=1e-12)


def mixed(x):
    """37 samples in batches of at most 15: three, as equal as can be, always mixed the same way."""
    return x[torch.randperm(N, generator=torch.Generator().manual_seed(0))].split(13)


def test_batch_in_chunks_is_train_on_each(made, twin):
    params, _ = parts(twin)
    x, y = map(mixed, made.train)
    total = sum(loss_of(twin.train(), (a, b)) * len(b) for a, b in zip(x, y, strict=True))
    found = made.loss_function(batch_norm="batch", batch_size=15)
    assert found.value(params) == pytest.approx(total / N, rel=1e-13)
    assert found.value(params) != pytest.approx(loss_of(twin.train(), made.train), rel=1e-4)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("chunk", [None, 15])
def test_recompute_is_the_weighted_mean_over_the_training_set(made, twin, split, chunk):
    params, buffers = parts(twin)
    x, _ = made.train
    chunks = mixed(x.double()) if chunk else [x.double()]
    weights = torch.tensor([len(c) / N for c in chunks], dtype=DTYPE)
    seen = [by_hand(params, c)[1] for c in chunks]
    statistics = [
        tuple(sum(w * s[norm][which] for w, s in zip(weights, seen, strict=True)) for which in (0, 2))
        for norm in (0, 1)
    ]
    inputs, targets = getattr(made, split)
    outputs, _ = by_hand(params, inputs.double(), statistics)
    exact = nn.functional.cross_entropy(outputs, targets).item()
    found = made.loss_function(split, batch_norm="recompute", buffers=buffers, batch_size=chunk)
    assert found.value(params) == pytest.approx(exact, rel=1e-12)
    assert found(params).item() == pytest.approx(exact, rel=1e-12)
    assert found.value(params) == pytest.approx(exact, rel=1e-12)  # nothing is left of the first time


def test_recompute_forgets_statistics_that_are_broken(made, twin):
    params, buffers = parts(twin)
    exact = made.loss_function(batch_norm="recompute", buffers=buffers).value(params)
    broken = {n: b.fill_(float("nan")) if b.is_floating_point() else b for n, b in parts(twin)[1].items()}
    assert made.loss_function(batch_norm="recompute", buffers=broken).value(params) == exact


@pytest.mark.parametrize("mode", ["running", "batch", "recompute"])
def test_the_users_buffers_are_not_touched(made, twin, mode):
    params, buffers = parts(twin)
    kept = {name: b.clone() for name, b in buffers.items()}
    found = made.loss_function(batch_norm=mode, buffers=buffers)
    found(params)
    found.value_and_grad(params)
    found.score(params)
    assert all(torch.equal(buffers[name], kept[name]) for name in kept)


@pytest.mark.parametrize("mode", ["running", "batch", "recompute"])
def test_dropout_is_off(made, twin, mode):
    params, buffers = parts(twin)
    found = made.loss_function(batch_norm=mode, buffers=buffers)
    assert len({found.value(params) for _ in range(4)}) == 1


def test_other_buffers_from_now_on(made, twin):
    params, buffers = parts(twin)
    found = made.loss_function()
    fresh = found.value(params)
    assert found.with_buffers(buffers) is found
    assert found.value(params) == pytest.approx(loss_of(twin.eval(), made.train), rel=1e-13) != fresh


@pytest.mark.parametrize(
    ("mode", "size", "told"),
    [
        ("running", None, None),
        ("running", 7, None),
        ("batch", None, 13),
        ("batch", 11, 7),
        ("batch", 12, 7),
        ("recompute", 8, 8),
    ],
)
def test_the_mode_is_told(made, mode, size, told):
    found = made.loss_function("test", batch_norm=mode, batch_size=size)
    assert found.describe() == {"data": "test", "samples": 13, "batch_norm": mode, "batch_size": told}


@pytest.mark.parametrize("mode", ["running", "batch", "recompute"])
def test_without_batch_norm_the_mode_is_none(mode):
    made = Problem(model=plain, loss="cross_entropy", train=data(0), test=data(1, 13))
    params = dict(made.model(seed=0).named_parameters())
    found = made.loss_function(batch_norm=mode)
    assert found.describe() == {"data": "train", "samples": N, "batch_norm": "none", "batch_size": None}
    assert found.value(params) == made.loss_function().value(params)


def test_evaluation_batches_are_few_and_none_is_one_sample():
    for samples in range(2, 400):
        for limit in range(2, 60):
            size = even_size(samples, limit)
            assert samples % size != 1
            assert size <= limit + 10
            assert -(-samples // size) <= -(-samples // limit)


def test_a_set_stored_class_by_class_is_mixed():
    rng = torch.Generator().manual_seed(3)
    targets = torch.arange(400) // 100
    inputs = torch.randn(400, 4, generator=rng) + 3 * nn.functional.one_hot(targets, 4)
    split = (inputs, targets)

    def net():
        return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4))

    made = Problem(model=net, loss="cross_entropy", train=split, test=split)
    params = {
        "0.weight": torch.ones(4),
        "0.bias": torch.zeros(4),
        "1.weight": 3 * torch.eye(4),
        "1.bias": torch.zeros(4),
    }
    whole = made.loss_function(batch_norm="batch", batch_size=400).score(params)
    parted = made.loss_function(batch_norm="batch", batch_size=100).score(params)
    model = net().train()
    model.load_state_dict({**model.state_dict(), **params})
    by_class = sum(
        (model(x).argmax(1) == y).sum().item() for x, y in zip(inputs.split(100), targets.split(100), strict=True)
    )
    assert abs(parted.accuracy - whole.accuracy) < 3 < whole.accuracy - 100 * by_class / 400
