# Oracle: least squares by numpy's solver; the mean over all batches of the corrected gradient is the full gradient.
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import SGD

from gengap.core.errors import BadInput
from gengap.optim.svrg import Svrg

RNG = np.random.default_rng(0)
A, Y = RNG.normal(size=(24, 4)), RNG.normal(size=24)
BEST = np.linalg.lstsq(A, Y, rcond=None)[0]


def slope(rows, w):
    return A[rows].T @ (A[rows] @ w - Y[rows]) / len(rows)


class Course:
    """Weights, a method and closures over rows of the data."""

    def __init__(self, start, make=Svrg, lr=0.02):
        self.w = torch.nn.Parameter(torch.tensor(start))
        self.optimizer = make([self.w], partial(SGD, lr=lr)) if make is Svrg else SGD([self.w], lr=lr)

    def closure(self, rows):
        def evaluate():
            self.optimizer.zero_grad()
            loss = 0.5 * ((torch.tensor(A[rows]) @ self.w - torch.tensor(Y[rows])) ** 2).mean()
            loss.backward()
            return loss

        return evaluate

    def snapshot(self):
        return self.optimizer.snapshot(self.closure(np.arange(24)))

    def corrected(self, rows):
        """The gradient that the base is given."""
        self.optimizer.step(self.closure(rows))
        return self.w.grad.numpy()


BATCHES = np.arange(24).reshape(8, 3)


def test_unbiased():
    start, apart = np.ones(4), np.array([0.5, -0.2, 0.1, 0.3])
    found = []
    for rows in BATCHES:
        course = Course(start, lr=0.0)
        course.snapshot()
        course.w.data += torch.tensor(apart)
        found.append(course.corrected(rows))
    np.testing.assert_allclose(np.mean(found, 0), slope(np.arange(24), start + apart), rtol=1e-12)
    plain = [slope(rows, start + apart) for rows in BATCHES]
    assert np.var(found, 0).sum() < 0.5 * np.var(plain, 0).sum()


def test_no_variance_at_a_snapshot_and_none_left_at_the_optimum():
    course = Course(BEST, lr=0.0)
    loss = course.snapshot()
    assert loss.item() == pytest.approx(0.5 * np.mean((A @ BEST - Y) ** 2))
    for rows in BATCHES:
        assert np.abs(slope(rows, BEST)).max() > 0.1
        np.testing.assert_allclose(course.corrected(rows), 0, atol=1e-14)


def test_a_constant_rate_goes_all_the_way():
    """SGD of the same rate stays at its noise; here the distance shrinks by a constant factor per epoch."""

    def distance(make):
        course, order = Course(np.zeros(4), make, lr=0.1), np.random.default_rng(1)
        for _ in range(60):
            if make is Svrg:
                course.snapshot()
            for rows in order.permutation(24).reshape(8, 3):
                course.optimizer.step(course.closure(rows))
        return np.abs(course.w.detach().numpy() - BEST).max()

    assert distance(SGD) > 1e-2
    assert distance(Svrg) < 1e-8


def test_needs_a_snapshot():
    with pytest.raises(BadInput, match=r"call snapshot\(closure of the whole set\) first"):
        Course(BEST).corrected(BATCHES[0])


def test_a_weight_that_only_some_batches_use():
    """No gradient at the snapshot counts as zero, none at the weights as a weight to leave alone."""
    used, idle = (torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = Svrg([used, idle], partial(SGD, lr=0.1))

    def of(*weights):
        def closure():
            optimizer.zero_grad()
            loss = sum((w**2).sum() for w in weights)
            loss.backward()
            return loss

        return closure

    optimizer.snapshot(of(used))
    optimizer.step(of(used))
    assert idle.item() == 1.0
    optimizer.step(of(idle))
    assert idle.item() == 1.0  # 2w - 2w at the snapshot + 0
    assert used.item() == pytest.approx(0.8)
