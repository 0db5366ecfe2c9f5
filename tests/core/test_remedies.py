"""Remedies as fields of a recipe. Oracle: the fields written out by hand."""

import pytest

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.remedies import REMEDIES, fields_of, names_of, text_of

SHARED = {"optimizer": "sgd", "lr": 0.1, "budget": {"epochs": 20}}


@pytest.mark.parametrize("name", [name for name in REMEDIES if name != "none"])
def test_every_remedy_is_a_recipe_that_differs(name):
    plain = Recipe(**SHARED, batch_size=1000)
    made = Recipe(**{**SHARED, "batch_size": 1000, **fields_of(name, SHARED, small=32, large=1000)})
    assert made.key != plain.key
    assert text_of(name)


def test_together():
    found = fields_of("sqrt-lr+warmup+ghost-bn", SHARED, small=32, large=1000)
    assert found == {
        "lr_rule": {"name": "sqrt", "reference_batch": 32},
        "warmup": {"epochs": 5, "start": "reference"},
        "ghost_batch": 32,
    }
    grown = fields_of("grow-batch", SHARED, small=32, large=1000)
    schedule = {"name": "switch", "milestones": [5.0], "sizes": [1000]}
    assert grown == {"batch_size": 32, "batch_schedule": schedule}


def test_names():
    assert names_of("none, sqrt-lr,sam,sqrt-lr") == ("sqrt-lr", "sam")
    columns = ("sqrt-lr+clip", "sqrt-lr+clip+ghost-bn", "sqrt-lr+clip+ghost-bn+regime-adaptation")
    assert names_of("hoffer") == columns


def test_blanks_and_none_in_joined_names():
    assert names_of("none+none, none") == ()
    assert names_of("none+sqrt-lr, sqrt-lr + clip ,sqrt-lr+clip,sam+sam") == ("sqrt-lr", "sqrt-lr+clip", "sam")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sam+clip+conservative", "sam and conservative both set method; join only one"),
        ("sqrt-lr+linear-lr", "sqrt-lr and linear-lr both set lr_rule"),
        ("augment+crop-flip", "augment and crop-flip both set augment"),
        ("grow-batch+linear-lr", "linear-lr goes by the first batch, which with grow-batch is the small one"),
        ("sqrt-lr+dynamic-batch", "sqrt-lr goes by the first batch, which with dynamic-batch is the small one"),
    ],
)
def test_remedies_that_do_not_go_together(name, said):
    with pytest.raises(BadInput, match=said):
        fields_of(name, SHARED, small=32, large=1000)


@pytest.mark.parametrize(
    ("budget", "epochs"), [({"epochs": 8}, 2.0), ({"epochs": 40}, 5), ({"steps": 8}, 5), ({"converged": {}}, 5)]
)
def test_a_warm_up_reaches_its_rate(budget, epochs):
    assert fields_of("warmup", {"budget": budget}, small=32, large=1000) == {"warmup": {"epochs": epochs}}


def test_workers_meet_at_every_update():
    made = fields_of("elastic-averaging", SHARED, small=32, large=1000)
    assert Recipe(**SHARED, batch_size=1000, **made).method.period == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [("sma", "no remedy 'sma'; known are none, sqrt-lr"), ("sam+", "no remedy ''"), (" , ", "at least one")],
)
def test_unknown_ones(text, said):
    with pytest.raises(BadInput, match=said):
        names_of(text)


def test_a_switch_needs_epochs():
    with pytest.raises(BadInput, match="budget of epochs"):
        fields_of("grow-batch", {"budget": {"steps": 5}}, small=1, large=2)
