"""One exam for every optimizer of the catalogue.

Oracles: numpy's least squares and scipy's minimiser for what can be reached; the uninterrupted run for a resumed one; the same
penalty written into the loss for weight decay; one group for several.
"""

import inspect
import json

import numpy as np
import pytest
import torch
from exam_problems import PROBLEMS, Case, LeastSquares, Rings
from torch import nn

from gengap.core.catalogue import resolve
from gengap.core.errors import BadInput
from gengap.optim.adaqn import History
from gengap.optim.catalogue import OPTIMIZERS
from gengap.optim.kfac import Curvature
from gengap.training.checkpoint import pack_optimizer, read, unpack_optimizer, write

CASES = {
    "sgd": Case({"lr": 0.3, "momentum": 0.9, "nesterov": True}),
    "adam": Case({"lr": 0.1}),
    "adamw": Case({"lr": 0.1}),
    "adagrad": Case({"lr": 0.5}),
    "rmsprop": Case({"lr": 0.03, "momentum": 0.5}),
    "lars": Case({"lr": 1.0, "trust": 0.1, "adapt_1d": True}),
    "lamb": Case({"lr": 0.1, "adapt_1d": True}),
    "rmsprop-warmup": Case({"lr": 0.3, "lr_rms": 1e-2}),
    "lbfgs": Case({"max_iter": 5}, steps=8),
    "full-batch-gd": Case({}, steps=50),
    "adaqn": Case({"lr": 0.5, "history": History(every=3)}),
    "kfac": Case({"lr": 0.3, "momentum": 0.5}, steps=40),
}
DECOUPLED = ["adamw", "lamb"]
# In LARS the decay has a norm of its own in the ratio, in K-FAC it is part of the damping too.
OTHER_DECAY = ["lars", "kfac"]
DTYPES = [torch.float32, torch.float64]


def made(name, problem, model, groups=None, **options):
    entry = OPTIMIZERS[name]
    options = CASES[name].options | options
    if name == "kfac":
        curvature = Curvature(likelihood=problem.likelihood, damping=1e-2, kl_clip=0.1, inverse_every=3)
        return resolve(entry.builder)(model, curvature=curvature, params=groups, **options)
    return resolve(entry.builder)(groups or model.parameters(), **options)


def train(optimizer, closure, steps):
    return [float(optimizer.step(closure).detach()) for _ in range(steps)]


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_catalogue_says_what_the_class_takes(name):
    entry = OPTIMIZERS[name]
    optimizer = resolve(entry.builder)
    parameters = list(inspect.signature(optimizer).parameters)
    assert parameters[0] == {"weights": "params", "model": "model"}[entry.takes]
    assert set(entry.arguments) <= set(parameters)
    assert "lr" in entry.arguments
    assert "weight_decay" in entry.arguments
    assert entry.needs_closure == (getattr(optimizer, "needs_closure", False))
    assert entry.builder.startswith(entry.by) or "torch's, wrapped" in entry.note


@pytest.mark.parametrize(("problem", "dtype"), [*zip(PROBLEMS, DTYPES * 2, strict=False), ("rings", torch.float64)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reaches_the_target(name, problem, dtype):
    problem = PROBLEMS[problem](dtype)
    model = problem.model()
    assert flat(model).dtype == dtype
    optimizer, closure = made(name, problem, model), problem.closure(model)
    case = CASES[name]
    first = float(closure().detach())
    for step in range(case.steps):
        if not OPTIMIZERS[name].needs_closure:
            for group in optimizer.param_groups:
                group["lr"] = case.options["lr"] * (1 - step / case.steps)
        optimizer.step(closure)
    last = float(closure().detach())
    assert flat(model).dtype == dtype
    if problem.lowest is None:
        assert last < 0.1 * first
    else:
        assert problem.lowest - 1e-6 < last < problem.lowest + 0.01 * (first - problem.lowest)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_step_returns_the_loss_where_it_began(name):
    problem = Rings()
    model = problem.model()
    closure = problem.closure(model)
    optimizer = made(name, problem, model)
    for _ in range(3):
        before = float(closure().detach())
        assert float(optimizer.step(closure).detach()) == before


def through_torch_save(state, folder):
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


def through_a_checkpoint(state, folder):
    numbers, tensors = pack_optimizer(state)
    write(folder / "state.safetensors", {"numbers": json.dumps(numbers)}, tensors)
    header, tensors = read(folder / "state.safetensors")
    return unpack_optimizer(json.loads(header["numbers"]), tensors)


@pytest.mark.parametrize("way", [through_torch_save, through_a_checkpoint])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_has_the_same_bits(name, dtype, way, tmp_path):
    problem = Rings(dtype)
    whole = problem.model()
    optimizer, closure = made(name, problem, whole), problem.closure(whole)
    train(optimizer, closure, 4)
    state = way(optimizer.state_dict(), tmp_path)
    weights = {key: tensor.clone() for key, tensor in whole.state_dict().items()}
    halfway = flat(whole).clone()
    train(optimizer, closure, 4)

    resumed = problem.model()
    resumed.load_state_dict(weights)
    again = made(name, problem, resumed)
    again.load_state_dict(state)
    train(again, problem.closure(resumed), 4)
    assert torch.equal(flat(resumed), flat(whole))
    assert not torch.equal(flat(resumed), halfway)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_without_a_gradient_are_skipped(name):
    problem = Rings()
    model = problem.model()
    model.unused = nn.Linear(3, 3).double()
    model.unused.forward = None
    body, before = nn.Sequential(*list(model)[:3]), model.unused.weight.detach().clone()
    closure = problem.closure(body)
    whole = Whole(body, model.unused)
    start = flat(body).clone()
    train(made(name, problem, whole, weight_decay=0.1), problem.closure(whole), 3)
    assert torch.equal(model.unused.weight, before)
    assert not torch.equal(flat(body), start)
    assert closure().isfinite()


class Whole(nn.Module):
    """A network with a layer that is never called."""

    def __init__(self, body, unused):
        super().__init__()
        self.body, self.unused = body, unused

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_several_groups_equal_one(name):
    problem = Rings()
    one, other = problem.model(), problem.model()
    train(made(name, problem, one), problem.closure(one), 5)
    weights = list(other.parameters())
    train(made(name, problem, other, [{"params": weights[:1]}, {"params": weights[1:]}]), problem.closure(other), 5)
    torch.testing.assert_close(flat(one), flat(other), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_a_group_at_rate_zero_stays(name):
    problem = Rings()
    model = problem.model()
    weights = list(model.parameters())
    optimizer = made(name, problem, model, [{"params": weights[:2]}, {"params": weights[2:]}])
    optimizer.param_groups[1]["lr"] = 0.0
    before = [p.detach().clone() for p in weights]
    train(optimizer, problem.closure(model), 3)
    moved = [not torch.equal(p, old) for p, old in zip(weights, before, strict=True)]
    assert moved == [True, True, False, False]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_new_rate_takes_effect(name):
    """The step after the change is another one than it would have been."""
    ends = []
    for factor in (1.0, 0.1):
        problem = Rings()
        model = problem.model()
        optimizer = made(name, problem, model)
        train(optimizer, problem.closure(model), 2)
        before = flat(model).clone()
        for group in optimizer.param_groups:
            group["lr"] *= factor
        train(optimizer, problem.closure(model), 1)
        ends.append(flat(model) - before)
    assert (ends[0] - ends[1]).norm() > 0.01 * ends[0].norm()


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in {*DECOUPLED, *OTHER_DECAY}])
def test_weight_decay_is_a_penalty_in_the_loss(name):
    problem = LeastSquares()
    decayed, penalised = problem.model(), problem.model()
    train(made(name, problem, decayed, weight_decay=0.3), problem.closure(decayed), 6)

    def with_penalty():
        penalised.zero_grad()
        loss = problem.loss(penalised(problem.x), problem.y)
        loss = loss + 0.15 * sum(p.square().sum() for p in penalised.parameters())
        loss.backward()
        return loss

    train(made(name, problem, penalised), with_penalty, 6)
    torch.testing.assert_close(flat(decayed), flat(penalised), rtol=1e-9, atol=1e-11)
    plain = problem.model()
    train(made(name, problem, plain), problem.closure(plain), 6)
    assert (flat(plain) - flat(decayed)).norm() > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loss_that_is_not_finite_is_not_hidden(name):
    problem = LeastSquares()
    model = problem.model()
    optimizer = made(name, problem, model)
    train(optimizer, problem.closure(model), 2)
    problem.y[0, 0] = np.nan
    losses = train(optimizer, problem.closure(model), 2)
    assert not np.isfinite(losses[0])
    assert not np.isfinite(losses[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_run_has_the_same_bits(name):
    ends = []
    for _ in range(2):
        problem = Rings(torch.float32)
        model = problem.model()
        train(made(name, problem, model), problem.closure(model), 5)
        ends.append(flat(model))
    assert torch.equal(*ends)


WRONG = {
    "lars": [{"lr": -1}, {"lr": 1, "momentum": 1}, {"lr": 1, "trust": 0}, {"lr": 1, "momentum": 0, "nesterov": True}],
    "lamb": [{"lr": np.nan}, {"betas": (0.9, 1.0)}, {"eps": -1}, {"trust_bounds": (2, 1)}],
    "rmsprop-warmup": [{"lr": -1}, {"lr": 1, "alpha": 1}, {"lr": 1, "lr_rms": -1}],
    "lbfgs": [{"lr": 0}, {"history_size": 0}, {"line_search_fn": "armijo"}, {"weight_decay": -1}],
    "adaqn": [
        {"lr": -1},
        {"lr": 1, "eps": 0},
        {"lr": 1, "decay": 1},
        {"lr": 1, "gamma": 0.9},
        {"lr": 1, "weight_decay": -1},
    ],
    "full-batch-gd": [{"lr": 0}, {"line_search": "wolfe"}, {"most": 0}],
}


@pytest.mark.parametrize(("name", "options"), [(name, wrong) for name in WRONG for wrong in WRONG[name]])
def test_wrong_arguments_are_refused(name, options):
    with pytest.raises(BadInput):
        resolve(OPTIMIZERS[name].builder)([nn.Parameter(torch.zeros(2))], **options)
