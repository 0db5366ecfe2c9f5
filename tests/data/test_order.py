"""Oracle: counting (every index once), and values written down on the day this was made."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gengap.core.errors import BadInput
from gengap.data.order import permutation, subset


@settings(deadline=None)  # slow machines stall
@given(st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 300))
def test_every_sample_comes_once_an_epoch(seed, epoch, n):
    found = permutation(seed, epoch, n)
    assert found.dtype == torch.int64
    assert sorted(found.tolist()) == list(range(n))


def test_seed_and_epoch_decide_and_nothing_else():
    first = permutation(7, 3, 100)
    torch.manual_seed(123)
    permutation(0, 0, 10)
    assert torch.equal(first, permutation(7, 3, 100))
    assert not torch.equal(first, permutation(7, 4, 100))
    assert not torch.equal(first, permutation(8, 3, 100))


def test_asking_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    permutation(0, 0, 50)
    subset(0, 50, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_the_order_of_a_recorded_run_can_be_made_again():
    assert permutation(0, 0, 10).tolist() == [2, 0, 1, 4, 5, 8, 7, 6, 9, 3]
    assert subset(0, 100, 5).tolist() == [39, 42, 68, 82, 88]


def test_every_position_is_as_likely_as_any_other():
    """Where sample 0 goes over 4,000 epochs: a count of n fair draws with p = 1/4 has deviation sqrt(n p (1 - p))."""
    n = 4000
    places = torch.stack([permutation(1, epoch, 4) for epoch in range(n)]).eq(0).sum(0)
    deviation = (n * 0.25 * 0.75) ** 0.5
    assert (places - n / 4).abs().max() < 5 * deviation
    assert deviation / (n / 4) < 0.03


@settings(deadline=None)  # slow machines stall
@given(st.integers(0, 2**40), st.data())
def test_a_subset_is_sorted_without_repetition_and_part_of_larger_ones(seed, data):
    n = data.draw(st.integers(1, 200))
    size = data.draw(st.integers(1, n))
    found = subset(seed, n, size).tolist()
    assert len(found) == size
    assert found == sorted(set(found))
    assert set(found) <= set(subset(seed, n, data.draw(st.integers(size, n))).tolist())
    assert 0 <= found[0] <= found[-1] < n


def test_subsets_differ_between_seeds_and_from_the_first_epoch():
    assert not torch.equal(subset(0, 1000, 50), subset(1, 1000, 50))
    assert not torch.equal(subset(0, 1000, 50), permutation(0, 0, 1000)[:50].sort().values)


@pytest.mark.parametrize(("epoch", "n"), [(-1, 10), (0, 0), (0, -5)])
def test_an_order_of_nothing_is_refused(epoch, n):
    with pytest.raises(BadInput, match=f"epoch {epoch} of {n} samples"):
        permutation(0, epoch, n)


@pytest.mark.parametrize(("n", "size"), [(10, 0), (10, 11), (0, 0), (10, -1)])
def test_a_subset_that_cannot_be_is_refused(n, size):
    with pytest.raises(BadInput, match=f"cannot choose {size} of {n} samples"):
        subset(0, n, size)
