"""adaQN.

Oracles: a twin in numpy that forms the Fisher matrix and a whole Hessian and solves with it (the optimizer does none of that), on
least squares with gradients by hand; torch's Adagrad while there are no pairs; the run that was not interrupted; plain SGD at the
best of three rates.
"""

import json

import numpy as np
import pytest
import torch
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.optim.adaqn import AdaQn, History, two_loops
from gengap.training.checkpoint import pack_optimizer, read, unpack_optimizer, write
from gengap.training.fleet_key import fleet_key
from gengap.training.ranks import Ranks
from gengap.training.sharded import check_shardable

RNG = np.random.default_rng(0)
P, B, BATCHES = 6, 8, 80
SCALES = np.array([2.0, 1.0, 0.5, 0.3, 0.2, 0.05])
X = RNG.normal(size=(BATCHES, B, P)) * SCALES
Y = X @ RNG.normal(size=P) + 0.3 * RNG.normal(size=(BATCHES, B))
START = RNG.normal(size=P)
SPLIT = 4  # weights in the first group
DECAYS = np.array([0.05] * SPLIT + [0.0] * (P - SPLIT))
EPS = 1e-3
SIZES = History(every=3, pairs=2, gradients=5, min_curvature=0.05)


def rates(k, lr):
    """A few steps far too long: those are what is taken back; the second group has another rate."""
    own = lr * (60 if k in {31, 32, 52, 53} else 1)
    return np.array([own] * SPLIT + [0.5 * own] * (P - SPLIT))


def objective(k, w):
    return 0.5 * np.mean((X[k] @ w - Y[k]) ** 2) + 0.5 * np.sum(DECAYS * w**2)


def hessian(first, pairs):
    """Broyden, Fletcher, Goldfarb and Shanno: matrices, no loops."""
    h = np.diag(first)
    for s, y in pairs:
        h = h - np.outer(h @ s, h @ s) / (s @ h @ s) + np.outer(y, y) / (s @ y)
    return h


class Twin:
    """The same rule, word by word; `seen` counts what happened."""

    def __init__(self, decay, gamma, lr=0.1, sizes=SIZES):
        self.decay, self.gamma, self.lr, self.sizes = decay, gamma, lr, sizes
        self.w, self.squares, self.old = START.copy(), np.zeros(P), None
        self.gradients, self.pairs, self.window = [], [], []
        self.counts = {"kept": 0, "dropped": 0, "rejected": 0, "most pairs": 0}

    def step(self, k):
        g = X[k].T @ (X[k] @ self.w - Y[k]) / B + DECAYS * self.w
        self.gradients = [*self.gradients, g][-self.sizes.gradients :]
        self.squares = (
            self.squares + g**2 if self.decay is None else self.decay * self.squares + (1 - self.decay) * g**2
        )
        h = hessian(np.sqrt(self.squares + EPS), self.pairs)
        self.w = self.w - rates(k, self.lr) * np.linalg.solve(h, g)
        self.window.append(self.w)
        if len(self.window) == self.sizes.every:
            new, self.window = np.mean(self.window, 0), []
            self.look_back(k, new)

    def look_back(self, k, new):
        if self.old is None:
            self.old = new
        elif objective(k, new) > self.gamma * objective(k, self.old):
            self.w, self.gradients, self.pairs = self.old, [], []
            self.counts["rejected"] += 1
        else:
            fisher = np.mean([np.outer(g, g) for g in self.gradients], 0)
            s = new - self.old
            y = fisher @ s
            kept = s @ y > self.sizes.min_curvature * s @ s
            self.counts["kept" if kept else "dropped"] += 1
            if kept:
                self.pairs, self.old = [*self.pairs, (s, y)][-self.sizes.pairs :], new
                self.counts["most pairs"] = max(self.counts["most pairs"], len(self.pairs))


class Course:
    """The optimizer on the same batches."""

    def __init__(self, decay, gamma, lr=0.1, sizes=SIZES):
        self.lr = lr
        self.weights = [nn.Parameter(torch.tensor(part)) for part in (START[:SPLIT].reshape(2, 2), START[SPLIT:])]
        groups = [{"params": [self.weights[0]], "weight_decay": DECAYS[0]}, {"params": [self.weights[1]]}]
        self.optimizer = AdaQn(groups, lr, eps=EPS, decay=decay, gamma=gamma, history=sizes)

    @property
    def w(self):
        return torch.cat([p.detach().reshape(-1) for p in self.weights]).numpy()

    def step(self, k):
        def closure():
            self.optimizer.zero_grad()
            w = torch.cat([p.reshape(-1) for p in self.weights])
            loss = 0.5 * ((torch.tensor(X[k]) @ w - torch.tensor(Y[k])) ** 2).mean()
            loss.backward()
            return loss

        for group, rate in zip(self.optimizer.param_groups, rates(k, self.lr)[[0, -1]], strict=True):
            group["lr"] = rate
        return self.optimizer.step(closure)


@pytest.mark.parametrize(
    ("decay", "gamma", "lr", "dropped"), [(None, 1.01, 0.1, True), (None, 1.5, 0.1, True), (0.9, 1.01, 0.05, False)]
)
def test_every_step_is_that_of_the_twin(decay, gamma, lr, dropped):
    twin, course = Twin(decay, gamma, lr), Course(decay, gamma, lr)
    for k in range(BATCHES):
        before = objective(k, twin.w) - 0.5 * np.sum(DECAYS * twin.w**2)
        twin.step(k)
        assert course.step(k).item() == pytest.approx(before, rel=1e-8)
        np.testing.assert_allclose(course.w, twin.w, rtol=1e-8, atol=1e-10, err_msg=f"update {k}")
    assert twin.counts["rejected"] >= 2
    assert twin.counts["kept"] > 2 * SIZES.pairs
    assert (twin.counts["dropped"] > 0) == dropped
    assert twin.counts["most pairs"] == SIZES.pairs
    assert course.optimizer.rejections == twin.counts["rejected"]


def test_the_allowed_rise_matters():
    counts = []
    for gamma in (1.01, 1.5):
        course = Course(None, gamma)
        for k in range(BATCHES):
            course.step(k)
        counts.append(course.optimizer.rejections)
    assert counts[0] > counts[1]


def test_the_two_loops_are_the_inverse_of_the_updated_hessian():
    root = RNG.normal(size=(P, P))
    curvature, first, gradient = root @ root.T + np.eye(P), RNG.uniform(0.5, 2, P), RNG.normal(size=P)
    pairs = [(s, curvature @ s) for s in RNG.normal(size=(4, P))]
    tensors = [(torch.tensor(s), torch.tensor(y)) for s, y in pairs]
    found = two_loops(torch.tensor(gradient), torch.tensor(1 / first), tensors)
    np.testing.assert_allclose(found, np.linalg.solve(hessian(first, pairs), gradient), rtol=1e-9)
    s, y = tensors[-1]
    torch.testing.assert_close(two_loops(y, torch.tensor(1 / first), tensors), s, rtol=1e-9, atol=1e-12)
    plain = two_loops(torch.tensor(gradient), torch.tensor(1 / first), [])
    np.testing.assert_array_equal(plain, gradient * (1 / first))


def test_without_pairs_it_is_adagrad():
    """Of torch, whose epsilon stands outside the root, and is too small to matter here."""
    course, other = Course(None, 1.01, sizes=History(every=BATCHES)), [torch.tensor(START, requires_grad=True)]
    course.optimizer.param_groups[0]["weight_decay"] = 0.0
    for group in course.optimizer.param_groups:
        group["eps"] = 1e-30
    adagrad = torch.optim.Adagrad(other, lr=0.1, eps=0.0)
    for k in range(5):
        course.step(k)
        for group, rate in zip(course.optimizer.param_groups, (0.1, 0.05), strict=True):
            assert group["lr"] == rate
        start = other[0].detach().clone()
        other[0].grad = torch.tensor(X[k].T @ (X[k] @ other[0].detach().numpy() - Y[k]) / B)
        adagrad.step()
        with torch.no_grad():
            other[0][SPLIT:] -= 0.5 * (other[0] - start)[SPLIT:]  # the second group has half the rate
        np.testing.assert_allclose(course.w, other[0].detach(), rtol=1e-10)


@pytest.mark.parametrize("stop", [7, 34, 60])
def test_a_resumed_run_has_the_same_bits_across_pairs_and_rejections(stop, tmp_path):
    whole = Course(None, 1.01)
    for k in range(stop):
        whole.step(k)
    numbers, tensors = pack_optimizer(whole.optimizer.state_dict())
    write(tmp_path / "state.safetensors", {"numbers": json.dumps(numbers)}, tensors)
    resumed = Course(None, 1.01)
    for p, value in zip(resumed.weights, whole.weights, strict=True):
        p.data.copy_(value)
    header, tensors = read(tmp_path / "state.safetensors")
    resumed.optimizer.load_state_dict(unpack_optimizer(json.loads(header["numbers"]), tensors))
    for k in range(stop, BATCHES):
        whole.step(k)
        resumed.step(k)
    np.testing.assert_array_equal(resumed.w, whole.w)
    assert resumed.optimizer.rejections == whole.optimizer.rejections >= 2


def test_a_state_of_other_sizes_is_refused():
    course = Course(None, 1.01)
    assert course.optimizer.rejections == 0
    fresh = course.optimizer.state_dict()
    Course(None, 1.01).optimizer.load_state_dict(fresh)
    course.step(0)
    with pytest.raises(BadInput, match="room for 2 pairs and 5 gradients, and the optimizer for 2 and 4"):
        Course(None, 1.01, sizes=History(pairs=2, gradients=4)).optimizer.load_state_dict(course.optimizer.state_dict())


class Valley:
    """One weight, a loss that is the weight itself or is said to be something else at a look back."""

    def __init__(self, start, **options):
        self.w = nn.Parameter(torch.tensor([start], dtype=torch.float64))
        self.optimizer = AdaQn([self.w], lr=0.1, history=History(every=1), **options)

    def step(self, slope=1.0, said=None):
        calls = []

        def closure():
            self.optimizer.zero_grad()
            loss = slope * self.w.sum()
            loss.backward()
            calls.append(self.w.item())
            return torch.tensor(said[len(calls) - 1]) if said else loss

        self.optimizer.step(closure)
        return calls


def test_losses_are_compared_at_the_averages_and_not_elsewhere():
    valley = Valley(3.0)
    assert valley.step() == [3.0]  # nothing to compare with yet
    first = valley.w.item()
    calls = valley.step()
    assert calls == [first, first, valley.w.item()]
    assert first == pytest.approx(3 - 0.1 / np.sqrt(1 + 1e-4))


@pytest.mark.parametrize(
    ("old", "new", "back"),
    [
        (2.0, 2.019, False),
        (2.0, 2.021, True),
        (-2.0, -1.99, False),
        (-2.0, -1.97, True),
        (0.0, 0.0, False),
        (0.0, 1e-9, True),
        (2.0, float("nan"), True),
        (float("nan"), 2.0, True),
        (2.0, float("inf"), True),
    ],
)
def test_a_rise_of_a_hundredth_is_allowed(old, new, back):
    valley = Valley(3.0)
    valley.step()
    first = valley.w.item()
    valley.step(said=[1.0, old, new])
    assert (valley.w.item() == first) == back
    assert valley.optimizer.rejections == back


def test_a_weight_without_a_gradient_for_once_waits():
    course = Course(None, 1.01)
    inputs = torch.tensor(X[0])

    def closure(both):
        def compute():
            course.optimizer.zero_grad()
            loss = (inputs[:, :SPLIT] @ course.weights[0].reshape(-1) - 1).square().mean()
            if both:
                loss = loss + (inputs[:, SPLIT:] @ course.weights[1] - 1).square().mean()
            loss.backward()
            return loss

        return compute

    for k in range(20):
        before = course.weights[1].detach().clone()
        course.optimizer.step(closure(both=k % 2 == 0))
        assert torch.equal(course.weights[1], before) == (k % 2 == 1), k
    assert course.w.shape == (P,)
    assert np.isfinite(course.w).all()


def test_what_cannot_be_one_vector_is_refused():
    double, single = nn.Parameter(torch.zeros(2, dtype=torch.float64)), nn.Parameter(torch.zeros(2))
    with pytest.raises(
        BadInput, match=r"float32 on cpu and torch\.float64 on cpu; put them on one device in one dtype"
    ):
        AdaQn([double, single], lr=0.1)
    optimizer = AdaQn([double], lr=0.1)
    with pytest.raises(BadInput, match="make another optimizer"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, dtype=torch.float64))]})


@pytest.mark.parametrize("sizes", [{"every": 0}, {"pairs": 2.5}, {"gradients": -1}, {"min_curvature": 0}], ids=str)
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(BadInput, match=f"{next(iter(sizes))} is {next(iter(sizes.values()))}"):
        History(**sizes)


def recipe(**fields):
    return gengap.Recipe(**{"optimizer": "adaqn", "lr": 0.1, "batch_size": 100, "budget": {"epochs": 10}, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "sam"}, "adaqn and the method sam both decide how to step; give one of them"),
        ({"momentum": 0.9}, "momentum and nesterov belong to .*, not to adaqn"),
        ({"gradient_noise": {"name": "isotropic", "temperature": 1e-3}}, "and adaqn takes several"),
    ],
    ids=str,
)
def test_recipes_that_do_not_fit_are_refused(fields, said):
    with pytest.raises(BadInput, match=said):
        recipe(**fields)
    recipe(eps=1e-3, weight_decay=0.1, clip_norm=1.0)


def test_no_fleet_and_no_shards():
    assert fleet_key(gengap.load("digits"), recipe()) is None
    with pytest.raises(BadInput, match="adaqn needs whole tensors"):
        check_shardable(recipe(), Ranks(0, 2))


def test_digits_against_sgd():
    """Ten epochs at batch 100; SGD at three rates, of which the middle one is the best and the last no longer learns."""
    learnt = gengap.load("digits")
    ours = gengap.train(learnt, recipe(), evaluations=1).final
    theirs = [
        gengap.train(learnt, recipe(optimizer="sgd", lr=lr), evaluations=1).final.train_loss for lr in (0.3, 1.0, 3.0)
    ]
    assert min(theirs) == theirs[1]
    assert ours.train_loss < 0.5 * min(theirs)
    assert ours.test_accuracy > 97
