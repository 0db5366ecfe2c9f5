"""Oracle: the methods written naively in numpy (method_twins.py), float64, on a quartic valley that differs by batch."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import method_twins as twins
import numpy as np
import pytest
import torch
from method_twins import CENTRES, CURVATURE, QUARTIC, START
from torch.optim import SGD, Adam as TorchAdam

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.optim.conservative import Conservative
from gengap.optim.entropy_sgd import EntropySgd, Walk
from gengap.optim.mixing import Elastic, PostLocal
from gengap.optim.sam import Sam
from gengap.optim.svrg import Svrg
from gengap.optim.workers import Worker, Workers
from gengap.training.checkpoint import pack_optimizer, unpack_optimizer

STEPS, HALF = 12, 5
WALK = Walk(steps=4, lr=0.05, noise=0.3, alpha=0.6)
RATES = np.array([0.02, 0.02, 0.03])  # of the two groups


def langevin_draws():
    """The normal numbers of the walk, from the stream that the seed names; a part for each of the two tensors in turn."""
    draws = np.zeros((STEPS, WALK.steps, 3))
    for t in range(STEPS):
        rng = torch.Generator().manual_seed(stream(7, "langevin", t))
        for i in range(WALK.steps):
            parts = [torch.randn(n, generator=rng, dtype=torch.float64) for n in (2, 1)]
            draws[t, i] = torch.cat(parts).numpy()
    return draws


@dataclass(frozen=True)
class Entry:
    """A method, its twin, and how many closures a step takes (0: one, not in a list)."""

    make: Callable
    twin: Callable
    workers: int = 0


walking = partial(EntropySgd, gamma=0.5, scoping=0.1, walk=WALK, seed=7)
walking_twin = partial(
    twins.entropy_sgd, gamma=0.5, scoping=0.1, steps=4, lr=0.05, noise=0.3, alpha=0.6, draws=langevin_draws()
)
EXAM = {
    "sam": Entry(partial(Sam, rho=0.3), partial(twins.sam, rho=0.3)),
    "adaptive sam": Entry(
        partial(Sam, rho=0.5, adaptive=True, eta=0.2), partial(twins.sam, rho=0.5, adaptive=True, eta=0.2)
    ),
    "conservative": Entry(
        partial(Conservative, lam=0.7, inner_steps=3), partial(twins.conservative, lam=0.7, inner_steps=3)
    ),
    "fresh conservative": Entry(
        partial(Conservative, lam=0.7, inner_steps=3, fresh=True),
        partial(twins.conservative, lam=0.7, inner_steps=3, fresh=True),
    ),
    "entropy-sgd": Entry(walking, partial(walking_twin, times_gamma=False)),
    "entropy-sgd times gamma": Entry(partial(walking, times_gamma=True), partial(walking_twin, times_gamma=True)),
    "svrg": Entry(Svrg, partial(twins.svrg, every=4)),
    "post-local": Entry(
        partial(Workers, rule=PostLocal(period=3, start=4), count=3),
        partial(twins.post_local, count=3, period=3, start=4),
        3,
    ),
    "elastic": Entry(
        partial(Workers, rule=Elastic(alpha=0.2, beta=0.7, period=2), count=3),
        partial(twins.elastic, count=3, period=2, alpha=0.2, beta=0.7),
        3,
    ),
    "worker alone": Entry(
        partial(Worker, rule=PostLocal(period=3, start=4), mean=lambda x: x),
        partial(twins.post_local, count=1, period=3, start=4),
    ),
}
BASES = {
    "momentum": (partial(SGD, lr=0.02, momentum=0.9), twins.Momentum),
    "nesterov and decay": (
        partial(SGD, lr=0.02, momentum=0.5, nesterov=True, weight_decay=0.3),
        partial(twins.Momentum, 0.5, 0.3, True),
    ),
    "adam": (partial(TorchAdam, lr=0.02, weight_decay=0.1), partial(twins.Adam, 0.1)),
}
methods = pytest.mark.parametrize("method", EXAM)


class Course:
    """Three weights in two tensors and two groups, a fourth tensor without a gradient, and a method that trains them."""

    def __init__(self, method, base="momentum", dtype=torch.float64, start=START, set_to_none=True):
        self.entry, self.set_to_none = EXAM[method], set_to_none
        w = torch.as_tensor(start).to(dtype)
        self.weights = [torch.nn.Parameter(w[:2].clone()), torch.nn.Parameter(w[2:].clone())]
        self.idle = torch.nn.Parameter(torch.full((2,), 0.1, dtype=dtype))
        groups = [{"params": self.weights[:1]}, {"params": [self.weights[1], self.idle], "lr": RATES[2].item()}]
        self.optimizer = self.entry.make(groups, BASES[base][0] if isinstance(base, str) else base)
        self.calls, self.done = 0, 0

    @property
    def point(self):
        return torch.cat(self.weights).detach().clone()

    def loss(self, b):
        w = torch.cat(self.weights)
        away = w - torch.as_tensor(CENTRES[b % len(CENTRES)]).to(w)
        return 0.5 * away @ torch.as_tensor(CURVATURE).to(w) @ away + QUARTIC * (w**4).sum()

    def closure(self, *batches):
        """A closure over the mean of batches; without any, a new batch in each call."""

        def evaluate():
            self.optimizer.zero_grad(set_to_none=self.set_to_none)
            chosen = batches or [self.calls]
            self.calls += 1
            loss = sum(self.loss(b) for b in chosen) / len(chosen)
            loss.backward()
            return loss

        return evaluate

    def step(self):
        t, k = self.done, self.entry.workers
        self.done += 1
        if isinstance(self.optimizer, Svrg) and t % 4 == 0:
            self.optimizer.snapshot(self.closure(*range(len(CENTRES))))
        if k:
            return self.optimizer.step([self.closure(k * t + i) for i in range(k)])
        return self.optimizer.step(self.closure() if isinstance(self.optimizer, EntropySgd) else self.closure(t))

    def path(self, steps=STEPS):
        return np.array([(self.step(), self.point.double().numpy())[1] for _ in range(steps)])


@methods
@pytest.mark.parametrize("base", BASES)
def test_the_naive_twin_goes_the_same_way(method, base):
    found, wanted = Course(method, base).path(), np.array(list(EXAM[method].twin(BASES[base][1], [RATES] * STEPS)))
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_no_two_entries_go_the_same_way():
    """Or a method that falls back to its base would pass."""
    ends = [list(entry.twin(twins.Momentum, [RATES] * STEPS))[-1] for entry in EXAM.values()]
    plain = list(twins.post_local(twins.Momentum, [RATES] * STEPS, count=1, period=1, start=0))[-1]
    np.testing.assert_allclose(ends[-1], plain)  # a worker alone is its base
    apart = np.abs(np.array(ends)[:, None] - np.array(ends)).max(2) + np.eye(len(ends))
    assert apart.min() > 1e-4


@methods
def test_a_closure_that_zeroes_in_place(method):
    np.testing.assert_array_equal(Course(method, set_to_none=False).path(), Course(method).path())


@methods
def test_a_scheduler_reaches_the_base(method):
    course = Course(method)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(course.optimizer, 0.8)
    found = []
    for _ in range(STEPS):
        course.step()
        scheduler.step()
        found.append(course.point.numpy())
    wanted = list(EXAM[method].twin(twins.Momentum, [RATES * 0.8**t for t in range(STEPS)]))
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def through_torch(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_a_checkpoint(optimizer):
    numbers, tensors = pack_optimizer(optimizer.state_dict())
    return unpack_optimizer(json.loads(json.dumps(numbers)), {name: t.clone() for name, t in tensors.items()})


@methods
@pytest.mark.parametrize(("base", "way"), [("adam", through_torch), ("nesterov and decay", through_a_checkpoint)])
def test_a_run_that_goes_on_has_the_same_bits(method, way, base):
    whole = Course(method, base)
    wanted = whole.path()
    first = Course(method, base)
    first.path(HALF)
    second = Course(method, base, start=first.point)
    second.optimizer.load_state_dict(way(first.optimizer))
    second.calls, second.done = first.calls, first.done
    np.testing.assert_array_equal(second.path(STEPS - HALF), wanted[HALF:])
    second.optimizer.param_groups[0]["lr"] = 0.0
    assert all(base.param_groups[0]["lr"] == 0.0 for base in second.optimizer.bases)


@methods
def test_returns_the_loss_before_the_step(method):
    course = Course(method)
    course.step()
    replicas = [course.point] * max(course.entry.workers, 1)
    if course.entry.workers:
        state = [course.optimizer.state[p] for p in course.weights]
        replicas = [torch.cat([memory[f"weights{k}"] for memory in state]) for k in range(course.entry.workers)]
    losses = []
    for k, w in enumerate(replicas):
        probe = Course("sam", start=w)
        losses.append(probe.loss(course.calls if method.startswith("entropy") else len(replicas) + k))
    found = course.step()
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.stack(losses).mean().detach())


@methods
def test_single_precision_stays_single(method):
    course, double = Course(method, "nesterov and decay", torch.float32), Course(method, "nesterov and decay")
    if isinstance(course.optimizer, EntropySgd):  # whose draws differ between dtypes
        course.optimizer.walk = double.optimizer.walk = replace(WALK, noise=0.0)
    np.testing.assert_allclose(course.path(), double.path(), atol=2e-5)
    assert {p.dtype for p in course.weights} == {torch.float32}
    tensors = [t for memory in course.optimizer.state_dict()["state"].values() for t in memory.values()]
    assert {t.dtype for t in tensors if isinstance(t, torch.Tensor)} <= {torch.float32}


@methods
def test_a_weight_without_gradient_stays(method):
    course = Course(method, "nesterov and decay")
    course.path()
    assert course.idle.tolist() == [0.1, 0.1]


@methods
def test_leaves_the_global_random_state(method):
    before = torch.get_rng_state()
    Course(method).path(2)
    assert torch.equal(before, torch.get_rng_state())


@methods
def test_an_error_in_the_closure_leaves_the_weights(method):
    if "conservative" in method:
        pytest.skip("its inner steps are steps")
    course = Course(method)
    course.path(3)
    kept, good, calls = course.point, course.closure(0), []

    def fails_late():
        calls.append(good())
        if len(calls) > (method not in {"worker alone"}):
            raise RuntimeError("out of memory")
        return calls[-1]

    with pytest.raises(RuntimeError, match="out of memory"):
        course.optimizer.step([fails_late] * course.entry.workers if course.entry.workers else fails_late)
    assert torch.equal(course.point, kept)


@methods
def test_a_group_that_comes_later(method):
    course = Course(method)
    course.path(2)
    late = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    course.optimizer.add_param_group({"params": [late], "lr": 0.1})
    plain = course.loss
    course.loss = lambda b: plain(b) + 0.5 * (late**2).sum()
    if method == "svrg":
        with pytest.raises(BadInput, match="no snapshot of all weights"):
            course.step()
        course.optimizer.snapshot(course.closure(*range(len(CENTRES))))
    course.path(2)
    assert late.item() < 1


@methods
def test_refuses_the_state_of_something_else(method):
    plain = SGD([torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1))], lr=0.1).state_dict()
    with pytest.raises(BadInput, match="a plain optimizer; give the state_dict of a"):
        Course(method).optimizer.load_state_dict(plain)


@methods
@pytest.mark.parametrize(
    ("base", "words"),
    [
        (lambda groups: 3, "base is a int"),
        (lambda groups: SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1), "base holds 1 tensors, not the same 3"),
        (lambda groups: Sam(groups, partial(SGD, lr=0.1)), "base is a Sam"),
    ],
)
def test_refuses_a_base_that_does_not_fit(method, base, words):
    with pytest.raises(BadInput, match=words):
        Course(method, base)


@pytest.mark.parametrize("method", ["sam", "svrg", "post-local", "entropy-sgd"])
def test_refuses_a_base_that_wants_a_closure(method):
    w = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(BadInput, match="LBFGS, which evaluates the loss itself"):
        EXAM[method].make([w], torch.optim.LBFGS)


@pytest.mark.parametrize("method", ["sam", "conservative", "entropy-sgd", "svrg", "worker alone"])
def test_an_optimizer_that_is_there_already(method):
    wanted = Course(method).path()
    course = Course(method)
    optimizer = SGD(
        [{"params": course.weights[:1]}, {"params": [course.weights[1], course.idle], "lr": 0.03}],
        lr=0.02,
        momentum=0.9,
    )
    course.optimizer = EXAM[method].make([*course.weights, course.idle], optimizer)
    np.testing.assert_array_equal(course.path(), wanted)


def test_forms_of_parameters():
    model = torch.nn.Linear(2, 1)
    for params in (model.parameters(), model.named_parameters(), [{"params": model.parameters()}]):
        assert [p.shape for p in Sam(params, partial(SGD, lr=0.1)).params] == [(1, 2), (1,)]
    with pytest.raises(BadInput, match="params is empty"):
        Sam([], partial(SGD, lr=0.1))
    one = Sam([{"params": model.weight}], partial(SGD, lr=0.1))
    assert one.params == [model.weight]
    with pytest.raises(BadInput, match=r"the closure returned 0\.5"):
        one.step(lambda: 0.5)
