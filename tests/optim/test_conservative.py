# Oracle: the proximal point (H + lam I)^-1 (H c + lam x) of a quadratic; torch's own Adam driven by hand.
from functools import partial

import pytest
import torch
from torch.optim import LBFGS, SGD, Adagrad, Adam

from gengap.core.errors import BadInput
from gengap.optim.conservative import Conservative
from gengap.optim.lbfgs import Lbfgs

H = torch.tensor([[3.0, 0.7, 0.0], [0.7, 1.0, -0.3], [0.0, -0.3, 0.2]], dtype=torch.float64)
C = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
X = torch.tensor([-1.5, 0.3, 2.0], dtype=torch.float64)
SOLVERS = {
    "gradient descent": (partial(SGD, lr=0.3), {"inner_steps": 300}, 1e-8),
    "l-bfgs of torch": (
        partial(LBFGS, max_iter=40, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"),
        {"inner_steps": 1, "fresh": True},
        1e-8,
    ),
    "l-bfgs for groups": (
        partial(Lbfgs, max_iter=40),
        {"inner_steps": 1, "fresh": True},
        3e-5,
    ),  # stops where the loss does
}


def trained(base, steps, start=X, **options):
    w = torch.nn.Parameter(start.clone())
    optimizer = Conservative([w], base, **options)

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (w - C) @ H @ (w - C)
        loss.backward()
        return loss

    losses = [optimizer.step(closure) for _ in range(steps)]
    return w.detach(), losses


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_solved_well_it_is_the_proximal_point(solver, lam):
    base, options, error = SOLVERS[solver]
    wanted = X
    for _ in range(3):
        wanted = torch.linalg.solve(H + lam * torch.eye(3), H @ C + lam * wanted)
    found, losses = trained(base, 3, lam=lam, **options)
    torch.testing.assert_close(found, wanted, rtol=0, atol=error)
    torch.testing.assert_close(losses[0], 0.5 * (X - C) @ H @ (X - C))


def test_one_inner_step_is_the_base():
    """The pull is zero where a sub-problem begins."""
    near, _ = trained(partial(SGD, lr=0.1), 5, lam=1e3, inner_steps=1)
    far, _ = trained(partial(SGD, lr=0.1), 5, lam=0.0, inner_steps=1)
    assert torch.equal(near, far)


def test_a_strong_pull_holds():
    held, _ = trained(partial(SGD, lr=1e-3), 1, lam=500.0, inner_steps=200)
    free, _ = trained(partial(SGD, lr=1e-3), 1, lam=0.0, inner_steps=200)
    assert (held - X).norm() < 0.1 * (free - X).norm()


@pytest.mark.parametrize("fresh", [False, True])
def test_adam_lives_on_or_begins_anew(fresh):
    w = X.clone().requires_grad_()
    adam = Adam([w], lr=0.05)
    for _ in range(4):
        if fresh:
            adam = Adam([w], lr=0.05)
        x = w.detach().clone()
        for _ in range(3):
            w.grad = H @ (w.detach() - C) + 0.7 * (w.detach() - x)
            adam.step()
    found, _ = trained(partial(Adam, lr=0.05), 4, lam=0.7, inner_steps=3, fresh=fresh)
    torch.testing.assert_close(found, w.detach(), rtol=1e-12, atol=0)


def test_a_base_that_is_born_with_a_state():
    """Fresh Adagrad: the first inner step of every sub-problem is lr times the sign of the gradient."""
    found, _ = trained(partial(Adagrad, lr=0.01), 3, inner_steps=1, fresh=True)
    wanted = X
    for _ in range(3):
        wanted = wanted - 0.01 * (H @ (wanted - C)).sign()
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=0)


def test_fresh_is_what_the_base_was_when_it_was_given():
    """Momentum from before: each sub-problem starts with it, and on a flat loss moves by lr * 0.9 of it."""
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    sgd = SGD([w], lr=0.1, momentum=0.9)
    w.grad = torch.ones_like(w)
    sgd.step()
    optimizer = Conservative([w], sgd, lam=0.0, inner_steps=1, fresh=True)

    def flat():
        optimizer.zero_grad()
        loss = (0 * w).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(flat)
    assert w.item() == pytest.approx(-0.1 - 3 * 0.09)


def test_groups_have_their_own_pull():
    a, b = (torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(2))
    optimizer = Conservative(
        [{"params": [a]}, {"params": [b], "conservative_lam": 4.0}], partial(SGD, lr=0.1), lam=1.0, inner_steps=400
    )

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (a**2 + b**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert a.item() == pytest.approx(1 / 2)
    assert b.item() == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lam": -1.0}, "lam is"),
        ({"inner_steps": 0}, "inner_steps is 0"),
        ({"base": LBFGS}, "LBFGS would use on one batch .* give fresh=True"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(BadInput, match=words):
        Conservative([torch.nn.Parameter(X)], **{"base": partial(SGD, lr=0.1), **options})
