"""Oracle: cross-entropy against the smoothed targets, written out in numpy."""

import numpy as np
import pytest
import torch
from objective_networks import FEATURES, B, labels, mlp, numbers
from scipy.special import log_softmax

from gengap.core.errors import BadInput
from gengap.objectives.label_smoothing import smooth
from gengap.objectives.objective import plain
from gengap.problem.losses import LOSSES


def by_hand(outputs, targets, amount):
    """Cross-entropy of every sample."""
    n, classes = outputs.shape
    shares = np.full((n, classes), amount / classes)
    shares[np.arange(n), targets] += 1 - amount
    return -(shares * log_softmax(outputs.numpy(), 1)).sum(1)


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.9])
def test_every_class_gets_its_share(amount):
    outputs, targets, loss = numbers(B, 4), labels(), smooth(amount)
    expected = by_hand(outputs, targets, amount)
    np.testing.assert_allclose(loss.each(outputs, targets).numpy(), expected, rtol=1e-12)
    assert loss.mean(outputs, targets).item() == pytest.approx(expected.mean(), rel=1e-12)
    assert torch.equal(loss.correct(outputs, targets), LOSSES["cross_entropy"].correct(outputs, targets))


def test_positions_are_averaged_within_a_sample():
    outputs, targets = numbers(3, 4, 5), labels(15).view(3, 5)
    rows = by_hand(outputs.transpose(1, 2).reshape(15, 4), targets.flatten(), 0.2).reshape(3, 5).mean(1)
    np.testing.assert_allclose(smooth(0.2).each(outputs, targets).numpy(), rows, rtol=1e-12)
    assert smooth(0.2).mean(outputs, targets).item() == pytest.approx(rows.mean(), rel=1e-12)


def test_it_is_smallest_at_the_smoothed_targets_where_it_is_their_entropy():
    shares = np.array([0.7 + 0.1, 0.1, 0.1])
    outputs = torch.tensor(np.log(shares)).unsqueeze(0).requires_grad_()
    value = smooth(0.3).mean(outputs, torch.tensor([0]))
    value.backward()
    assert value.item() == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-12)
    assert outputs.grad.abs().max() < 1e-12


def test_it_is_a_loss_like_any_other():
    model, x, y = mlp(), numbers(B, FEATURES), labels()
    found = plain(model, smooth(0.1).mean, x, y)
    assert found.item() == pytest.approx(by_hand(model(x).detach(), y, 0.1).mean(), rel=1e-12)


@pytest.mark.parametrize("amount", [-0.1, 1.0, float("nan")])
def test_an_amount_out_of_range_is_refused(amount):
    with pytest.raises(BadInput, match=f"label smoothing is {amount}; give the share"):
        smooth(amount)
