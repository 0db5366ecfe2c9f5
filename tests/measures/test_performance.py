"""Oracles: the equation that defines an interval, torch's own cross-entropy, and numpy's mean and deviation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional

import gengap
from gengap.measures.performance import mean_interval, performance, share

N, F, C = 41, 5, 3


def problem(n=N):
    rng = torch.Generator().manual_seed(3)
    x, y = torch.randn(n, F, generator=rng), torch.randint(C, (n,), generator=rng)
    return gengap.Problem(model=lambda: nn.Linear(F, C), loss="cross_entropy", train=(x, y), test=(x, y))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 60), chunk=st.integers(1, 70))
def test_every_number_is_that_of_numpy(n, chunk):
    p = problem(n)
    model = p.model(seed=1, dtype=torch.float64)
    params = {name: w.detach() for name, w in model.named_parameters()}
    found = performance(p.loss_function(batch_size=chunk), params)
    x, y = p.train[0].double(), p.train[1]
    each = functional.cross_entropy(model(x), y, reduction="none")
    right = 100.0 * (model(x).argmax(1) == y).double().numpy()
    assert found.loss.n == n
    assert found.loss.value == pytest.approx(float(each.detach().mean()), rel=1e-12)
    assert found.loss.stdev == pytest.approx(float(np.std(each.detach().numpy(), ddof=1)), rel=1e-9)
    assert found.accuracy.value == pytest.approx(right.mean(), rel=1e-12)
    assert found.accuracy.stdev == pytest.approx(np.std(right, ddof=1), rel=1e-9, abs=1e-12)
    slope = torch.autograd.grad(each.mean(), list(model.parameters()))
    assert found.gradient_norm == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in slope)), rel=1e-12)


def test_the_gradient_by_some_weights_only():
    p = problem()
    params = {name: w.detach() for name, w in p.model(seed=1).named_parameters()}
    loss = p.loss_function()
    whole, one, other = (performance(loss, params, only=only).gradient_norm for only in (None, "weight", "bias"))
    assert whole == pytest.approx(math.hypot(one, other), rel=1e-6)
    assert performance(loss, params, gradient=False).gradient_norm is None


@pytest.mark.parametrize(("percent", "n"), [(100.0, 10), (0.0, 10), (98.0, 50), (50.0, 2)])
def test_wilsons_interval_solves_its_equation(percent, n):
    """Its ends are the shares p whose own standard error puts the observed share 1.96 of them away."""
    for end in (e / 100 for e in share(percent, n).interval):
        gap = percent / 100 - end
        assert gap**2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / n, rel=1e-9, abs=1e-14)


def test_a_plain_function_has_no_error():
    found = performance(lambda w: (w * w).sum(), torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert (found.loss.value, found.loss.n, found.loss.stdev, found.accuracy) == (25.0, 1, None, None)
    assert found.gradient_norm == pytest.approx(10.0)
    assert "gradient norm 10" in str(found)


def test_a_loss_that_is_not_finite_is_said():
    with pytest.raises(FloatingPointError, match="the loss is inf"):
        performance(lambda w: (w / 0).sum(), torch.ones(2))


def test_the_interval_of_a_loss_is_that_of_its_logarithm():
    """A few wrong answers among many right ones: mean 0.002, standard error 0.0016, and no negative end."""
    (low, high), method = mean_interval(0.002, 0.0016, positive=True)
    assert [math.log(low), math.log(high)] == pytest.approx(
        [math.log(0.002) - 1.959963984540054 * 0.8, math.log(0.002) + 1.959963984540054 * 0.8], rel=1e-12
    )
    assert "logarithm" in method
    (low, high), _ = mean_interval(5.0, 1e-3, positive=True)  # where the error is small, the usual interval
    assert [low, high] == pytest.approx([5 - 1.959963984540054e-3, 5 + 1.959963984540054e-3], abs=1e-6)
    (low, high), method = mean_interval(-1.0, 1.0, positive=False)
    assert ([low, high], method) == (
        pytest.approx([-2.959963984540054, 0.959963984540054]),
        "normal over samples, 95 %",
    )


def test_the_interval_of_a_skewed_loss_holds_the_mean_more_often_than_the_usual_one():
    """Losses e^(2 z): their mean is e^2. In 4,000 trials of 200 samples, so that a share is known to 0.008 or better."""
    losses = np.exp(2 * np.random.default_rng(5).standard_normal((4_000, 200)))
    rows = zip(losses.mean(1), losses.std(1, ddof=1) / math.sqrt(200), strict=True)
    held = np.array([
        [low <= math.exp(2) <= high for (low, high), _ in (mean_interval(m, e, positive=p) for p in (True, False))]
        for m, e in rows
    ])
    gain = held[:, 0].astype(float) - held[:, 1]
    assert gain.mean() > 5 * gain.std(ddof=1) / math.sqrt(len(gain))
    assert gain.mean() > 0.02


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_square"])
def test_no_loss_of_ours_has_an_interval_below_zero(loss):
    x = torch.tensor([[20.0, 0.0]] * 30 + [[-20.0, 0.0]])
    y = torch.zeros(31, dtype=torch.long) if loss == "cross_entropy" else torch.tensor([[20.0, 0.0]] * 31)
    p = gengap.Problem(model=lambda: nn.Linear(2, 2, bias=False), loss=loss, train=(x, y), test=(x, y))
    found = performance(p.loss_function(), {"weight": torch.eye(2)}).loss
    assert found.value - 1.96 * found.stderr < 0 < found.interval[0]
    assert "logarithm" in found.method
