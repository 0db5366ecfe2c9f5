"""Oracle: a loop that trains nothing and counts every update and sample; properties by hypothesis."""

import pytest
from hypothesis import given, settings, strategies as st

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.schedules.budget import Plan, evaluation_steps, plan


def counted(training, size, drop_last, epochs=None, steps=None):
    """Go through epochs batch by batch; returns (updates per epoch, updates, samples)."""
    per_epoch, updates, samples, epoch = 0, 0, 0, 0
    while epoch != epochs and updates != steps:
        left = training
        while left and updates != steps:
            batch = min(size, left)
            if batch < size and drop_last:
                break
            left, updates, samples = left - batch, updates + 1, samples + batch
        epoch += 1
    left = training
    while left >= (size if drop_last else 1):
        left, per_epoch = left - min(size, left), per_epoch + 1
    return per_epoch, updates, samples


@settings(max_examples=150, deadline=None)
@given(data=st.data(), training=st.integers(1, 60), drop_last=st.booleans(), length=st.integers(1, 40))
def test_plan_is_what_a_loop_counts(data, training, drop_last, length):
    size = data.draw(st.integers(1, training))
    fields = {"lr": 1, "batch_size": size, "drop_last": drop_last}
    for unit in ("epochs", "steps"):
        found = plan(Recipe(**fields, budget={unit: length}), training)
        exact = counted(training, size, drop_last, **{unit: length})
        assert (found.per_epoch, found.steps, found.samples) == exact
        assert found.batch_size == size
    until = plan(Recipe(**fields, budget={"converged": {"max_epochs": length}}), training)
    per_epoch, updates, _ = counted(training, size, drop_last, epochs=length)
    assert (until.per_epoch, until.steps, until.samples) == (per_epoch, updates, None)


def test_published_numbers_of_updates():
    """Keskar: 60,000 images in batches of 256 and 10 %; Smith et al.: 9,765 = floor(200 * 50,000 / 1,024) updates."""
    small, large = (Recipe(lr=1, batch_size=b, budget={"epochs": 20}) for b in (256, "10%"))
    assert (plan(small, 60_000).per_epoch, plan(small, 60_000).samples) == (235, 1_200_000)
    assert (plan(large, 60_000).per_epoch, plan(large, 60_000).batch_size) == (10, 6_000)
    steps = Recipe(lr=1, batch_size=1024, drop_last=True, budget={"steps": 9765})
    assert plan(steps, 50_000).samples == 9765 * 1024


def test_a_batch_larger_than_the_data():
    with pytest.raises(BadInput, match="batch_size is 33, but there are only 32 training samples"):
        plan(Recipe(lr=1, batch_size=33, budget={"epochs": 1}), 32)


@settings(max_examples=300, deadline=None)
@given(steps=st.integers(1, 5000), per_epoch=st.integers(1, 300), evaluations=st.integers(1, 60))
def test_evaluations(steps, per_epoch, evaluations):
    found = evaluation_steps(Plan(1, per_epoch, steps, None), evaluations)
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert found[-1] == steps
    assert len(found) <= evaluations
    whole = steps >= per_epoch * evaluations or steps % per_epoch == 0
    if whole:
        assert all(step % per_epoch == 0 for step in found[:-1])
        assert len(found) == min(evaluations, steps // per_epoch)
    else:
        assert len(found) == min(evaluations, steps)
    gaps = [b - a for a, b in zip([0, *found[:-1]], found, strict=True)]
    unit = per_epoch if whole else 1
    assert max(gaps[:-1], default=0) - min(gaps[:-1], default=0) <= unit


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ((20, 5, 4), [5, 10, 15, 20]),
        ((20, 5, 2), [10, 20]),
        ((20, 5, 20), [5, 10, 15, 20]),
        ((3, 10, 20), [1, 2, 3]),
        ((10, 10, 1), [10]),
        ((105, 10, 10), [10, 20, 30, 40, 50, 60, 70, 80, 90, 105]),
        ((47, 10, 20), [2, 5, 7, 9, 12, 14, 16, 19, 21, 24, 26, 28, 31, 33, 35, 38, 40, 42, 45, 47]),
    ],
)
def test_evaluations_by_hand(given_, expected):
    assert evaluation_steps(Plan(1, given_[1], given_[0], None), given_[2]) == expected
