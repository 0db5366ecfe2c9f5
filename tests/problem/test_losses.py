"""Oracle: the formulas in plain Python floats, and answers counted by eye."""

import math

import pytest
import torch
from torch import nn

from gengap.core.errors import BadInput
from gengap.problem.losses import LOSSES, as_loss

SCORES = [[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 5.0, -1.0], [0.5, 0.25, 0.0]]
LABELS = [0, 2, 0, 1]


def tensor(x, dtype=torch.float64):
    return torch.tensor(x, dtype=dtype)


def test_cross_entropy_is_a_mean_in_nats():
    found = LOSSES["cross_entropy"].mean(tensor(SCORES), torch.tensor(LABELS))
    exact = [math.log(sum(map(math.exp, row))) - row[k] for row, k in zip(SCORES, LABELS, strict=True)]
    assert found.item() == pytest.approx(sum(exact) / 4, rel=1e-14)
    assert LOSSES["cross_entropy"].correct(tensor(SCORES), torch.tensor(LABELS)).item() == 2


@pytest.mark.parametrize("column", [False, True], ids=["(N,)", "(N, 1)"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float32])
def test_binary_cross_entropy(column, dtype):
    logits, labels = [2.0, -1.0, 0.5, -3.0], [1, 1, 0, 0]
    outputs = tensor(logits)[:, None] if column else tensor(logits)
    found = LOSSES["binary_cross_entropy"].mean(outputs, tensor(labels, dtype))
    exact = [math.log1p(math.exp(-z if y else z)) for z, y in zip(logits, labels, strict=True)]
    assert found.item() == pytest.approx(sum(exact) / 4, rel=1e-14)
    assert LOSSES["binary_cross_entropy"].correct(outputs, tensor(labels, dtype)).item() == 2


def test_of_several_positions_the_share_that_is_right_counts():
    """Two windows of three positions, two and one of them right: one sample in all; the loss is a mean over all six."""
    scores = tensor([SCORES[:3], SCORES[1:]]).transpose(1, 2)
    labels = torch.tensor([[0, 2, 0], [2, 0, 1]])
    assert LOSSES["cross_entropy"].correct(scores, labels).item() == pytest.approx((2 + 1) / 3)
    rows = [(SCORES[i + shift], int(labels[shift, i])) for shift in range(2) for i in range(3)]
    exact = sum(math.log(sum(map(math.exp, row))) - row[k] for row, k in rows) / 6
    assert LOSSES["cross_entropy"].mean(scores, labels).item() == pytest.approx(exact, rel=1e-14)
    torch.testing.assert_close(LOSSES["cross_entropy"].losses(scores, labels).mean().item(), exact)


def test_binary_cross_entropy_of_pixels_has_no_right_answers():
    logits, pixels = tensor([[2.0, -1.0], [0.5, 0.0]]), tensor([[1.0, 0.25], [0.5, 0.0]])
    exact = [p * math.log1p(math.exp(-z)) + (1 - p) * math.log1p(math.exp(z))
             for z, p in zip([2.0, -1.0, 0.5, 0.0], [1.0, 0.25, 0.5, 0.0], strict=True)]  # fmt: skip
    assert LOSSES["binary_cross_entropy"].mean(logits, pixels).item() == pytest.approx(sum(exact) / 4, rel=1e-14)
    assert LOSSES["binary_cross_entropy"].correct(logits, pixels) is None


def test_mean_square_is_a_mean_over_outputs():
    outputs, targets = tensor([[1.0, 2.0], [0.0, -1.0]]), tensor([[0.0, 2.0], [3.0, 1.0]])
    assert LOSSES["mean_square"].mean(outputs, targets).item() == pytest.approx((1 + 0 + 9 + 4) / 4)
    assert LOSSES["mean_square"].mean(outputs[:, :1], targets[:, 0]).item() == pytest.approx((1 + 9) / 2)
    assert LOSSES["mean_square"].correct(outputs, targets) is None
    with pytest.raises(RuntimeError):
        LOSSES["mean_square"].mean(outputs, targets[:, 0])


def test_answers_of_a_users_loss_are_counted_where_targets_are_labels():
    loss = as_loss(nn.functional.cross_entropy)
    assert loss.name == "cross_entropy"
    assert loss.correct(tensor(SCORES), torch.tensor(LABELS)).item() == 2
    assert loss.correct(tensor(SCORES), tensor(SCORES)) is None
    assert loss.correct(tensor(SCORES)[:, 0], torch.tensor(LABELS)) is None


def test_labels_of_pixels_count_by_their_share():
    maps = tensor(SCORES).T[None]  # (1, C, 4)
    assert as_loss("cross_entropy").correct(maps, torch.tensor([LABELS])).item() == 2 / 4


@pytest.mark.parametrize(("given", "says"), [("crossentropy", "no loss called 'crossentropy'"), (3, "loss is 3")])
def test_losses_that_are_none(given, says):
    with pytest.raises(BadInput) as caught:
        as_loss(given)
    assert says in str(caught.value)
    assert all(name in str(caught.value) for name in LOSSES)
