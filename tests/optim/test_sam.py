# Oracle: the closed form on 1/2 x'Hx, where the gradient at the highest point of the ball is H(x + rho Hx / |Hx|).
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import SGD

from gengap.core.errors import BadInput
from gengap.optim.sam import Sam

H = torch.tensor([[3.0, 0.7, 0.0], [0.7, 1.0, -0.3], [0.0, -0.3, 0.2]], dtype=torch.float64)
X = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
RATE = 0.1


def one_step(sizes=(3,), start=X, groups=None, **options):
    """Take one step on the quadratic, with the weights in tensors of these sizes."""
    weights = [torch.nn.Parameter(part.clone()) for part in start.split(list(sizes))]
    optimizer = Sam(groups(weights) if groups else weights, partial(SGD, lr=RATE), **options)

    def closure():
        optimizer.zero_grad()
        w = torch.cat(weights)
        loss = 0.5 * w @ H @ w
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.cat(weights).detach()


@pytest.mark.parametrize("sizes", [(3,), (1, 2), (1, 1, 1)])
def test_the_norm_is_over_all_weights(sizes):
    g = H @ X
    wanted = X - RATE * H @ (X + 0.4 * g / g.norm())
    torch.testing.assert_close(one_step(sizes, rho=0.4), wanted, rtol=1e-14, atol=0)


def test_adaptive():
    g, scale = H @ X, X.abs() + 0.03
    wanted = X - RATE * H @ (X + 0.4 * scale**2 * g / (scale * g).norm())
    torch.testing.assert_close(one_step((1, 2), rho=0.4, adaptive=True, eta=0.03), wanted, rtol=1e-14, atol=0)


def test_a_group_that_does_not_climb():
    """It still counts in the norm."""
    g = H @ X
    climb = 0.4 * g / g.norm() * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    found = one_step((1, 2), groups=lambda w: [{"params": w[:1]}, {"params": w[1:], "sam_rho": 0.0}], rho=0.4)
    torch.testing.assert_close(found, X - RATE * H @ (X + climb), rtol=1e-14, atol=0)


def test_a_group_that_is_not_adaptive():
    g, scale = H @ X, torch.tensor([X[0].abs().item() + 0.01, 1.0, 1.0], dtype=torch.float64)
    climb = 0.4 * scale**2 * g / (scale * g).norm()
    groups = lambda w: [{"params": w[:1]}, {"params": w[1:], "sam_adaptive": False}]  # noqa: E731
    found = one_step((1, 2), groups=groups, rho=0.4, adaptive=True)
    torch.testing.assert_close(found, X - RATE * H @ (X + climb), rtol=1e-14, atol=0)


@pytest.mark.parametrize("adaptive", [False, True])
def test_stays_at_a_critical_point(adaptive):
    assert torch.equal(one_step(start=torch.zeros_like(X), adaptive=adaptive), torch.zeros_like(X))


def test_without_a_ball_it_is_the_base():
    assert torch.equal(one_step(rho=0.0), X - RATE * (H @ X))


def test_the_adaptive_ball_does_not_see_a_change_of_units():
    """With eta = 0 the highest loss is that of the same function, whatever the scale of each weight."""

    def highest(units):
        w = torch.nn.Parameter(X / units)
        seen = []

        def closure():
            optimizer.zero_grad()
            loss = 0.5 * (w * units) @ H @ (w * units)
            loss.backward()
            seen.append(loss.item())
            return loss

        optimizer = Sam([w], partial(SGD, lr=0.1), rho=0.5, adaptive=True, eta=0.0)
        optimizer.step(closure)
        return seen[1]

    one, other = highest(torch.ones(3)), highest(torch.tensor([10.0, 0.1, 3.0], dtype=torch.float64))
    assert one == pytest.approx(other, rel=1e-12)
    assert one > 1.2 * (0.5 * X @ H @ X).item()


@pytest.mark.parametrize("options", [{"rho": -0.1}, {"rho": np.nan}, {"eta": -1.0}])
def test_refuses(options):
    with pytest.raises(BadInput, match="give a finite number, 0 or above"):
        Sam([torch.nn.Parameter(X)], partial(SGD, lr=0.1), **options)
