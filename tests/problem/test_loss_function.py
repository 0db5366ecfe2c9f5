"""Oracles: an nn.Module called on the whole set in float64, loss.backward(), and finite differences."""

import pytest
import torch
from problems_at_hand import F, N, Pairs, data, normed, plain
from torch import nn

from gengap.problem.problem import Problem

DTYPE = torch.float64


def problem(model=plain, **changes):
    return Problem(**{"model": model, "loss": "cross_entropy", "train": data(0), "test": data(1, 11), **changes})


def trained(made, seed=3):
    """Give a module whose running statistics are those of no data set."""
    model = made.model(seed=seed, dtype=DTYPE)
    rng = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("var"):
            buffer.copy_(torch.rand(buffer.shape, generator=rng, dtype=DTYPE) + 0.5)
        elif name.endswith("mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=rng, dtype=DTYPE))
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=rng, dtype=DTYPE))
    return model.eval()


def state(model):
    return {n: p.detach() for n, p in model.named_parameters()}, dict(model.named_buffers())


@pytest.mark.parametrize("chunk", [None, 1, 5, 36, N, 1000])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("model", [plain, normed])
def test_value_is_that_of_the_module_on_the_whole_set(model, split, chunk):
    made = problem(model)
    twin = trained(made)
    x, y = made.train if split == "train" else made.test
    exact = nn.functional.cross_entropy(twin(x.double()), y)
    right = (twin(x.double()).argmax(1) == y).double().mean() * 100
    params, buffers = state(twin)
    found = made.loss_function(split, buffers=buffers, batch_size=chunk)
    score = found.score(params)
    assert found(params).item() == pytest.approx(exact.item(), rel=1e-13)
    assert found.value(params) == score.loss == pytest.approx(exact.item(), rel=1e-13)
    assert (score.accuracy, score.samples) == (pytest.approx(right.item()), len(y))


@pytest.mark.parametrize("chunk", [5, 1000])
@pytest.mark.parametrize("model", [plain, normed])
def test_gradient_is_that_of_backward(model, chunk):
    made = problem(model)
    twin = trained(made)
    x, y = made.train
    nn.functional.cross_entropy(twin(x.double()), y).backward()
    params, buffers = state(twin)
    found = made.loss_function(buffers=buffers, batch_size=chunk)
    value, gradient = found.value_and_grad(params)
    assert value == pytest.approx(found.value(params), rel=1e-13)
    assert list(gradient) == list(params)
    called = torch.func.grad(found)(params)
    for name, p in twin.named_parameters():
        torch.testing.assert_close(gradient[name], p.grad, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(called[name], p.grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("mode", ["running", "batch"])
@pytest.mark.parametrize("model", [plain, normed])
def test_gradient_is_the_slope_of_the_value(model, mode):
    made = problem(model)
    params, buffers = state(trained(made))
    found = made.loss_function(buffers=buffers, batch_norm=mode, batch_size=10)
    _, gradient = found.value_and_grad(params)
    for i, name in enumerate(params):
        direction = torch.randn(params[name].shape, generator=torch.Generator().manual_seed(i), dtype=DTYPE)
        ahead, behind = ({**params, name: params[name] + h * direction} for h in (1e-5, -1e-5))
        slope = (found.value(ahead) - found.value(behind)) / 2e-5
        assert (gradient[name] * direction).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_ragged_chunks_weigh_by_their_samples():
    """One sample of huge loss alone in the last chunk: weighed as a chunk it would count 18 times as much."""
    x, y = data()
    x = x.clone()
    x[-1] *= 50
    made = problem(train=(x, y))
    twin = trained(made)
    params, _ = state(twin)
    losses = nn.functional.cross_entropy(twin(x.double()), y, reduction="none")
    by_chunks = (losses[:36].mean() + losses[36:].mean()) / 2
    found = made.loss_function(batch_size=36).value(params)
    assert found == pytest.approx(losses.mean().item(), rel=1e-13)
    assert abs(found - by_chunks.item()) > 0.1


def test_curvature_can_be_had():
    made = problem()
    twin = trained(made)
    params, _ = state(twin)
    name = "2.bias"
    x, y = made.train

    def by_hand(bias):
        return nn.functional.cross_entropy(twin[:2](x.double()) @ params["2.weight"].T + bias, y)

    exact = torch.autograd.functional.hessian(by_hand, params[name])
    chunked = made.loss_function(batch_size=9)
    found = torch.func.jacrev(torch.func.jacrev(lambda bias: chunked({**params, name: bias})))(params[name])
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-13)


def test_only_the_chosen_samples():
    made = problem()
    twin = trained(made)
    chosen = torch.tensor([3, 1, 30])
    x, y = data()
    found = made.loss_function(samples=chosen)
    assert found.value(state(twin)[0]) == pytest.approx(
        nn.functional.cross_entropy(twin(x[chosen].double()), y[chosen]).item(), rel=1e-13
    )
    assert found.describe()["samples"] == 3


def test_streamed_is_the_same_as_in_memory():
    x, y = data()
    params, _ = state(trained(problem()))
    streamed = problem(train=Pairs(x, y), memory_limit=10).loss_function(batch_size=10)
    memory = problem().loss_function(batch_size=10)
    assert streamed.value(params) == memory.value(params)
    assert streamed(params).item() == memory(params).item()


def test_weights_the_loss_does_not_see_have_no_slope():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(F, 4), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    made = problem(Idle)
    _, gradient = made.loss_function().value_and_grad(state(trained(made))[0])
    assert gradient["idle.weight"].count_nonzero() == 0
    assert gradient["used.weight"].count_nonzero() > 0


def test_parameters_are_left_as_they_are():
    made = problem(normed)
    params, _ = state(trained(made))
    kept = {name: p.clone() for name, p in params.items()}
    found = made.loss_function(batch_norm="recompute")
    found(params)
    found.score(params)
    found.value_and_grad(params)
    assert all(torch.equal(params[name], kept[name]) and not params[name].requires_grad for name in params)
