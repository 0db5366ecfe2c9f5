"""Oracle: verdicts that a person reads off numbers chosen by hand; t(2) = 4.303, t(4) = 2.776."""

import json
import math

import pytest

from gengap.studies.study import Claim
from gengap.studies.verdict import Cell, describe, judge


def cells(first, second, measure="test_accuracy"):
    """Runs of batch 32 and 500, one seed after the other; None where a run is missing."""
    return [
        Cell({"batch_size": size, "seed": seed}, {measure: value})
        for size, values in ((32, first), (500, second))
        for seed, value in enumerate(values)
        if value is not None
    ]


def worse(**changes):
    """Claim that batch 500 tests worse than batch 32."""
    fields = {"measure": "test_accuracy", "compare": {"batch_size": (32, 500)}, "expect": "first > second"}
    return Claim(**{**fields, **changes})


# second - first = -1.9, -2.0, -2.1: mean -2, sd 0.1, half width 4.303 * 0.1 / sqrt(3) = 0.248
CLEAR = ([98.0, 97.0, 99.0], [96.1, 95.0, 96.9])
# -3, +1, +2: mean 0, sd 2.65, half width 6.6
NOISY = ([98.0, 97.0, 95.0], [95.0, 98.0, 97.0])
# 0.01, 0, -0.01: half width 0.025
EQUAL = ([98.0, 97.0, 95.0], [98.01, 97.0, 94.99])

PAIRS = [
    ("agrees", CLEAR, {}),
    ("differs", CLEAR, {"expect": "first < second"}),
    ("agrees", CLEAR[::-1], {"expect": "first < second"}),
    ("differs", CLEAR[::-1], {}),
    ("not resolvable", NOISY, {}),
    ("not resolvable", NOISY, {"tolerance": 6.5}),
    ("insensitive", NOISY, {"tolerance": 6.6}),
    ("not resolvable", EQUAL, {}),
    ("not resolvable", EQUAL, {"tolerance": 0.02}),
    ("insensitive", EQUAL, {"tolerance": 0.1}),
    ("agrees", CLEAR, {"tolerance": 2.2}),  # the interval reaches 2.248
    ("insensitive", CLEAR, {"tolerance": 2.3}),
    ("insensitive", ([5.0, 5.0], [5.0, 5.0]), {}),
    ("not resolvable", ([98.0], [90.0]), {}),
    ("not resolvable", ([98.0, None, 97.0], [90.0, 91.0, None]), {}),  # one seed has both
    ("not run", ([98.0, None], [None, 91.0]), {}),
    ("not run", ([98.0, 97.0], []), {}),
    ("not run", ([], []), {}),
    ("not run", CLEAR, {"measure": "sharpness"}),
    ("not run", CLEAR, {"compare": {"batch_size": (32, 501)}}),
    ("not resolvable", ([1.0, 2.0, math.nan], [0.0, 1.0, 0.5]), {}),
    ("not resolvable", ([1.0, 2.0, math.nan], [0.0, 1.0, 0.5]), {"expect": "first < second"}),
    ("not resolvable", ([1.0, 2.0], [math.inf, 3.0]), {"expect": "first < second"}),
]


@pytest.mark.parametrize(("word", "values", "changes"), PAIRS, ids=[f"{w} {c} {v}" for w, v, c in PAIRS])
def test_two_cells(word, values, changes):
    verdict = judge(worse(**changes), cells(*values))
    assert verdict.word == word
    assert "\n" not in verdict.why
    assert (verdict.ours is None) == (word == "not run")


def test_the_numbers_it_rests_on():
    verdict = judge(worse(), cells(*CLEAR))
    assert verdict.ours.value == pytest.approx(-2.0)
    assert verdict.ours.interval == pytest.approx((-2.248, -1.752), abs=1e-3)
    assert verdict.why == "second - first is -2, 95 % interval -2.25 to -1.75, 3 paired seeds"
    assert "one seed" in judge(worse(), cells([98.0], [90.0])).why


# second / first = 60, 50, 75: logarithms 4.094, 3.912, 4.317, half width 4.303 * 0.203 / sqrt(3) = 0.505
SHARPER = ([1.0, 2.0, 4.0], [60.0, 100.0, 300.0])
# second / first = 2, 1/2, 3
MIXED = ([1.0, 2.0, 1.0], [2.0, 1.0, 3.0])


@pytest.mark.parametrize("measure", ["sharpness", "distance"])
@pytest.mark.parametrize(
    ("word", "values", "expect"),
    [
        ("agrees", SHARPER, "first < second"),
        ("differs", SHARPER, "first > second"),
        ("agrees", SHARPER[::-1], "first > second"),
        ("not resolvable", MIXED, "first < second"),
        ("not resolvable", ([1.0], [60.0]), "first < second"),
        ("not run", ([1.0], []), "first < second"),
    ],
)
def test_what_grows_by_factors_is_compared_by_its_ratio(measure, word, values, expect):
    """The differences of SHARPER, 59 to 296, resolve nothing with three seeds."""
    verdict = judge(worse(measure=measure, expect=expect), cells(*values, measure))
    assert verdict.word == word


def test_the_ratio_it_rests_on():
    verdict = judge(worse(measure="sharpness", expect="first < second"), cells(*SHARPER, "sharpness"))
    middle = (60 * 50 * 75) ** (1 / 3)
    assert verdict.ours.value == pytest.approx(middle)
    assert verdict.ours.interval == pytest.approx((middle * math.exp(-0.505), middle * math.exp(0.505)), rel=1e-2)
    assert verdict.why.startswith("second / first is 60.8, 95 % interval 36.")


def test_a_measure_of_zero_has_no_ratio_and_is_compared_by_difference():
    found = cells([0.0, 1.0, 2.0], [10.0, 11.1, 11.9], "sharpness")
    verdict = judge(worse(measure="sharpness", expect="first < second"), found)
    assert verdict.word == "agrees"
    assert verdict.ours.value == pytest.approx(10.0)
    assert verdict.why.startswith("second - first is 10")


def test_runs_are_paired_by_their_seed():
    """Seeds that differ by 50 points and batches by 1: unpaired, nothing could be seen."""
    base = [0.0, 50.0, 100.0, 25.0, 75.0]
    found = cells(base, [x - d for x, d in zip(base, [1.0, 1.1, 0.9, 1.05, 0.95], strict=True)])
    shuffled = [found[i] for i in (7, 2, 9, 0, 4, 5, 1, 8, 3, 6)]
    verdict = judge(worse(), shuffled)
    assert verdict.word == "agrees"
    assert verdict.ours.n == 5
    assert verdict.ours.value == pytest.approx(-1.0)


def test_seeds_without_a_partner_do_not_count():
    alone = [Cell({"batch_size": 32, "seed": 9}, {"test_accuracy": 0.0})]
    unmeasured = [Cell({"batch_size": b, "seed": 8}, {"test_accuracy": None}) for b in (32, 500)]
    assert judge(worse(), [*cells(*CLEAR), *alone, *unmeasured]).ours == judge(worse(), cells(*CLEAR)).ours


def near(**changes):
    fields = {"measure": "test_accuracy", "where": {"batch_size": 32}, "paper": {"mean": 98.0, "spread": 0.3}}
    return Claim(**{**fields, **changes})


NUMBERS = [
    # ours 96, 97, 98: mean 97, sd 1
    ("agrees", [96.0, 97.0, 98.0], {}),  # 1.0 apart, room 1.3
    ("agrees", [96.0, 97.0, 98.0], {"paper": {"mean": 98.0}}),  # room 1.0
    ("differs", [96.0, 97.0, 98.0], {"paper": {"mean": 98.01}}),
    ("agrees", [96.0, 97.0, 98.0], {"paper": {"mean": 98.25, "spread": 0.25}}),
    ("differs", [96.0, 97.0, 98.0], {"paper": {"mean": 98.5, "spread": 0.25}}),
    ("agrees", [96.0, 97.0, 98.0], {"paper": {"mean": 98.5, "spread": 0.25}, "tolerance": 0.25}),
    ("differs", [96.0, 97.0, 98.0], {"paper": {"mean": 95.5, "spread": 0.25}}),
    ("agrees", [97.75], {}),  # one run has no spread: 0.25 apart, room 0.3
    ("differs", [97.5], {}),
    ("not run", [], {}),
    ("not run", [98.0], {"where": {"batch_size": 64}}),
    ("not run", [98.0], {"where": {"batch_size": 32, "lr": 1}}),
    ("not run", [98.0], {"measure": "distance"}),
]


@pytest.mark.parametrize(("word", "values", "changes"), NUMBERS, ids=[f"{w} {c} {v}" for w, v, c in NUMBERS])
def test_a_published_number(word, values, changes):
    verdict = judge(near(**changes), cells(values, [0.0, 0.0]))
    assert verdict.word == word
    assert "\n" not in verdict.why
    assert (verdict.ours is None) == (word == "not run")


def test_a_cell_is_all_of_its_fields():
    runs = [
        Cell({"batch_size": 32, "lr": lr, "seed": s}, {"test_accuracy": v})
        for lr, s, v in ((0.1, 0, 98.0), (0.1, 1, 98.0), (0.2, 0, 10.0))
    ]
    assert judge(near(where={"batch_size": 32, "lr": 0.1}), runs).ours.value == 98.0
    assert judge(near(where={"batch_size": 32}), runs).ours.n == 3


def test_claims_in_words():
    assert describe(worse()) == "test_accuracy: batch_size 32 > batch_size 500"
    assert describe(worse(expect="first < second")) == "test_accuracy: batch_size 32 < batch_size 500"
    assert describe(near()) == "test_accuracy at batch_size 32 is 98.0"


def test_json_form():
    told = judge(worse(text="it is worse", source="Keskar"), cells(*CLEAR)).to_dict()
    told = json.loads(json.dumps(told, allow_nan=False))
    assert (told["text"], told["source"], told["verdict"], told["published"]) == (
        "it is worse",
        "Keskar",
        "agrees",
        None,
    )
    assert told["ours"]["n"] == 3
    told = judge(near(), []).to_dict()
    assert (told["verdict"], told["ours"], told["published"]["spread"]) == ("not run", None, 0.3)
    assert told["text"] == "test_accuracy at batch_size 32 is 98.0"
