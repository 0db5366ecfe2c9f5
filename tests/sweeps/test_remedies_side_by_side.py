"""A comparison with remedies. Oracle: the same runs made alone, and differences taken by hand."""

import json
import re

import pytest
import torch

import gengap
from gengap.comparison.compare import Comparison
from gengap.core.errors import BadInput
from gengap.report import remedies
from gengap.training.solo import train


def problem():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=g)
    y = (x.sum(1) + 0.5 * torch.randn(60, generator=g) > 0).long()

    def model():
        return torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )

    return gengap.Problem(model=model, loss="cross_entropy", train=(x[:40], y[:40]), test=(x[40:], y[40:]), name="sums")


HOW = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "budget": {"epochs": 3}}
NAMES = ["sqrt-lr", "sqrt-lr+ghost-bn", "sam"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("side") / "out"
    made = gengap.compare(
        problem(),
        small=4,
        large=20,
        seeds=2,
        recipe=HOW,
        remedies=NAMES,
        sharpness=None,
        interpolation=None,
        out=folder,
    )
    return made, folder


def test_every_remedy_is_its_recipe_alone(found):
    document = found[0].document
    assert [one["label"] for one in document["remedies"]] == NAMES
    fields = {"lr_rule": {"name": "sqrt", "reference_batch": 4}}
    for one, more in zip(document["remedies"], (fields, {**fields, "ghost_batch": 4}, {"method": "sam"}), strict=True):
        for run in one["runs"]:
            alone = train(problem(), gengap.Recipe(**HOW, batch_size=20, seed=run["seed"], **more), evaluations=1)
            assert run["running"]["train_loss"] == pytest.approx(alone.final.train_loss, rel=1e-6)


def test_differences_are_paired_with_the_plain_large_batch(found):
    document = found[0].document
    plain = {run["seed"]: run["test_accuracy"] for run in document["large"]["runs"]}
    for one in document["remedies"]:
        gains = [run["test_accuracy"] - plain[run["seed"]] for run in one["runs"]]
        assert one["to_large"]["test_accuracy"]["estimate"]["value"] == pytest.approx(sum(gains) / 2)
        assert one["to_large"]["test_accuracy"]["estimate"]["n"] == 2
    assert len(document["small"]["runs"]) == len(document["large"]["runs"]) == 2


def test_words_rows_and_page(found):
    made, folder = found
    assert re.match("(Of|None of) 3 remedies ", remedies.sentence(made.document))
    assert [line.label for line in remedies.lines(made.document)] == ["batch 4", "batch 20", *NAMES]
    for name in NAMES:
        assert name.partition("+")[0] in str(made)
    page = made.report(folder).read_text(encoding="utf-8")
    assert "The remedies side by side" in page
    assert (folder / "figures" / "remedies.png").stat().st_size > 5000
    rows = (folder / "data" / "runs.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 5
    assert sum(",sqrt-lr+ghost-bn," in row for row in rows) == 2
    json.dumps(made.to_dict(), allow_nan=False)


def test_finished_runs_are_used_again_and_the_study_can_be_read(found):
    made, folder = found
    again = gengap.compare(
        problem(),
        small=4,
        large=20,
        seeds=2,
        recipe=HOW,
        remedies=NAMES,
        sharpness=None,
        interpolation=None,
        out=folder,
    )
    keys = [[run["key"] for run in one["runs"]] for one in made.document["remedies"]]
    assert keys == [[run["key"] for run in one["runs"]] for one in again.document["remedies"]]
    stored = gengap.read_study(folder / "study.toml")
    assert [variant.name for variant in stored.variant] == NAMES


def test_a_remedy_that_changes_nothing_is_refused():
    with pytest.raises(BadInput, match="clip changes nothing"):
        gengap.compare(
            problem(), small=4, large=20, seeds=1, recipe={**HOW, "clip_norm": 5.0}, remedies=["clip"], sharpness=None
        )


def small_study(remedies, **more):
    how = {"sharpness": None, "interpolation": None, **more}
    return gengap.compare(problem(), small=4, large=20, seeds=1, recipe=HOW, remedies=remedies, **how)


def test_remedies_stay_in_a_folder(tmp_path):
    small_study(["clip", "sam"], out=tmp_path)
    again = small_study([], out=tmp_path).document
    assert [(one["label"], len(one["runs"])) for one in again["remedies"]] == [("clip", 1), ("sam", 1)]
    more = small_study(["sqrt-lr", "sam"], out=tmp_path).document
    assert [one["label"] for one in more["remedies"]] == ["clip", "sam", "sqrt-lr"]
    assert [variant.name for variant in gengap.read_study(tmp_path / "study.toml").variant] == [
        "clip",
        "sam",
        "sqrt-lr",
    ]


def test_a_remedy_under_another_name_leaves_the_folder_as_it_was(tmp_path):
    small_study(["clip+ghost-bn"], out=tmp_path)
    before = (tmp_path / "study.toml").read_text()
    with pytest.raises(BadInput, match="changes nothing: it is the same recipe as"):
        small_study(["ghost-bn+clip"], out=tmp_path)
    assert (tmp_path / "study.toml").read_text() == before


def test_failures_of_remedies_count():
    bad = {"label": "sam", "failures": ["seed 0: diverged at step 3: loss is nan"]}
    good = {"label": "clip", "failures": []}
    document = {"small": {"failures": []}, "large": {"failures": ["seed 1: failed"]}, "remedies": [good, bad]}
    assert Comparison(document, None).failures == ["seed 1: failed", "sam, seed 0: diverged at step 3: loss is nan"]
    del document["remedies"]
    assert Comparison(document, None).failures == ["seed 1: failed"]


@pytest.mark.parametrize(
    ("field", "said"),
    [("batch_size", "batch_size is 10, .*--small, --large"), ("seed", "seed is 10, .*--seed, --seeds")],
)
def test_fields_that_a_comparison_varies_are_not_dropped(field, said):
    with pytest.raises(BadInput, match=said):
        gengap.compare(problem(), small=4, large=20, seeds=1, recipe={**HOW, field: 10})


def estimate(value, interval, n=5):
    return None if value is None else {"value": value, "n": n, "stderr": 1.0, "interval": interval, "confidence": 0.95}


def told(*gains, key="test_accuracy", unit="points"):
    """Make as much of a document as the sentence reads: (gain, interval, n) for each remedy; no gain: it diverged."""

    def one(label, value, interval, n):
        found = estimate(value, interval, n)
        runs = [{"seed": 0, "outcome": "finished" if found else "diverged", key: value}]
        difference = {key: {"estimate": found, "unit": unit}}
        return {"label": label, "runs": runs, key: found, "to_large": difference, "to_small": difference}

    arm = {"runs": [{"seed": 0, "outcome": "finished", "test_accuracy": None, key: 1.0}]}
    made = [one(name, *gain) for name, gain in zip("abc", gains, strict=False)]
    return remedies.sentence({"small": arm, "large": arm, "remedies": made})


LOST = (None, None, 0)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            ((4.0, (-1.0, 9.0), 5), (2.0, (-3.0, 7.0), 5)),
            "None of 2 remedies can be told from the large batch in test accuracy (best: a, +4 points, 95 % interval ",
        ),
        (((4.0, None, 1), (5.0, None, 1)), "(best: b, +5.00 points in the only seed)."),
        (((4.0, (3.0, 5.0), 5), LOST, LOST), "Of 3 remedies (2 diverged) a does most: +4"),
        (((4.0, (-3.0, 11.0), 5), LOST), "None of 2 remedies (1 diverged) can be told from the large batch"),
        (((4.0, (-1.0, 9.0), 5), (2.0, (1.0, 3.0), 5)), "Of 2 remedies b does most of those that can be told from the"),
        (
            ((-4.0, (-5.0, -3.0), 5),),
            "The remedy a cannot be told to be better than the large batch in test accuracy (",
        ),
        (((4.0, (-5.0, 13.0), 5),), "The remedy a cannot be told from the large batch in test accuracy ("),
        (((4.0, (3.0, 5.0), 5),), "The remedy a: +4"),
    ],
)
def test_the_sentence_names_no_winner_that_cannot_be_told(gains, said):
    assert said in told(*gains)


def test_a_lower_loss_is_better():
    said = told((-0.4, (-0.5, -0.3), 5), (0.4, (0.3, 0.5), 5), key="test_loss", unit="nats")
    assert said.startswith("Of 2 remedies a does most: ")
    assert "in test loss" in told((-0.4, None, 1), key="test_loss", unit="nats")


def test_a_problem_judged_by_loss_has_headings_of_losses(tmp_path):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    lines = gengap.Problem(
        model=lambda: torch.nn.Linear(4, 1),
        loss="mean_square",
        train=(x[:40], x[:40].sum(1, keepdim=True)),
        test=(x[40:], x[40:].sum(1, keepdim=True)),
        name="lines",
    )
    made = gengap.compare(
        lines, small=4, large=20, seeds=1, recipe=HOW, remedies=["clip"], sharpness=None, interpolation=None
    )
    assert remedies.headings(made.document)[:3] == ("Test loss", "Against large", "Train loss")
    shown = str(made).partition("The remedy clip")[2]
    assert "Test loss" in shown
    assert "Test accuracy" not in shown
    page = made.report(tmp_path).read_text(encoding="utf-8")
    side = page.partition('<section id="side-by-side">')[2].partition("</section>")[0]
    assert '<th scope="col">Train loss</th>' in side
    assert "ccuracy</th>" not in side


@pytest.mark.parametrize(
    ("remedy", "says"),
    [
        ("ghost-bn", "ghost-bn: ghost_batch is 4, but the network has no batch norm"),
        ("augment", "augment: augment is 'keskar'"),
    ],
)
def test_what_a_network_cannot_have_is_refused_before_anything_is_written(remedy, says, tmp_path):
    x, y = torch.randn(40, 4), torch.arange(40) % 2
    bare = gengap.Problem(model=lambda: torch.nn.Linear(4, 2), loss="cross_entropy", train=(x, y), test=(x, y))
    with pytest.raises(BadInput, match=says):
        gengap.compare(bare, small=4, large=20, seeds=1, recipe=HOW, remedies=[remedy], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("ends", "said"), [([["diverged"], ["diverged"]], "(2 diverged)"), ([["diverged"], []], "(2 not finished)")]
)
def test_remedies_that_were_not_run_did_not_diverge(ends, said):
    from gengap.report.remedies import count_of

    lost = [{"label": str(i), "runs": [{"outcome": word} for word in words]} for i, words in enumerate(ends)]
    made = {"label": "made", "runs": [{"outcome": "finished"}]}
    assert count_of([made, *lost], [made]) == f"3 remedies {said}"
