"""Oracles: counts (how many may change, how many do), and the binomial distribution with error bars fixed beforehand."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from gengap.core.errors import BadInput
from gengap.data.labels import randomise_labels

N, CLASSES = 20_000, 10


def labels(count=N, classes=CLASSES):
    return torch.arange(count) % classes


@given(count=st.integers(1, 200), share=st.floats(0, 1), seed=st.integers(0, 5))
def test_no_more_than_the_share_changes(count, share, seed):
    before = labels(count)
    kept = before.clone()
    after = randomise_labels(before, share, CLASSES, seed)
    assert torch.equal(before, kept)
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert (after != before).sum() <= round(share * count)
    assert after.min() >= 0
    assert after.max() < CLASSES
    assert torch.equal(after, randomise_labels(before, share, CLASSES, seed))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_exactly_the_share_is_drawn(share):
    """With labels that no draw gives, every drawn sample is seen to have changed."""
    assert (randomise_labels(labels() + CLASSES, share, CLASSES, 0) < CLASSES).sum() == round(share * N)


def test_drawn_labels_are_uniform_and_independent_of_the_old():
    after = randomise_labels(labels(), 1.0, CLASSES, 3)
    for chosen in (after, after[labels() == 4]):
        n = len(chosen)
        error = math.sqrt(n / CLASSES * (1 - 1 / CLASSES))
        assert (after[:n].bincount(minlength=CLASSES) - n / CLASSES).abs().max() < 5 * error
    same = (after == labels()).sum().item()
    assert abs(same - N / CLASSES) < 5 * math.sqrt(N / CLASSES * (1 - 1 / CLASSES))


def test_a_smaller_share_is_part_of_a_larger():
    some, more = (randomise_labels(labels() + CLASSES, share, CLASSES, 1) for share in (0.2, 0.6))
    drawn = some < CLASSES
    assert torch.equal(some[drawn], more[drawn])


def test_seeds_choose_other_samples():
    one, other = (randomise_labels(labels() + CLASSES, 0.3, CLASSES, seed) < CLASSES for seed in (0, 1))
    assert not torch.equal(one, other)


def test_all_positions_of_a_window_are_drawn():
    after = randomise_labels(torch.full((40, 6), 99), 0.25, CLASSES, 0)
    rows = (after < CLASSES).sum(1)
    assert sorted(rows.tolist()) == [0] * 30 + [6] * 10


@pytest.mark.parametrize(
    ("targets", "share", "classes", "says"),
    [
        (labels(5), 1.5, CLASSES, "the share of random labels is 1.5; choose 0 to 1"),
        (labels(5), -0.1, CLASSES, "choose 0 to 1"),
        (labels(5), float("nan"), CLASSES, "share of random labels is nan"),
        (torch.zeros(5), 0.5, CLASSES, "labels of torch.float32"),
        (labels(5), 0.5, 0, "with 0 classes"),
    ],
)
def test_what_cannot_be_randomised(targets, share, classes, says):
    with pytest.raises(BadInput, match=says):
        randomise_labels(targets, share, classes, 0)
