"""Oracle: the same network made and called by hand; for messages, what a reader must learn."""

import pytest
import torch
from problems_at_hand import C, F, N, Pairs, data, normed, plain
from torch import nn

from gengap.core.errors import BadInput
from gengap.problem.problem import Origin, Problem


def problem(**changes):
    return Problem(**{"model": plain, "loss": "cross_entropy", "train": data(0), "test": data(1, 11), **changes})


def test_what_a_user_brings_is_what_the_problem_has():
    x, y = data()
    made = problem(train=(x, y))
    assert made.train[0] is x
    assert made.train[1] is y
    assert (made.name, made.parameters, made.has_batch_norm) == ("plain", (F + 1) * 5 + 6 * C, False)
    assert problem(model=normed).has_batch_norm
    assert repr(made) == "Problem(plain: 37 training and 11 test samples, cross_entropy)"
    streamed = Pairs(x, y)
    assert problem(train=streamed, memory_limit=10).train is streamed


def test_names_and_origins():
    assert problem(name="mine").name == "mine"
    assert problem(model=lambda: plain()).name == "<lambda>"
    made = problem(model="mlp")
    assert (made.name, made.origin) == ("mlp", Origin(network="mlp"))
    assert made.with_origin(Origin(factory="a:b")).origin.factory == "a:b"
    assert made.origin == Origin(network="mlp")


def test_a_seed_decides_the_weights_and_leaves_torch_alone():
    made = problem()
    before = torch.get_rng_state()
    first, again, other = (made.model(seed=s).state_dict() for s in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    torch.randn(3)
    assert torch.equal(made.model(seed=4)[0].weight, first["0.weight"])
    assert made.model(seed=4).training


def test_without_a_seed_the_weights_are_torchs():
    torch.manual_seed(11)
    expected = plain()
    torch.manual_seed(11)
    assert torch.equal(problem().model()[0].weight, expected[0].weight)


def test_dtype_of_a_model_changes_no_draw():
    made = problem(model=normed)
    single, double = made.model(seed=1), made.model(seed=1, dtype=torch.float64)
    for name, value in double.state_dict().items():
        assert torch.equal(value, single.state_dict()[name].to(value.dtype))
        assert value.dtype == (torch.int64 if name.endswith("tracked") else torch.float64)


class Two(nn.Module):
    """Takes its inputs by the names `left` and `right`."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, C), nn.Linear(4, C)

    def forward(self, left, right):
        return self.a(left) - 2 * self.b(right)


@pytest.mark.parametrize("form", ["tuple", "dict"])
@pytest.mark.parametrize("limit", ["4 GiB", 10], ids=["memory", "streamed"])
def test_a_model_of_several_inputs(form, limit):
    x, y = data()

    def make(x):
        parts = {"left": x[..., :2], "right": x[..., 2:]}
        return parts if form == "dict" else tuple(parts.values())

    made = problem(model=Two, train=Pairs(x, y, make), test=(make(x), y), memory_limit=limit)
    made.check()
    model = made.model(seed=0)
    loss = nn.functional.cross_entropy(model(x[:, :2], x[:, 2:]), y)
    for split in ("train", "test"):
        found = made.loss_function(split)
        assert found(dict(model.named_parameters())).item() == pytest.approx(loss.item(), rel=1e-6)
        assert found.value(dict(model.named_parameters())) == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("ready", [plain(), 3], ids=["module", "number"])
def test_a_ready_network_is_refused(ready):
    with pytest.raises(BadInput, match="model is a ready network; give a function"):
        problem(model=ready)


def test_an_unknown_network_lists_the_known():
    with pytest.raises(BadInput, match=r"no network called 'resnet'; known are: mlp, convnet"):
        problem(model="resnet")


def labels(*values):
    x, y = data()
    y = y.clone()
    y[-len(values) :] = torch.tensor(values)
    return x, y


def broken_input():
    x, y = data()
    x = x.clone()
    x[0, 0] = float("nan")
    return x, y


REFUSED = [
    ({"train": labels(C)}, "plain has 4 outputs, but a label of the train split is 4; give it at least 5 outputs"),
    ({"test": labels(9)}, "plain has 4 outputs, but a label of the test split is 9"),
    ({"test": labels(-1)}, "a label of the test split is -1; labels are class numbers from 0"),
    ({"train": (torch.ones(N, F + 1), data()[1])}, f"plain does not take inputs of shape ({8}, {F + 1})"),
    ({"train": ({"left": torch.ones(N, 2)}, data()[1])}, "plain does not take inputs of shape left: (8, 2)"),
    ({"train": broken_input()}, "the loss of the untrained plain is nan; look for inputs that are not finite"),
    ({"loss": lambda out, y: nn.functional.cross_entropy(out, y, reduction="none")}, "returned (8,); it must return"),
    ({"loss": lambda out, y: 1.0}, "returned float; it must return one number, the mean over samples"),
    ({"loss": lambda out, y: out.mean() / 0}, "the loss of the untrained plain is"),
    ({"loss": "mean_square"}, "the loss 'mean_square' does not take outputs of shape (8, 4) and targets of shape (8,)"),
    ({"model": lambda: nn.Sequential(plain(), nn.Flatten(0))}, "gives outputs of shape (32,)"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_check_says_what_does_not_fit(changes, says):
    with pytest.raises(BadInput) as caught:
        problem(**changes).check()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_accepts_what_fits():
    problem().check()
    problem(model=normed, train=data(n=1)).check()
    problem(train=Pairs(*data()), memory_limit=10).check()


def test_streamed_labels_are_checked_as_they_come():
    x, y = labels(1)
    y[0] = 12
    with pytest.raises(BadInput, match="does not take outputs of shape"):
        problem(train=Pairs(x, y), memory_limit=10).check()


def test_a_split_that_does_not_exist():
    with pytest.raises(BadInput, match="data is 'valid'; choose 'train' or 'test'"):
        problem().loss_function("valid")
    with pytest.raises(BadInput, match="batch_norm is 'frozen'; choose one of running, batch, recompute"):
        problem().loss_function(batch_norm="frozen")


def changed(tensors, *, pixel=False, label=False):
    x, y = (t.clone() for t in tensors)
    x[20, 3] += 1e-6 * pixel
    y[20 % len(y)] = (y[20 % len(y)] + label) % C
    return x, y


def deeper():
    return nn.Sequential(nn.Linear(F, 5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, C))


def other_activation():
    return nn.Sequential(nn.Linear(F, 5), nn.ReLU(), nn.Linear(5, C))


def scaled_start():
    model = plain()
    nn.init.zeros_(model[0].bias)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {"train": changed(data(0), pixel=True)},
        {"train": changed(data(0), label=True)},
        {"test": changed(data(1, 30), pixel=True)},
        {"train": data(0, N - 1)},
        {"train": tuple(t.double() if t.is_floating_point() else t for t in data(0))},
        {"loss": nn.functional.cross_entropy},
        {"loss": "mean_square"},
        {"model": deeper},
        {"model": other_activation},
        {"model": scaled_start},
        {"train": data(1, 30), "test": data(0)},
    ],
    ids=["pixel", "label", "test pixel", "fewer", "dtype", "own loss", "loss", "layer", "activation", "start", "swap"],
)
def test_the_fingerprint_changes_with(changes):
    base = {"test": data(1, 30)}
    if "loss" in changes and callable(changes["loss"]):
        changes = {"loss": lambda out, y: nn.functional.cross_entropy(out, y)}
    assert problem(**base).fingerprint != problem(**{**base, **changes}).fingerprint


def test_the_fingerprint_changes_with_nothing_else():
    first = problem().fingerprint
    torch.randn(5)
    x, y = data()
    same = [
        problem(name="other", origin=Origin(factory="a:b"), memory_limit=1),
        problem(model=lambda: plain()),
        problem(train=Pairs(x, y)),
        problem(train=(x.clone(), y.clone())),
        problem(train=(torch.stack([x, x], 2)[..., 0], y)),
    ]
    assert [other.fingerprint for other in same] == [first] * len(same)


def test_the_fingerprint_of_a_streamed_set_knows_its_ends():
    x, y = data()

    def streamed(tensors):
        return problem(train=Pairs(*tensors), memory_limit=10).fingerprint

    first = streamed((x, y))
    assert streamed((x.clone(), y.clone())) == first
    assert streamed((x[:-1], y[:-1])) != first
    assert streamed((x + torch.eye(N, F), y)) != first


def test_the_fingerprint_tells_losses_and_forward_passes_of_one_name_apart():
    data = (torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3)

    class Net(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.linear, self.scale = nn.Linear(4, 3), scale

        def forward(self, x):
            return self.linear(x) * self.scale

    def made(scale, loss):
        return Problem(model=lambda: Net(scale), loss=loss, train=data, test=data, name="same").fingerprint

    plain, smooth = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.5)
    assert made(1, plain) == made(1, nn.CrossEntropyLoss())
    assert len({made(1, plain), made(1, smooth), made(2, plain)}) == 3
