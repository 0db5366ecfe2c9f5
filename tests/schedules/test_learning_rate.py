"""Oracles: the papers' tables of factors, typed here, and closed forms at their corners."""

import math

import pytest

from gengap.core.recipe import Recipe
from gengap.schedules.budget import plan
from gengap.schedules.lr import is_constant, learning_rate, told

N = 1000


def recipe(**changes):
    return Recipe(**{"lr": 0.8, "batch_size": 50, "budget": {"epochs": 40}, **changes})


def rates(made, seen, total=40 * N):
    return [learning_rate(made, s, training=N, total=total) for s in seen]


def test_constant():
    assert rates(recipe(), [0, 1, 17 * N, 40 * N]) == [0.8] * 4
    assert is_constant(recipe())


def test_steps_fall_exactly_at_their_milestones():
    made = recipe(schedule={"name": "step", "milestones": [10, 12.5, 30], "factor": 0.5})
    seen = [0, 9_999, 10_000, 12_499, 12_500, 29_999, 30_000, 40_000]
    assert rates(made, seen) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1]
    assert rates(made, seen, total=None) == rates(made, seen)
    tenth = recipe(schedule={"name": "step", "milestones": [1]})
    assert rates(tenth, [999, 1000]) == pytest.approx([0.8, 0.08])
    assert not is_constant(made)


@pytest.mark.parametrize("final", [0.0, 0.25, 1.0])
def test_cosine_ends(final):
    made = recipe(schedule={"name": "cosine", "final": final})
    start, quarter, half, end, beyond = rates(made, [0, 10_000, 20_000, 40_000, 50_000])
    assert start == 0.8
    assert quarter == pytest.approx(0.8 * (final + (1 - final) * (0.5 + math.sqrt(0.5) / 2)))
    assert half == pytest.approx(0.8 * (1 + final) / 2)
    assert end == pytest.approx(0.8 * final, abs=1e-16)
    assert beyond == end


def test_smith2020_halves_at_half_time_and_every_twentieth_after():
    """Smith, Elsen & De 2020: ten halvings, the first exactly at T / 2, the last factor 2**-10."""
    made = recipe(schedule="smith2020")
    table = [0] * 10 + [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  # halvings in each twentieth of the budget
    for twentieth, halvings in enumerate(table):
        begin = twentieth * 2000
        assert rates(made, [begin, begin + 1, begin + 1999]) == [0.8 * 2.0**-halvings] * 3
    assert rates(made, [40_000]) == [0.8 * 2.0**-10]


@pytest.mark.parametrize("total", [20 * k for k in (1, 3, 7, 11, 977, 50_000, 123_457)])
def test_smith2020_is_not_late_by_a_rounding_error(total):
    made = recipe(schedule="smith2020", lr=1.0)
    for k in range(10):
        border = total * (10 + k) // 20
        assert learning_rate(made, border, training=N, total=total) == 2.0 ** -(k + 1)
        assert learning_rate(made, border - 1, training=N, total=total) == 2.0**-k


def test_warmup_linear():
    made = recipe(warmup={"epochs": 5, "start": 0.2})
    assert rates(made, [0, 2_500, 4_999, 5_000, 39_000]) == pytest.approx([
        0.16,
        0.48,
        0.8 * (0.2 + 0.8 * 0.9998),
        0.8,
        0.8,
    ])
    assert rates(recipe(warmup={"epochs": 4}), [0, 1_000, 4_000]) == pytest.approx([0.0, 0.2, 0.8])
    assert not is_constant(made)


def test_warmup_constant():
    made = recipe(warmup={"epochs": 0.5, "start": 0.25, "shape": "constant"})
    assert rates(made, [0, 499, 500]) == [0.2, 0.2, 0.8]


def test_warmup_multiplies_the_schedule():
    made = recipe(warmup={"epochs": 20, "start": 0.5}, schedule={"name": "step", "milestones": [10], "factor": 0.1})
    assert rates(made, [10_000]) == pytest.approx([0.8 * 0.1 * 0.75])


def test_schedules_know_samples_and_not_steps():
    """Equal samples seen, equal rate, whatever the batch."""
    for schedule in ("cosine", "smith2020", {"name": "step", "milestones": [7]}):
        small, large = (recipe(schedule=schedule, batch_size=b, warmup={"epochs": 3}) for b in (10, 500))
        seen = range(0, 40 * N + 1, 500)
        assert rates(small, seen) == rates(large, seen)


def test_pieces_of_hoffer_et_al_wide_resnet():
    """The regime of their code: 0.1, then 0.02 at epoch 60, 4e-3 at 120, 1e-4 at 140."""
    made = recipe(lr=0.1, schedule={"name": "piecewise", "milestones": [60, 120, 140], "factors": [0.2, 0.04, 0.001]})
    seen = rates(made, [0, 59_999, 60_000, 119_999, 120_000, 139_999, 140_000, 199_000])
    assert seen == pytest.approx([0.1, 0.1, 0.02, 0.02, 4e-3, 4e-3, 1e-4, 1e-4])


def test_polynomial_of_you_et_al():
    made = recipe(schedule={"name": "polynomial", "power": 2, "final": 0.0})
    assert rates(made, [0, 10_000, 20_000, 40_000, 50_000]) == pytest.approx([0.8, 0.45, 0.2, 0, 0], abs=1e-15)
    linear = recipe(schedule={"name": "polynomial", "power": 1, "final": 0.5})
    assert rates(linear, [0, 20_000, 40_000]) == pytest.approx([0.8, 0.6, 0.4])


def test_slow_start_of_akiba_et_al():
    """arXiv:1711.04325: of 90 epochs 40 at 0.5, 30 at 0.075, 15 at 0.01, 5 at 0.001 times the rate."""
    made = recipe(lr=1.0, schedule="slow-start", budget={"epochs": 90})
    found = [rates(made, [epoch * N, epoch * N + N - 1], total=90 * N) for epoch in range(90)]
    table = [0.5] * 40 + [0.075] * 30 + [0.01] * 15 + [0.001] * 5
    assert found == [[factor, factor] for factor in table]


def test_goyal_et_al_warm_up_from_the_rate_of_the_reference():
    """Batch 8,192 for 256 at 0.1: 3.2, reached after 5 epochs from 0.1."""
    rule = {"name": "linear", "reference_batch": 256}
    made = recipe(lr=0.1, batch_size=8192, lr_rule=rule, warmup={"epochs": 5, "start": "reference"})
    assert rates(made, [0, 2_500, 5_000, 9_000]) == pytest.approx([0.1, 1.65, 3.2, 3.2])
    assert told(made) == "lr 0.1 becomes 3.2: linear rule, batch 8,192 for 256"


def test_square_root_and_momentum():
    rule = {"name": "sqrt", "reference_batch": 128}
    assert rates(recipe(lr=0.1, batch_size=2048, lr_rule=rule), [0]) == pytest.approx([0.4])
    effective = {"name": "linear", "reference_batch": 100, "reference_momentum": 0.9}
    made = recipe(lr=0.1, momentum=0.95, batch_size=200, lr_rule=effective)
    assert rates(made, [0]) == pytest.approx([0.1])  # twice the batch, half of 1 - m
    assert "momentum 0.95 for 0.9" in told(made)
    assert told(recipe()) == ""


@pytest.mark.parametrize(("batch", "reference"), [(1000, 32), (600, 32), (750, 32), (500, 5000)])
def test_regime_adaptation_drops_the_rate_at_the_updates_of_the_reference(batch, reference):
    """Counted on the batches themselves, ragged ones included: milestones 20 and 30 of 40 epochs."""
    made = recipe(batch_size=batch, regime_adaptation=reference, schedule={"name": "step", "milestones": [20, 30]})
    counted = plan(made, N)
    small = math.ceil(N / min(reference, N))
    seen, drops, before = 0, [], 0.8
    for update in range(counted.steps):
        rate = learning_rate(made, seen, training=N, total=counted.samples)
        if rate != before:
            drops.append(update)
        before, seen = rate, seen + min(batch, N - seen % N)
    assert drops == pytest.approx([20 * small, 30 * small], abs=1)


def test_regime_adaptation_stretches_milestones_and_warm_up():
    made = recipe(
        batch_size=400, regime_adaptation=100, schedule={"name": "step", "milestones": [10]}, warmup={"epochs": 2}
    )
    seen = rates(made, [0, 4_000, 8_000, 39_999, 40_000], total=160 * N)
    assert seen == pytest.approx([0, 0.4, 0.8, 0.8, 0.08])
