"""Oracle: scikit-learn's own arrays, found again in the split row by row."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gengap.core.catalogue import DATA
from gengap.core.errors import BadInput
from gengap.data.digits import load


def rows(split):
    inputs, targets = split
    return [(*row, label) for row, label in zip((inputs.flatten(1) * 16).tolist(), targets.tolist(), strict=True)]


def test_the_split_holds_every_sample_once():
    found = load()
    pixels, labels = load_digits(return_X_y=True)
    original = [(*row, label) for row, label in zip(pixels.tolist(), labels.tolist(), strict=True)]
    assert sorted(rows(found.train) + rows(found.test)) == sorted(original)


def test_sizes_are_those_of_the_catalogue():
    found, entry = load(), DATA["digits"]
    assert (len(found.train[1]), len(found.test[1]), found.classes) == (entry.train, entry.test, entry.classes)
    assert found.train[0].shape[1:] == entry.input_shape
    assert (found.train[0].dtype, found.train[1].dtype) == (torch.float32, torch.int64)
    assert (found.train[0].min(), found.train[0].max()) == (0, 1)


def test_the_split_never_changes():
    # every published figure on digits rests on it
    order = np.random.RandomState(0).permutation(1797)
    assert order[:5].tolist() == [1081, 1707, 927, 713, 262]
    assert load().train[1][:5].tolist() == load_digits().target[order[:5]].tolist()


def test_a_smaller_training_set_is_part_of_a_larger():
    small, large = load(None, train_size=100), load("anywhere", train_size=500)
    assert torch.equal(small.train[0], large.train[0][:100])
    assert len(small.test[1]) == 1697


@pytest.mark.parametrize("size", [0, -3, 1797, 5000])
def test_a_split_without_samples_is_refused(size):
    with pytest.raises(BadInput, match=f"train_size is {size}.*choose 1 to 1796"):
        load(train_size=size)


def test_the_extreme_splits_work():
    assert len(load(train_size=1).train[1]) == 1
    assert len(load(train_size=1796).test[1]) == 1
