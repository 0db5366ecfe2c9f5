"""Oracle: the sums of the costs, done by hand on measures whose cost is stated."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from gengap.core.errors import BadInput
from gengap.measurement.entry import Measure
from gengap.measurement.plan import about, chosen_time, make_plan
from gengap.measurement.settings import Settings, in_order, parse_seconds
from gengap.measurement.work import Speeds, Work

MILLI = Speeds(value=0.0, gradient=1e-3, product=0.0, weights=0)  # a gradient of 1,000 samples takes a second


@dataclass
class Asked:
    """As much of a task as planning looks at."""

    samples: int
    settings: Settings = field(default_factory=Settings)
    subject: SimpleNamespace = field(default_factory=SimpleNamespace)

    def on(self, samples):
        return Asked(samples, self.settings)


def measure(name, gradients, headline=False, missing=""):
    return Measure(
        0, name, "loss", name, lambda _: Work(gradients=gradients), None, headline, missing=lambda _: missing
    )


FOUR = [measure("a", 1, headline=True), measure("b", 4), measure("c", 2, headline=True), measure("d", 1)]


def plan(budget, samples=4_000, measures=FOUR, spent=0.0, kept=()):
    task = Asked(samples, Settings(budget=budget))
    return make_plan(task, measures, MILLI, spent=spent, kept=lambda m, _: m.name in kept)


def test_without_a_budget_everything_is_taken_on_all_samples():
    made = plan(None)
    assert (made.samples, [row.name for row in made.rows], made.left_out) == (4_000, ["a", "b", "c", "d"], ())
    assert [row.seconds for row in made.rows] == pytest.approx([4, 16, 8, 4])
    assert made.seconds == pytest.approx(32)


@pytest.mark.parametrize(
    ("budget", "samples", "taken"),
    [
        (32.1, 4_000, "acbd"),  # headlines first
        (31.0, 4_000, "acb"),
        (20.0, 4_000, "acd"),  # d still fits where b does not
        (12.1, 4_000, "ac"),
        (11.9, 2_000, "acd"),  # headlines of 12 s do not fit: half the samples, 6 s, and 2 s of d beside them
        (3.05, 1_000, "ac"),
        (1.51, 500, "ac"),
        (1.2, 500, "ad"),  # not even the headlines on the fewest samples: as many as fit, in order
    ],
)
def test_a_budget_halves_the_samples_until_the_headlines_fit(budget, samples, taken):
    made = plan(budget)
    assert (made.samples, "".join(row.name for row in made.rows)) == (samples, taken)
    assert made.seconds <= budget
    assert {one.name for one in made.left_out} == set("abcd") - set(taken)
    assert all("budget" in one.why for one in made.left_out)
    assert bool(made.remark) == (samples < 4_000)


def test_what_is_there_already_and_what_is_spent_count():
    assert "".join(row.name for row in plan(16.1, kept="bc").rows) == "cabd"  # the cheapest headline first
    assert plan(16.1, kept="b").rows[2].detail == "there already"
    assert plan(16.1, spent=10.0).samples == 2_000


def test_what_is_missing_is_said_whatever_the_budget():
    made = plan(None, measures=[*FOUR, measure("e", 1, missing="name it by --second")])
    assert [(one.name, one.why) for one in made.left_out] == [("e", "name it by --second")]


def test_few_samples_are_not_halved():
    made = plan(0.31, samples=300)
    assert (made.samples, made.remark) == (300, "")


@pytest.mark.parametrize(("budget", "spent", "least"), [(0.1, 0.0, 1), (0.4, 0.0, 1), (9.0, 8.9, 12)])
def test_a_budget_too_short_for_the_cheapest_measure_says_what_it_would_take(budget, spent, least):
    """The cheapest takes 0.5 s on the fewest samples; a fifth is added to that and what is spent, in whole seconds."""
    with pytest.raises(
        BadInput, match=rf"budget of {budget:g} s is too short .*'a', on 500 samples.* --budget {least}s"
    ):
        plan(budget, spent=spent)


def test_what_does_not_fit_is_kept_for_later_with_the_time_it_would_take():
    made = plan(12.1)
    assert [(row.name, row.seconds) for row in made.late] == [("b", 16.0), ("d", 4.0)]
    assert made.room == pytest.approx(0.1)
    assert made.left_out[1].why == "it would take about 4.0 s on 4,000 samples, and about 0.10 s of the budget is left"


@pytest.mark.parametrize(("seconds", "written"), [(60.0, "60 s"), (0.5, "0.5 s"), (350.0, "5 min 50 s")])
def test_a_chosen_time_has_the_digits_that_were_given(seconds, written):
    assert chosen_time(seconds) == written


def test_long_times_are_written_in_minutes():
    assert "about 5 min 50 s" in plan(60.0, measures=[*FOUR, measure("e", 87.5)]).left_out[-1].why
    assert (about(350.0), about(3e-4)) == ("about 5 min 50 s", "less than 0.01 s")


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("5m", 300), ("1.5h", 5400), ("90", 90), ("2 min", 120), (" 0.5 s ", 0.5)]
)
def test_times(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "fast", "60x", "-1s", "1e3"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadInput, match=r"budget is .*; write a number and a unit"):
        parse_seconds(text)


WRONG = {
    "group": ({"groups": ("loss", "sharp")}, "no group of measures is called 'sharp'; choose among loss, distance"),
    "none": ({"groups": ()}, "no group of measures was chosen"),
    "radius": ({"radii": (1e-3, -1.0)}, "radius is 0.001, -1.0; give positive numbers"),
    "nan": ({"radii": (float("nan"),)}, "radius is nan"),
    "samples": ({"samples": -1}, "samples is -1"),
    "statistics": ({"batch_norm": "recompute"}, "batch_norm is 'recompute'; choose one of running, batch"),
    "budget": ({"budget": 0.0}, "budget is 0.0 seconds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_be_used(case):
    fields, says = WRONG[case]
    with pytest.raises(BadInput, match=says):
        Settings(**fields)


def test_words_of_the_command_line():
    assert in_order(["noise", "loss", "noise", "odd"]) == ("loss", "noise", "odd")
