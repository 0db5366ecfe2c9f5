"""Oracles: the module itself called on the whole set in float64, and copies of its state taken beforehand."""

import copy
import random
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems_at_hand import C, N, Pairs, data, normed, plain
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from gengap.core.errors import BadInput
from gengap.measures.sample_mean import check_mean_over_samples
from gengap.measures.session import measuring
from gengap.problem.from_model import loss_function


def ready(make=normed, dtype=torch.float64):
    torch.manual_seed(0)
    return make().to(dtype).eval()


def exact(model, chosen=slice(None)):
    x, y = data()
    with torch.no_grad():
        return F.cross_entropy(
            copy.deepcopy(model).eval()(x[chosen].to(next(model.parameters()).dtype)), y[chosen]
        ).item()


def params(model):
    return dict(model.named_parameters())


def shuffling(**options):
    return DataLoader(Pairs(*data()), **{"batch_size": 8, "shuffle": True, **options})


class Augmented(Pairs):
    """One sample of it is noisy."""

    noisy = 11

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return (x + self.noise() if i == self.noisy else x), y

    def noise(self):
        return torch.randn(()) + random.random() + np.random.rand()


class OwnNoise(Augmented):
    """The same from a generator of its own."""

    rng = torch.Generator().manual_seed(0)

    def noise(self):
        return torch.randn((), generator=self.rng)


FORMS = {
    "tensors": data,
    "tensor data set": lambda: TensorDataset(*data()),
    "data set": lambda: Pairs(*data()),
    "subset": lambda: Subset(Pairs(*(torch.cat([part, part]) for part in data())), range(N)),
    "loader": lambda: DataLoader(Pairs(*data()), batch_size=5),
    "shuffling loader": shuffling,
    "loader that drops the last batch": lambda: shuffling(drop_last=True),
    "loader of tensors": lambda: DataLoader(TensorDataset(*data()), batch_size=5),
    "loader of chosen samples": lambda: DataLoader(
        Pairs(*(torch.cat([part, part]) for part in data())), batch_size=5, sampler=SubsetRandomSampler(range(N))
    ),
    "loader with a collate_fn": lambda: DataLoader(
        [{"x": x, "y": int(y)} for x, y in zip(*data(), strict=True)],
        batch_size=4,
        collate_fn=lambda rows: [torch.stack([r["x"] for r in rows]), torch.tensor([r["y"] for r in rows])],
    ),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_data_gives_the_mean_over_all_samples(form, streamed, monkeypatch):
    if streamed:
        monkeypatch.setattr("gengap.problem.from_data.LIMIT", 0)
    model = ready()
    found = loss_function(model, "cross_entropy", FORMS[form](), batch_size=10)
    assert found.value(params(model)) == pytest.approx(exact(model), rel=1e-13)
    assert found.describe()["samples"] == N
    assert found.chunk_size == 10


@pytest.mark.parametrize("form", ["tensors", "data set", "shuffling loader"])
@pytest.mark.parametrize("chosen", [torch.tensor([3, 1, 30]), [3, 1, 30], torch.arange(N) % 7 == 2], ids=str)
def test_only_the_chosen_samples(form, chosen):
    model = ready()
    found = loss_function(model, "cross_entropy", FORMS[form](), samples=chosen)
    assert found.value(params(model)) == pytest.approx(exact(model, chosen), rel=1e-13)


def test_the_users_model_and_the_generators_stay_bit_for_bit():
    model = normed().double().train()
    model(data()[0].double()).sum().backward()
    model[0].bias.requires_grad_(False)
    before, gradients = copy.deepcopy(model.state_dict()), {n: p.grad.clone() for n, p in model.named_parameters()}
    random.seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    loss = loss_function(model, "cross_entropy", DataLoader(Augmented(*data()), batch_size=5, shuffle=True))
    with pytest.raises(BadInput), measuring(loss, params(model), passes="gradient"):
        pass
    with measuring(loss, params(model), passes="gradient", check=False) as session:
        session.loss.value_and_grad(session.params)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(gradients[n], p.grad) for n, p in model.named_parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["0.bias"] == list(loss.frozen)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


def test_buffers_are_the_models_unless_others_are_given():
    model, other = ready(), ready()
    other[1].running_mean += 1
    given = loss_function(model, "cross_entropy", data(), buffers={"1.running_mean": other[1].running_mean})
    assert given.value(params(model)) == pytest.approx(exact(other), rel=1e-13)
    assert given.value(params(model)) != pytest.approx(exact(model), rel=1e-3)
    own = loss_function(model, "cross_entropy", data())
    model[1].running_mean += 5
    assert own.value(params(other)) == pytest.approx(exact(ready()), rel=1e-13)


@pytest.mark.parametrize("mode", ["batch", "recompute"])
def test_batch_statistics(mode):
    model = ready()
    twin = copy.deepcopy(model).eval()
    twin[1].train()
    twin[5].train()
    x, y = data()
    with torch.no_grad():
        expected = F.cross_entropy(twin(x.double()), y).item()
    found = loss_function(model, "cross_entropy", shuffling(), batch_norm=mode).value(params(model))
    # Recomputed statistics hold the unbiased variance; those of a batch do not.
    assert found == pytest.approx(expected, rel=1e-12 if mode == "batch" else 0.05)


@pytest.mark.parametrize("limit", [0, 2**30], ids=["streamed", "in memory"])
@pytest.mark.parametrize("kind", [Augmented, OwnNoise])
@pytest.mark.parametrize("chosen", [None, [5, 11, 2]], ids=["all", "chosen"])
def test_augmentation_is_refused_with_the_index_of_a_sample_that_changed(kind, limit, chosen, monkeypatch):
    monkeypatch.setattr("gengap.problem.from_data.LIMIT", limit)
    model = ready()
    loss = loss_function(model, "cross_entropy", kind(*data()), samples=chosen)
    says = "sample 11 of the data set is another each time it is read, so random augmentation is on"
    with pytest.raises(BadInput, match=says), measuring(loss, params(model), passes="value", only="6.*"):
        pass
    with measuring(loss, params(model), passes="value", check=False) as session:
        assert session.loss.value(session.params) == pytest.approx(exact(model, chosen or slice(None)), rel=0.5)


def test_batches_padded_to_different_lengths_are_streamed():
    rows = [(torch.ones(i % 9 + 1, 1), i % 2) for i in range(600)]
    rows[400] = (torch.ones(20, 1), 0)

    def join(items):
        return nn.utils.rnn.pad_sequence([x for x, _ in items], batch_first=True), torch.tensor([y for _, y in items])

    class Length(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.1, 0.2]))

        def forward(self, x):
            return x.sum((1, 2))[:, None] * self.w

    model = Length()
    found = loss_function(model, "cross_entropy", DataLoader(rows, batch_size=4, collate_fn=join))
    outputs = torch.tensor([[float(len(x))] for x, _ in rows]) * model.w
    assert found.value(params(model)) == pytest.approx(
        F.cross_entropy(outputs.double(), torch.tensor([y for _, y in rows])).item(), rel=1e-6
    )


Outputs = namedtuple("Outputs", "logits hidden")


class Rich(nn.Module):
    """Gives more than one tensor, in the form that is asked for."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = plain(), form

    def forward(self, x):
        return self.form(self.net(x), x)


RICH = {
    "tuple": (lambda o, h: (o, h), lambda out, y: F.cross_entropy(out[0], y)),
    "dict": (lambda o, h: {"logits": o, "none": None}, lambda out, y: F.cross_entropy(out["logits"], y)),
    "record": (Outputs, lambda out, y: F.cross_entropy(out.logits, y)),
}


@pytest.mark.parametrize("form", RICH)
def test_a_users_loss_takes_outputs_of_any_form(form):
    make, loss = RICH[form]
    model = ready(lambda: Rich(make))
    found = loss_function(model, loss, data())
    value, gradient = found.value_and_grad(params(model))
    assert value == pytest.approx(exact(model.net), rel=1e-13)
    assert set(gradient) == set(params(model))
    assert found.score(params(model)).accuracy is None
    with pytest.raises(BadInput, match="a function of \\(outputs, targets\\) instead"):
        loss_function(model, "cross_entropy", data())
    piece = next(found.chunks(params(model)))
    with pytest.raises(BadInput, match=r"the test needs the outputs of each of 37 samples, but the network gives a "):
        check_mean_over_samples(piece, piece.outputs(params(model)), "the test")


WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
MEANS = {
    "named": "cross_entropy",
    "own": lambda o, t: F.cross_entropy(o, t),
    "looks at values": lambda o, t: F.cross_entropy(o, t) * (2.0 if o.isfinite().all() else 1.0),
    "far from one": lambda o, t: 1e6 + F.cross_entropy(o, t),
}
NO_MEANS = {
    "sum": lambda o, t: F.cross_entropy(o, t, reduction="sum"),
    "class weights": lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS),
    "ignored targets": lambda o, t: F.cross_entropy(o, t, ignore_index=1),
    "contrast": lambda o, t: F.cross_entropy(o - o.mean(0), t),
}


@pytest.mark.parametrize("name", [*MEANS, *NO_MEANS])
def test_losses_that_are_no_mean_over_samples_are_found_out(name):
    model = ready(plain)
    found = loss_function(model, {**MEANS, **NO_MEANS}[name], data())
    piece = next(found.chunks(params(model)))
    outputs = piece.outputs(params(model))
    if name in MEANS:
        check_mean_over_samples(piece, outputs, "the noise scale")
        each = [piece.loss.mean(outputs[i : i + 1], piece.targets[i : i + 1]).item() for i in range(N)]
        assert piece.losses(outputs).tolist() == pytest.approx(each, rel=1e-12)
        return
    with pytest.raises(BadInput, match="the noise scale needs a loss that is the mean over samples, but 37 samples"):
        check_mean_over_samples(piece, outputs, "the noise scale")


class Endless(IterableDataset):
    def __iter__(self):
        return zip(*data(), strict=True)


class Cached(nn.Linear):
    """Keeps a result of its forward pass, which torch cannot copy."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


def cached():
    model = Cached(6, C)
    model(data()[0])
    return model


class Compiled(nn.Module):
    """Looks like what `torch.compile` returns, which takes seconds to load."""

    def __init__(self):
        super().__init__()
        self._orig_mod = plain()


def no_statistics():
    return nn.Sequential(nn.Linear(6, C), nn.BatchNorm1d(C, track_running_stats=False))


PAIRS = Pairs(*data())
SAMPLER = BatchSampler(RandomSampler(PAIRS), 5, False)


class Balanced(BatchSampler):
    """A batch sampler of a user's."""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": plain}, "model is a function; give a torch.nn.Module; call it to make one"),
        ({"model": nn.DataParallel(plain())}, "model is a DataParallel; give the network inside it, model.module"),
        ({"model": Compiled()}, "give model._orig_mod"),
        ({"model": nn.ReLU()}, "has no weights"),
        ({"model": cached()}, "Cached cannot be copied (Only Tensors created explicitly"),
        ({"model": no_statistics()}, "batch norm '1' keeps no running statistics; choose batch_norm='batch'"),
        ({"model": nn.Linear(5, C)}, "Linear does not take inputs of shape (8, 6)"),
        ({"model": nn.Linear(6, 2)}, "Linear has 2 outputs, but a label"),
        ({"loss": "crossentropy"}, "crossentropy"),
        ({"loss": 3}, "loss is 3; give a name"),
        ({"loss": nn.NLLLoss(reduction="none")}, "the loss 'NLLLoss' returned (8,); it must return one number"),
        ({"loss": nn.MSELoss()}, "the loss 'MSELoss' does not take outputs of shape (8, 4) and targets of shape (8,)"),
        ({"data": Endless()}, "data are a Endless, a stream without indices"),
        ({"data": DataLoader(Endless(), batch_size=4)}, "data are a Endless, a stream without indices"),
        ({"data": DataLoader(PAIRS, batch_size=None)}, "batch_size=None and makes no batches"),
        ({"data": DataLoader(PAIRS, batch_sampler=Balanced(SAMPLER.sampler, 5, False))}, "a Balanced, which may leave"),
        (
            {"data": DataLoader(PAIRS, batch_size=4, sampler=WeightedRandomSampler([1.0] * N, N))},
            "WeightedRandomSampler",
        ),
        ({"data": DataLoader(PAIRS, batch_size=4, sampler=RandomSampler(PAIRS, replacement=True))}, "a RandomSampler"),
        ({"data": DataLoader(PAIRS, batch_size=4, sampler=range(3))}, "draws by a range"),
        ({"data": DataLoader(PAIRS, collate_fn=lambda rows: {"x": 1})}, "a batch of the data holds 1 things"),
        ({"data": DataLoader(PAIRS, collate_fn=lambda rows: rows[0])}, "collate_fn made tensors of [0, 6] rows from 1"),
        ({"data": [(torch.ones(2), torch.ones(2), 1)]}, "the first sample of the data is no (input, target) pair"),
        ({"data": []}, "data have no samples"),
        ({"data": torch.ones(3, 6)}, "data are a Tensor; give a pair"),
        ({"data": (torch.ones(3, 6), torch.ones(2))}, "different numbers of samples: [2, 3]"),
        ({"data": {"x": 1}}, "data are a dict; give a pair"),
        ({"samples": [37]}, "samples holds 37; give indices from 0 to 36"),
        ({"samples": [-1]}, "samples holds -1"),
        ({"samples": []}, "samples is torch.float32 of shape (0,)"),
        ({"samples": [0.5]}, "samples is torch.float32 of shape (1,)"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"batch_norm": "train"}, "batch_norm is 'train'; choose one of running, batch, recompute"),
        ({"buffers": {"m": torch.ones(1)}}, "buffers holds 'm', which is no buffer of the model"),
        (
            {"buffers": {"1.running_var": torch.ones(1)}},
            "buffers['1.running_var'] has shape (1,), and the model's (8,)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_said_in_one_sentence(change, says):
    given = {"model": normed(), "loss": "cross_entropy", "data": data(), **change}
    with pytest.raises(BadInput) as caught:
        loss_function(given.pop("model"), given.pop("loss"), given.pop("data"), **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.pop("0.bias"), "params lacks '0.bias', a weight of the network"),
        (lambda p: p.update(extra=torch.ones(1)), "params holds 'extra', which is no weight of the network"),
        (lambda p: p.update({"0.bias": torch.ones(2)}), "params['0.bias'] has shape (2,), and the network's (8,)"),
    ],
    ids=["missing", "unknown", "another shape"],
)
def test_weights_of_another_network_are_refused(change, says):
    model = ready()
    weights = params(model)
    change(weights)
    with pytest.raises(BadInput) as caught:
        loss_function(model, "cross_entropy", data()).value(weights)
    assert says in str(caught.value)
