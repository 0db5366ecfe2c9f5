"""Sizes of batches. Oracle: the rules written out by hand, and counting what was cut."""

import math

import pytest
from hypothesis import given, strategies as st

from gengap.core.recipe import Recipe
from gengap.core.recipe.schedules import BatchDynamic
from gengap.schedules.batch import batch_size_at, epoch_sizes, wanted_size
from gengap.schedules.budget import plan


def recipe(size, schedule, **more):
    return Recipe(**{"lr": 1, "batch_size": size, "budget": {"epochs": 3}, "batch_schedule": schedule, **more})


def test_smith_et_al_grow_where_others_decay():
    """arXiv:1711.00489, section 5.1: batch 128, times 5 at epochs 60, 120 and 160."""
    made = recipe(128, {"name": "step", "milestones": [60, 120, 160], "factor": 5})
    seen = [batch_size_at(made, epochs, training=50_000) for epochs in (0, 59.9, 60, 119, 120, 160, 200)]
    assert seen == [128, 128, 640, 640, 3200, 16_000, 16_000]
    capped = recipe(128, {"name": "step", "milestones": [60], "factor": 5, "limit": 300})
    assert batch_size_at(capped, 61, training=50_000) == 300
    assert batch_size_at(made, 161, training=4000) == 4000


def test_geometric_growth_is_smooth():
    made = recipe(10, {"name": "geometric", "growth": 2.0})
    assert [batch_size_at(made, k / 2, training=10**6) for k in range(5)] == [10, 14, 20, 28, 40]


def test_switching_back_and_forth():
    made = recipe(8, {"name": "switch", "milestones": [1, 2], "sizes": [100, 8]})
    assert [list(epoch_sizes(made, epoch, training=20)) for epoch in range(3)] == [[8, 8, 4], [20], [8, 8, 4]]
    dropping = made.changed(drop_last=True)
    assert [list(epoch_sizes(dropping, epoch, training=20)) for epoch in range(3)] == [[8, 8], [20], [8, 8]]


SCHEDULES = st.one_of(
    st.builds(
        lambda at, factor: {"name": "step", "milestones": sorted(at), "factor": factor},
        st.sets(st.floats(0.1, 4), min_size=1, max_size=3),
        st.floats(0.3, 5),
    ),
    st.builds(lambda growth: {"name": "geometric", "growth": growth}, st.floats(1.01, 6)),
    st.builds(lambda size: {"name": "switch", "milestones": [0.7], "sizes": [size]}, st.integers(1, 300)),
)


@given(SCHEDULES, st.integers(1, 200), st.data())
def test_an_epoch_is_filled_and_the_plan_counts_what_is_cut(schedule, training, data):
    size = data.draw(st.integers(1, training))
    made = recipe(size, schedule)
    epochs = [list(epoch_sizes(made, epoch, training=training)) for epoch in range(3)]
    assert all(sum(sizes) == training and min(sizes) >= 1 for sizes in epochs)
    counted = plan(made, training)
    assert counted.steps == sum(map(len, epochs))
    assert counted.samples == 3 * training
    rest = list(epoch_sizes(made, 1, training=training, position=epochs[1][0]))
    assert rest == epochs[1][1:]
    steps = data.draw(st.integers(1, counted.steps))
    by_steps = plan(made.changed(budget={"steps": steps}), training)
    assert by_steps.steps == steps
    assert by_steps.samples == sum([b for sizes in epochs for b in sizes][:steps])


def test_byrd_et_al_grow_as_noise_asks_for():
    """The batch at which tr(Sigma) / B is theta^2 |G|^2."""
    rule = BatchDynamic(name="dynamic", theta=0.5, growth=4.0, limit=900)
    assert wanted_size(rule, 100, trace=50.0, squared_norm=1.0, training=10**6) == 200
    assert wanted_size(rule, 100, trace=1.0, squared_norm=1.0, training=10**6) == 100  # never falls
    assert wanted_size(rule, 100, trace=1e9, squared_norm=1.0, training=10**6) == 400
    assert wanted_size(rule, 500, trace=1e9, squared_norm=1.0, training=10**6) == 900
    assert wanted_size(rule, 100, trace=5.0, squared_norm=-1.0, training=10**6) == 400  # noise hides the gradient
    assert wanted_size(rule, 100, trace=-1.0, squared_norm=1.0, training=10**6) == 100
    assert wanted_size(rule, 100, trace=1e9, squared_norm=1.0, training=150) == 150


@pytest.mark.parametrize(("batch", "reference"), [(48, 12), (50, 12), (12, 12), (7, 12)])
def test_regime_adaptation_keeps_the_number_of_updates(batch, reference):
    made = Recipe(lr=1, batch_size=batch, regime_adaptation=reference, budget={"epochs": 5})
    small = Recipe(lr=1, batch_size=reference, budget={"epochs": 5})
    assert plan(made, 100).steps == plan(small, 100).steps == 5 * math.ceil(100 / reference)
    coded = plan(made.changed(quirks="bigbatch"), 100)
    assert coded.steps == 5 * math.ceil(batch / reference) * math.ceil(100 / batch)
