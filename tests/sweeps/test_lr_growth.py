"""Grids of learning rates that grow. Oracle: grids written out by hand, and a metric whose optimum is known."""

import math

import pytest

from gengap.fitting.table import RunRecord
from gengap.studies.sweep import Extension
from gengap.sweeps.lr_growth import NOWHERE, Growth, grown, next_growth, wanted

RATES = [0.1, 0.2, 0.4]


def test_grids_grow_by_their_own_ratio():
    assert grown(RATES, NOWHERE) == RATES
    assert grown(RATES, Growth(2, 1)) == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8]
    assert grown([0.1, 0.3, 1.5], Growth(1, 2)) == [0.0333333333333, 0.1, 0.3, 1.5, 7.5, 37.5]
    assert grown([0.03, 0.09], Growth(above=1)) == [0.03, 0.09, 0.27]


def runs(accuracies, *, seeds=(0.0,)):
    """One run for each learning rate and seed; an accuracy of None diverged, of "" failed."""
    outcomes = {None: "diverged", "": "failed"}
    return [
        RunRecord(
            batch_size=8,
            lr=lr,
            outcome=outcomes.get(accuracy, "finished"),
            validation_accuracy=accuracy + shift if isinstance(accuracy, float) else None,
            validation_loss=-(accuracy + shift) if isinstance(accuracy, float) else None,
        )
        for lr, accuracy in accuracies.items()
        for shift in seeds
    ]


BELOW, ABOVE = Growth(below=1), Growth(above=1)
FOUND = {
    "inside": ({0.1: 1.0, 0.2: 2.0, 0.4: 1.0}, NOWHERE),
    "at the lower edge": ({0.1: 3.0, 0.2: 2.0, 0.4: 1.0}, BELOW),
    "at the upper edge": ({0.1: 1.0, 0.2: 2.0, 0.4: 3.0}, ABOVE),
    "beyond it all diverge": ({0.1: 1.0, 0.2: 2.0, 0.4: None}, NOWHERE),
    "all but the lowest diverge": ({0.1: 1.0, 0.2: None, 0.4: None}, BELOW),
    "all diverge": ({0.1: None, 0.2: None, 0.4: None}, BELOW),
    "all fail": ({0.1: "", 0.2: "", 0.4: ""}, NOWHERE),
    "some fail": ({0.1: "", 0.2: None, 0.4: None}, NOWHERE),
    "one rate": ({0.1: 1.0}, NOWHERE),
}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("measure", ["validation_accuracy", "validation_loss"])
def test_where_the_best_is(name, measure):
    accuracies, growth = FOUND[name]
    assert wanted(runs(accuracies), measure) == growth
    assert wanted(runs(accuracies, seeds=(-0.3, 0.3)), measure) == growth


def test_the_mean_over_seeds_decides():
    records = runs({0.1: 1.0, 0.2: 2.0, 0.4: 1.0}) + runs({0.1: 9.0, 0.2: 2.0, 0.4: 1.0})
    assert wanted(records, "validation_accuracy") == BELOW


def test_a_grid_follows_a_known_optimum():
    """Accuracy is a parabola in log2(lr) with its top at 0.1 * 2^6: the grid must take it between two neighbours."""
    growth, rule, rounds = {"cell": NOWHERE}, Extension(limit=10), 0
    while True:
        rates = grown(RATES, growth["cell"])
        records = runs({lr: -((math.log2(lr / 0.1) - 6) ** 2) for lr in rates})
        larger = next_growth(growth, {"cell": wanted(records, "validation_accuracy")}, rule)
        if larger == growth:
            break
        growth, rounds = larger, rounds + 1
    assert rounds == 5
    assert rates == [0.1 * 2**k for k in range(8)]


def test_the_limit_holds_for_every_cell():
    now = {"a": Growth(0, 3), "b": Growth(2, 2), "c": NOWHERE}
    steps = {"a": ABOVE, "b": ABOVE, "c": NOWHERE}
    assert next_growth(now, steps, Extension(limit=4)) == {"a": Growth(0, 4), "b": Growth(2, 2), "c": NOWHERE}
    assert next_growth(now, steps, Extension(limit=0)) == now


def test_all_grow_with_one():
    now = {"a": NOWHERE, "b": NOWHERE}
    rule = Extension(limit=2, all=True)
    assert next_growth(now, {"a": ABOVE, "b": NOWHERE}, rule) == {"a": ABOVE, "b": ABOVE}
    assert next_growth(now, {"a": ABOVE, "b": BELOW}, rule) == {"a": Growth(1, 1), "b": Growth(1, 1)}
    nearly = {"a": ABOVE, "b": ABOVE}
    assert next_growth(nearly, {"a": BELOW, "b": ABOVE}, rule) == {"a": Growth(0, 2), "b": Growth(0, 2)}
    full = {"a": Growth(0, 2), "b": Growth(0, 2)}
    assert next_growth(full, {"a": ABOVE, "b": NOWHERE}, rule) == full
