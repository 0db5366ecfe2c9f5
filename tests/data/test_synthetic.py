"""Oracle: the definition of the task (arXiv:1710.06451, fig. 1), recomputed from what is handed out."""

import math

import pytest
import torch

from gengap.core.catalogue import DATA
from gengap.core.errors import BadInput
from gengap.data.synthetic import informative, random_labels

BOTH = pytest.mark.parametrize("make", [informative, random_labels])


@BOTH
def test_each_feature_is_standardised_on_each_split(make):
    found = make(train=50, test=301, features=7)
    for inputs, _ in (found.train, found.test):
        x = inputs.double()
        torch.testing.assert_close(x.mean(0), torch.zeros(7, dtype=x.dtype), rtol=0, atol=1e-7)
        torch.testing.assert_close(x.square().mean(0), torch.ones(7, dtype=x.dtype), rtol=1e-6, atol=0)


def test_informative_labels_are_the_sign_of_the_sum():
    found = informative()
    for inputs, targets in (found.train, found.test):
        for row, target in zip(inputs[:500].tolist(), targets[:500].tolist(), strict=True):
            assert target == (math.fsum(row) > 0)


@BOTH
def test_sizes_are_those_of_the_catalogue(make):
    found = make()
    entry = DATA[found.name]
    assert entry.builder.endswith(f":{make.__name__}")
    assert (len(found.train[1]), len(found.test[1]), found.classes) == (entry.train, entry.test, entry.classes)
    assert found.train[0].shape == (entry.train, *entry.input_shape)
    assert (found.train[0].dtype, found.train[1].dtype) == (torch.float32, torch.int64)


@BOTH
def test_equal_seeds_give_equal_bits_and_others_do_not(make):
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    for one, two in zip((*first.train, *first.test), (*again.train, *again.test), strict=True):
        assert torch.equal(one, two)
    for one, two in zip((*first.train, *first.test), (*other.train, *other.test), strict=True):
        assert not torch.equal(one, two)


@BOTH
def test_the_splits_share_nothing(make):
    found = make(train=100, test=100)
    assert not torch.equal(found.train[0], found.test[0])
    assert not torch.equal(found.train[1], found.test[1])


@BOTH
def test_the_global_generator_is_neither_used_nor_moved(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = make(train=20, test=20)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(first.train[0], make(train=20, test=20).train[0])


def test_random_labels_are_fair_coins_that_know_nothing_of_the_inputs():
    n = 20_000
    informed, found = informative(train=n, test=2, features=20), random_labels(train=n, test=2, features=20)
    assert torch.equal(informed.train[0], found.train[0])
    error = math.sqrt(n) / 2  # standard deviation of a count of n fair coins
    assert abs(found.train[1].sum().item() - n / 2) < 5 * error
    assert abs((found.train[1] == informed.train[1]).sum().item() - n / 2) < 5 * error
    assert error / (n / 2) < 0.02  # a coin that is off by 10 % would fail


@BOTH
@pytest.mark.parametrize("sizes", [{"train": 1}, {"test": 0}, {"features": 0}])
def test_sizes_that_cannot_be_standardised_are_refused(make, sizes):
    with pytest.raises(BadInput, match="standardising needs at least 2"):
        make(**sizes)


@BOTH
def test_the_smallest_task_is_finite(make):
    found = make(train=2, test=2, features=1)
    assert found.train[0].abs().tolist() == [[1.0], [1.0]]
