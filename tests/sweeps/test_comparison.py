"""`gengap.compare`. Oracle: numpy on the accuracies of single runs, and documents whose numbers were chosen by hand."""

import json
import math
import tempfile

import numpy as np
import pytest
from scipy import stats
from sweep_problems import blobs, normed, points, with_origin
from torch import nn

import gengap
from gengap import BadInput
from gengap.comparison.compare import run_comparison, stored_comparison
from gengap.comparison.question import comparison_study
from gengap.core.estimate import mean, paired_difference, paired_ratio
from gengap.report.sentence import answer, unresolved
from gengap.studies.study import read_study

RECIPE = {"optimizer": "sgd", "lr": 0.3, "budget": {"epochs": 4}}
SPECS = {
    "sharpness": gengap.SharpnessSpec(radius=1e-2),
    "interpolation": gengap.InterpolationSpec(points=3),
    "evaluations": 2,
}


@pytest.fixture(scope="module")
def found():
    return gengap.compare(blobs(), small=4, large="100%", seeds=3, recipe=RECIPE, **SPECS)


@pytest.fixture(scope="module")
def singles():
    """Single runs, by batch size in the order of the seeds."""
    how = gengap.Recipe(**RECIPE, batch_size=4)
    return {
        size: [gengap.train(blobs(), how.changed(batch_size=size, seed=seed), evaluations=2) for seed in range(3)]
        for size in (4, 40)
    }


def test_the_keys_that_stay(found):
    document = found.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(document) >= {"small", "large", "difference", "verdict", "sentence"}
    for name, size in (("small", 4), ("large", 40)):
        arm = document[name]
        assert set(arm) >= {"test_accuracy", "train_accuracy", "sharpness", "distance", "runs"}
        assert arm["batch_size"] == size
        assert [run["seed"] for run in arm["runs"]] == [0, 1, 2]
        for measure in ("test_accuracy", "train_accuracy", "sharpness", "distance"):
            assert set(arm[measure]) >= {"value", "stdev", "n", "interval"}
            assert arm[measure]["n"] == 3
    assert set(found.verdict) == {"test_accuracy", "sharpness", "distance"}
    assert document["verdict"]["sentence"] == found.sentence == document["sentence"]
    assert found.failures == []
    assert found.folder is None


def test_numbers_are_those_of_single_runs(found, singles):
    values = {}
    for arm, size in (("small", 4), ("large", 40)):
        values[arm] = {
            "test_accuracy": [run.final.test_accuracy for run in singles[size]],
            "train_loss": [run.final.train_loss for run in singles[size]],
            "distance": [
                math.sqrt(
                    sum((run.params[k] - run.initial_params[k]).double().square().sum().item() for k in run.params)
                )
                for run in singles[size]
            ],
        }
        for name, ours in values[arm].items():
            assert [run[name] for run in found.document[arm]["runs"]] == pytest.approx(ours, rel=1e-6)
            estimate = found.document[arm][name]
            assert (estimate["value"], estimate["stdev"]) == pytest.approx(
                (np.mean(ours), np.std(ours, ddof=1)), rel=1e-6
            )
    gap = np.subtract(values["large"]["test_accuracy"], values["small"]["test_accuracy"])
    entry = found.document["difference"]["test_accuracy"]
    assert entry["unit"] == "points"
    assert entry["estimate"]["value"] == pytest.approx(gap.mean(), rel=1e-9)
    expected = stats.t.interval(0.95, 2, gap.mean(), stats.sem(gap))
    assert entry["estimate"]["interval"] == pytest.approx(expected, rel=1e-6)
    ratio = np.log(values["large"]["distance"]) - np.log(values["small"]["distance"])
    ours = found.document["difference"]["distance"]["ratio"]
    assert ours["value"] == pytest.approx(math.exp(ratio.mean()), rel=1e-6)
    assert ours["interval"] == pytest.approx(
        np.exp(stats.t.interval(0.95, 2, ratio.mean(), stats.sem(ratio))), rel=1e-5
    )


def test_steps_and_costs(found):
    assert (found.document["small"]["steps"], found.document["large"]["steps"]) == (40, 4)
    assert all(cost["seconds"] >= 0 for cost in found.document["costs"])
    assert "3 runs, 120 updates" in {cost["detail"] for cost in found.document["costs"]}
    assert [path["seed"] for path in found.document["interpolation"]] == [0]
    assert found.document["problem"]["batch_norm"] == "none"


def test_it_prints_the_sentence_first(found):
    first = " ".join(str(found).split())
    assert first.startswith(" ".join(found.sentence.split()))


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    gengap.compare(blobs(), small=4, large=40, seeds=1, recipe=RECIPE, sharpness=None, interpolation=None)
    assert list(tmp_path.iterdir()) == []


def test_one_seed(tmp_path):
    one = gengap.compare(blobs(), small=4, large=40, seeds=[7], recipe=RECIPE, out=tmp_path, **SPECS)
    assert one.folder == tmp_path
    assert "in the only seed, which cannot be told from chance" in one.sentence
    assert one.verdict["test_accuracy"] == "not resolvable"
    assert one.document["small"]["test_accuracy"]["interval"] is None
    assert any("one seed cannot say how much seeds differ" in text for text in one.document["unresolved"])
    page = one.report(tmp_path / "page")
    assert page.exists()
    assert one.sentence.split(",")[0] in page.read_text()
    again = stored_comparison(tmp_path)
    assert {**again.document, "created": 0} == {**one.document, "created": 0}


def test_reproduced_from_its_study_file(tmp_path):
    p = with_origin(blobs())
    first = gengap.compare(p, small=4, large="100%", seeds=2, recipe=RECIPE, out=tmp_path / "one", **SPECS)
    plan = read_study(tmp_path / "one" / "study.toml")
    assert plan == comparison_study(p, small=4, large=40, seeds=2, recipe=RECIPE, **SPECS)
    second = run_comparison(plan, p, tmp_path / "two")
    for arm in ("small", "large"):
        for name in ("test_accuracy", "train_loss", "distance", "sharpness"):
            assert first.document[arm][name] == second.document[arm][name]
    assert first.document["study"] == second.document["study"]


def test_regression_is_judged_by_its_loss():
    (x, y), (tx, ty) = points(40, 0), points(30, 1)
    problem = gengap.Problem(
        model=lambda: nn.Linear(3, 1), loss="mean_square", train=(x, y.float()[:, None]), test=(tx, ty.float()[:, None])
    )
    found = gengap.compare(
        problem, small=4, large=40, seeds=3, recipe={**RECIPE, "lr": 0.03}, sharpness=None, interpolation=None
    )
    assert set(found.verdict) == {"test_loss", "distance"}
    assert found.document["small"]["test_accuracy"] is None
    assert found.document["small"]["sharpness"] is None
    assert "test loss" in found.sentence
    assert "sharper" not in found.sentence
    json.dumps(found.to_dict(), allow_nan=False)


def test_an_arm_that_diverges_still_has_a_report(tmp_path):
    class OnlySmall:
        def __call__(self, outputs, targets):
            loss = nn.functional.cross_entropy(outputs, targets)
            return loss * math.inf if outputs.requires_grad and len(targets) == 40 else loss

    found = gengap.compare(blobs(normed, OnlySmall()), small=4, large=40, seeds=2, recipe=RECIPE, out=tmp_path, **SPECS)
    assert len(found.failures) == 2
    assert found.failures[0].startswith("seed 0: diverged at step 0: the loss was inf")
    assert found.document["large"]["test_accuracy"] is None
    assert found.document["interpolation"] == []
    assert found.verdict == {"test_accuracy": "not run", "sharpness": "not run", "distance": "not run"}
    assert "no seed finished with both" in found.sentence
    assert found.report(tmp_path / "page").exists()
    assert found.sentence in " ".join(str(found).split())
    json.dumps(found.to_dict(), allow_nan=False)


def test_batch_norm_is_named(tmp_path):
    found = gengap.compare(blobs(normed), small=4, large=40, seeds=1, recipe=RECIPE, out=tmp_path, **SPECS)
    assert found.document["problem"]["batch_norm"] == "batch"
    assert found.document["small"]["runs"][0]["sharpness"]["batch_norm"] == "batch"


def test_defaults_come_from_the_catalogue():
    plan = comparison_study(gengap.load("digits", train_size=200))
    assert plan.grid == {"batch_size": [32, 200], "seed": [0, 1, 2, 3, 4]}
    assert plan.recipe == {"optimizer": "adam", "lr": 1e-3, "budget": {"epochs": 60}}
    assert [claim.measure for claim in plan.claim] == ["test_accuracy", "sharpness", "distance"]
    own = comparison_study(blobs(), small=2)
    assert own.grid["batch_size"] == [2, 4]
    assert own.recipe["budget"] == {"epochs": 20}


def test_a_recipe_object_is_shared():
    how = gengap.Recipe(lr=0.1, momentum=0.5, batch_size=7, seed=9, budget={"steps": 3})
    plan = comparison_study(blobs(), small=2, large=4, seeds=[5], recipe=how)
    assert {recipe.changed(batch_size=7, seed=9) for recipe in plan.recipes()} == {how}


ARGUMENTS = {
    "order": (
        {"small": 8, "large": 8},
        "the small batch is 8 and the large batch 8 of 40 samples; choose a small one below",
    ),
    "large": ({"small": 8, "large": 50}, "batch_size is 50, but there are only 40 training samples"),
    "default": ({}, "batch_size is 256, but there are only 40 training samples"),
    "seeds": ({"small": 2, "seeds": 0}, "seeds is 0; give at least one"),
    "twice": ({"small": 4, "large": 8, "seeds": [1, 1]}, r"seeds is \[1, 1\]; give at least one, and each once"),
    "negative": ({"small": 4, "large": 8, "seeds": [-1]}, "seed is -1"),
    "lr": ({"small": 4, "large": 8, "recipe": {"optimizer": "sgd"}}, "lr is missing; sgd has no learning rate"),
    "field": (
        {"small": 4, "large": 8, "recipe": {"lr": 1, "momentun": 1}},
        "has no field 'momentun'; did you mean 'momentum'",
    ),
    "share": ({"small": "120%", "large": 8}, "batch_size is '120%'; give a whole number, or a share"),
    "device": ({"small": 4, "large": 8, "device": "abacus"}, "device 'abacus' cannot be used"),
    "spec": ({"small": 4, "large": 8, "sharpness": {"radius": -1}}, "radius is -1"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_arguments_write_nothing(name, tmp_path):
    arguments, text = ARGUMENTS[name]
    with pytest.raises(BadInput, match=text) as caught:
        gengap.compare(blobs(), out=tmp_path / "out", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# the sentence


def arm(label, losses=(0.01,), steps=100, sharpness=None):
    runs = [{"sharpness": {"agreement": 1.0}} for _ in sharpness or ()]
    estimate = mean(sharpness).to_dict() if sharpness else None
    return {"label": label, "train_loss": mean(losses).to_dict(), "steps": steps, "runs": runs, "sharpness": estimate}


def say(small, large, word, *, unit="points", measure="test_accuracy", sharp=(None, None)):
    entry = {"estimate": paired_difference(small, large).to_dict(), "unit": unit}
    found = paired_ratio(*sharp) if sharp[0] else None
    difference = {measure: entry, "sharpness": {"ratio": found.to_dict() if found else None}}
    return answer(arm("batch 32"), arm("batch 1,000"), difference, {measure: word})


SMALL = [97.0, 97.4, 97.2]
SAYINGS = {
    "worse": (
        say(SMALL, [94.9, 95.2, 95.3], "agrees"),
        "Batch 1,000 tests 2.1 points worse than batch 32 (95 % interval 1.7 to 2.4, 3 paired seeds).",
    ),
    "better": (
        say(SMALL, [98.0, 98.5, 98.3], "differs"),
        "Batch 1,000 tests 1.07 points better than batch 32 (95 % interval 0.92 to 1.21, 3 paired seeds).",
    ),
    "not resolvable": (
        say(SMALL, [97.5, 96.9, 97.0], "not resolvable"),
        "No difference in test accuracy between batch 1,000 and batch 32 can be resolved "
        "(\u22120.1 points; 95 % interval \u22121.3 to 1.2, 3 paired seeds).",
    ),
    "insensitive": (
        say(SMALL, [97.01, 97.42, 97.21], "insensitive"),
        "Batch 1,000 tests the same as batch 32 for all practical purposes",
    ),
    "one seed": (
        say([97.0], [95.0], "not resolvable"),
        "Batch 1,000 tests 2.00 points worse than batch 32 in the only seed, which cannot be told from chance.",
    ),
    "loss": (
        say([0.10, 0.12, 0.11], [0.30, 0.31, 0.33], "agrees", unit="nats", measure="test_loss"),
        "Batch 1,000 has a test loss 0.20 nats higher than batch 32",
    ),
    "lower loss": (
        say([0.30, 0.31, 0.33], [0.10, 0.12, 0.11], "differs", unit="nats", measure="test_loss"),
        "Batch 1,000 has a test loss 0.20 nats lower than batch 32",
    ),
    "sharper": (
        say(SMALL, [94.9, 95.2, 95.3], "agrees", sharp=([1, 1.1, 0.9], [60, 70, 50])),
        "and its minimum is 60 times sharper",
    ),
    "flatter": (
        say(SMALL, [94.9, 95.2, 95.3], "agrees", sharp=([60, 70, 50], [1, 1.1, 0.9])),
        "and its minimum is 60 times flatter",
    ),
    "neither": (
        say(SMALL, [94.9, 95.2, 95.3], "agrees", sharp=([1, 2, 1], [2, 1, 1])),
        "and its minimum is neither sharper nor flatter as far as can be resolved",
    ),
    "no ratio": (say(SMALL, [94.9, 95.2, 95.3], "agrees", sharp=([1, 0, 1], [2, 1, 1])), "3 paired seeds)."),
    "no pair": (
        answer(
            arm("batch 32"),
            arm("batch 1,000"),
            {"test_accuracy": None, "sharpness": {"ratio": None}},
            {"test_accuracy": "not run"},
        ),
        "Nothing can be said of batch 32 and batch 1,000: no seed finished with both",
    ),
}


@pytest.mark.parametrize("name", SAYINGS)
def test_the_sentence(name):
    said, expected = SAYINGS[name]
    assert expected in said
    assert said.endswith(".")
    assert ",." not in said
    assert said.count("  ") == 0


def test_unequal_convergence_is_remarked():
    nothing = {"sharpness": {"ratio": None}}
    remarks = unresolved(arm("batch 32", [0.01, 0.02], 300), arm("batch 1,000", [0.5, 0.6], 30), nothing, [])
    assert len(remarks) == 1
    assert remarks[0].startswith(
        "How much of the difference is optimisation: batch 1,000 ends with a training loss of 0.55"
    )
    assert "after 30 updates against 300" in remarks[0]
    assert "--converged" in remarks[0]
    assert unresolved(arm("a", [0.1]), arm("b", [0.2]), nothing, []) == []


def test_a_sharpness_of_zero_is_remarked():
    arms = arm("a", sharpness=[0.0, 1.0]), arm("b", sharpness=[1.0, 1.0])
    assert unresolved(*arms, {"sharpness": {"ratio": None}}, []) == [
        "The ratio of sharpness does not exist: a sharpness is zero."
    ]


def test_an_evenly_trained_pair_has_no_remark_on_convergence(found):
    losses = [found.document[name]["train_loss"]["value"] for name in ("small", "large")]
    remarked = any("optimisation" in text for text in found.document["unresolved"])
    assert remarked == (max(losses) >= 3 * min(losses))


def test_stored_comparison_needs_one(tmp_path):
    with pytest.raises(BadInput, match="holds no comparison"):
        stored_comparison(tmp_path)
    assert list(tmp_path.iterdir()) == []
